/* What the library may not leave behind in a process: signals, umask, descriptors, output, a broken fork. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hami/cuda_abi.h"

/* Of those open, which a driver has not for itself: the simulated one keeps its file of live processes open. */
static bool is_drivers(const char *number)
{
    char link[300], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%s", number);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 5 && strcmp(path + length - 5, ".live") == 0;
}

static int descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    for (struct dirent *each = readdir(folder); each != NULL; each = readdir(folder))
        count += !is_drivers(each->d_name);
    closedir(folder);
    return count;
}

int main(void)
{
    struct sigaction before[65], after;
    umask(027);
    for (int i = 1; i < 65; i++)
        sigaction(i, NULL, &before[i]);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (driver == NULL)
        return 2;
    const int open_before = descriptors();
    CUresult (*init)(unsigned int) = (CUresult(*)(unsigned int))dlsym(driver, "cuInit");
    CUresult (*retain)(CUcontext *, CUdevice) = (CUresult(*)(CUcontext *, CUdevice))dlsym(driver, "cuDevicePrimaryCtxRetain");
    CUresult (*set)(CUcontext) = (CUresult(*)(CUcontext))dlsym(driver, "cuCtxSetCurrent");
    CUresult (*take)(CUdeviceptr *, size_t) = (CUresult(*)(CUdeviceptr *, size_t))dlsym(driver, "cuMemAlloc_v2");
    /* A child that starts CUDA before its parent does, many times over, as test runners and servers do. */
    for (int i = 0; i < 50; i++) {
        if (fork() == 0)
            _exit(init(0));
        int status = 1;
        wait(&status);
        if (status != 0)
            return 3;
    }
    CUcontext context;
    CUdeviceptr address;
    if (init(0) != 0 || retain(&context, 0) != 0 || set(context) != 0 || take(&address, 1 << 21) != 0)
        return 4;
    for (int i = 0; i < 1000; i++) {
        if (fork() == 0) {
            usleep(100); /* a child that does not touch CUDA leaves the parent's account alone */
            _exit(0);
        }
        wait(NULL);
    }
    int faults = 0;
    for (int i = 1; i < 65; i++) {
        sigaction(i, NULL, &after);
        faults += after.sa_handler != before[i].sa_handler;
    }
    const mode_t mask = umask(0);
    printf("{\"signals_changed\": %d, \"umask\": %d, \"descriptors\": %d}\n", faults, (int)mask, descriptors() - open_before);
    return 0;
}
