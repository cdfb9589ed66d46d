/*
 * A tenant that does not want to be held: reaches the driver by another way each time, and takes memory.
 *
 *   escape WAY DRIVER MIB SECONDS
 *
 * WAY: path (dlopen of DRIVER by its path, then dlsym), deepbind, space (dlmopen, a name space of its own), table (entry
 * points read from the driver's own symbol table), taken (cuInit as everybody, memory by the symbol table). Takes MIB in
 * steps of 256, says what it got in one line of JSON, keeps it for SECONDS.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef STATIC
#include "intercept/elf.h"
#endif

enum { STEP_MIB = 256 };

static void *driver;
static const char *way;

static void *by_name(const char *name)
{
    return dlsym(driver, name);
}

static void *by_table(const char *name)
{
#ifdef STATIC
    return dlsym(driver, name);
#else
    return hami_elf_find("libcuda.so", name);
#endif
}

static void *find(const char *name, int memory)
{
    const int table = strcmp(way, "table") == 0 || (memory && strcmp(way, "taken") == 0);
    void *address = table ? by_table(name) : by_name(name);
    if (address == NULL) {
        printf("{\"way\": \"%s\", \"error\": \"no %s\"}\n", way, name);
        exit(1);
    }
    return address;
}

static void *reach(const char *path)
{
#ifdef RTLD_DEEPBIND
    if (strcmp(way, "deepbind") == 0)
        return dlopen(path, RTLD_NOW | RTLD_DEEPBIND);
#endif
#ifndef STATIC
    if (strcmp(way, "space") == 0)
        return dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
#endif
    return dlopen(path, RTLD_NOW);
}

int main(int count, char **words)
{
    if (count < 5)
        return 2;
    way = words[1];
    const long wanted = atol(words[3]);
    driver = reach(words[2]);
    if (driver == NULL) {
        printf("{\"way\": \"%s\", \"error\": \"no driver: %s\"}\n", way, dlerror());
        return 1;
    }
    int (*init)(unsigned int) = (int (*)(unsigned int))find("cuInit", 0);
    int (*device_get)(int *, int) = (int (*)(int *, int))find("cuDeviceGet", 0);
    int (*retain)(void **, int) = (int (*)(void **, int))find("cuDevicePrimaryCtxRetain", 0);
    int (*set)(void *) = (int (*)(void *))find("cuCtxSetCurrent", 0);
    int (*info)(size_t *, size_t *) = (int (*)(size_t *, size_t *))find("cuMemGetInfo_v2", 0);
    int (*take)(uint64_t *, size_t) = (int (*)(uint64_t *, size_t))find("cuMemAlloc_v2", 1);
    int device = 0, code;
    void *context = NULL;
    if ((code = init(0)) != 0 || (code = device_get(&device, 0)) != 0 || (code = retain(&context, device)) != 0 ||
        (code = set(context)) != 0) {
        printf("{\"way\": \"%s\", \"error\": \"start\", \"code\": %d}\n", way, code);
        return 1;
    }
    size_t left = 0, total = 0;
    info(&left, &total);
    long taken = 0;
    for (uint64_t at; taken < wanted && (code = take(&at, (size_t)STEP_MIB << 20)) == 0;)
        taken += STEP_MIB;
    printf("{\"way\": \"%s\", \"pid\": %d, \"total_mib\": %zu, \"taken_mib\": %ld, \"code\": %d}\n", way, (int)getpid(), total >> 20,
           taken, code);
    fflush(stdout);
    sleep((unsigned int)atoi(words[4]));
    return 0;
}
