/*
 * Two threads that meet in the loader: one opens a library whose constructor asks for CUDA, the loader's lock in hand; the other asks for CUDA first, and waits
 * for that lock. Built as the program, and with -DSLOW as that library. Prints what both were answered.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

typedef int (*ask)(const char *, void **, int, uint64_t);

#ifdef SLOW
__attribute__((constructor)) static void ask_for_cuda(void)
{
    void *address = dlsym(RTLD_DEFAULT, "in_there"), *found = NULL;
    void (*in_there)(void);
    ask get;
    CHECK(address != NULL);
    memcpy(&in_there, &address, sizeof address);
    in_there();
    address = dlsym(RTLD_DEFAULT, "cuGetProcAddress");
    CHECK(address != NULL);
    memcpy(&get, &address, sizeof address);
    const int told = get("cuInit", &found, 11000, 0);
    printf("%d %d\n", told, found != NULL);
}
#else
static _Atomic pid_t other;
static _Atomic int inside;

static char state_of(pid_t thread)
{
    char path[64], text[1024] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *file = fopen(path, "re");
    if (file != NULL && fgets(text, sizeof text, file) == NULL)
        text[0] = '\0';
    if (file != NULL)
        fclose(file);
    const char *name = strrchr(text, ')');
    return name == NULL ? '?' : name[2];
}

/* Comes back when the other sleeps for the loader. */
__attribute__((visibility("default"))) void in_there(void)
{
    atomic_store(&inside, 1);
    for (int asleep = 0; asleep < 20; asleep = atomic_load(&other) != 0 && state_of(atomic_load(&other)) == 'S' ? asleep + 1 : 0)
        usleep(1000);
}

static void *ask_first(void *address)
{
    ask get;
    void *found = NULL;
    memcpy(&get, &address, sizeof address);
    while (!atomic_load(&inside))
        usleep(1000);
    atomic_store(&other, gettid());
    const int told = get("cuInit", &found, 11000, 0);
    printf("%d %d\n", told, found != NULL);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    void *address = dlsym(RTLD_DEFAULT, "cuGetProcAddress");
    CHECK(argc == 2 && address != NULL);
    CHECK(pthread_create(&thread, NULL, ask_first, address) == 0);
    CHECK(dlopen(argv[1], RTLD_NOW) != NULL);
    CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}
#endif
