/* A library between the program and the driver, as profilers are: it looks further than itself. */
#define _GNU_SOURCE
#include <dlfcn.h>

void *from_library(const char *name);
void *default_from_library(const char *name);

void *from_library(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

void *default_from_library(const char *name)
{
    return dlsym(RTLD_DEFAULT, name);
}
