/*
 * Asks for every name of a list in every way a program can, and checks that each way gives what the table says.
 *
 *   lookups NAMES       NAMES: lines `name class`; class neutral must give the driver's own entry point, every other the hook
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hami/cuda_abi.h"
#include "intercept/elf.h"

extern void *from_library(const char *name); /* libnextlookup.so: RTLD_NEXT and RTLD_DEFAULT asked there */
extern void *default_from_library(const char *name);

static int failures, checks;

static void expect(const char *way, const char *name, const void *got, const void *want)
{
    checks++;
    if (got != want && failures++ < 40)
        printf("%s of %s: %p, not %p\n", way, name, got, want);
}

int main(int count, char **words)
{
    char name[128], kind[32];
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_DEEPBIND);
    FILE *list = count > 1 ? fopen(words[1], "re") : NULL;
    if (list == NULL || cuda == NULL || nvml == NULL)
        return 2;
    void *address = dlsym(cuda, "cuGetProcAddress_v2");
    CUresult (*ask)(const char *, void **, int, cuuint64_t, int *);
    memcpy(&ask, &address, sizeof ask);
    while (fscanf(list, "%127s %31s", name, kind) == 2) {
        const bool is_cuda = strncmp(name, "cu", 2) == 0, neutral = strcmp(kind, "neutral") == 0;
        void *handle = is_cuda ? cuda : nvml;
        const void *own = hami_elf_find(is_cuda ? "libcuda.so" : "libnvidia-ml.so", name);
        const void *hook = hami_elf_find("libvgpu.so", name);
        if (own == NULL)
            continue; /* this driver has no such name */
        const void *want = neutral ? own : hook;
        if (!neutral && hook == NULL) {
            failures++;
            printf("%s is %s and has no hook\n", name, kind);
            continue;
        }
        expect("dlsym", name, dlsym(handle, name), want);
        expect("dlsym again", name, dlsym(handle, name), want);
        if (is_cuda) /* the simulated driver is linked with a version for all, so that this can be asked */
            expect("dlvsym", name, dlvsym(handle, name, "libcuda.so.1"), want);
        expect("RTLD_NEXT", name, dlsym(RTLD_NEXT, name), neutral ? NULL : hook);
        expect("RTLD_NEXT in a library", name, from_library(name), neutral ? NULL : hook);
        if (!neutral) {
            expect("RTLD_DEFAULT", name, dlsym(RTLD_DEFAULT, name), hook);
            expect("RTLD_DEFAULT in a library", name, default_from_library(name), hook);
        }
    }
    /* By version and flags: exactly the ABI that the driver chose. The driver's own answer comes from its own table. */
    address = (void *)hami_elf_find("libcuda.so", "cuGetProcAddress_v2");
    CUresult (*ask_driver)(const char *, void **, int, cuuint64_t, int *);
    memcpy(&ask_driver, &address, sizeof ask_driver);
    static const int versions[] = {2000, 3020, 4000, 7000, 10000, 11010, 11030, 11040, 12000, 12040, 12080, 13000};
    rewind(list);
    while (fscanf(list, "%127s %31s", name, kind) == 2) {
        for (size_t v = 0; strncmp(name, "cu", 2) == 0 && v < sizeof versions / sizeof versions[0]; v++) {
            for (cuuint64_t flags = 0; flags <= 2; flags++) {
                void *real = NULL, *got = NULL;
                int real_status = 7, status = 7;
                const CUresult want = ask_driver(name, &real, versions[v], flags, &real_status);
                const CUresult result = ask(name, &got, versions[v], flags, &status);
                checks++;
                if (want != result || real_status != status || (real == NULL) != (got == NULL)) {
                    failures++;
                    printf("cuGetProcAddress of %s at %d: %d, not %d\n", name, versions[v], result, want);
                }
                if (real == NULL || got == NULL || real == got)
                    continue; /* that neutral ones are the same is checked by what dlsym gave */
                /* The hook it gave must be the hook of the export that the driver gave. */
                Dl_info hook_info, real_info;
                if (dladdr(got, &hook_info) == 0 || dladdr(real, &real_info) == 0 || hook_info.dli_sname == NULL ||
                    real_info.dli_sname == NULL || strcmp(hook_info.dli_sname, real_info.dli_sname) != 0) {
                    failures++;
                    printf("cuGetProcAddress of %s at %d flags %d: another ABI\n", name, versions[v], (int)flags);
                }
            }
        }
    }
    if (dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW) != NULL && failures++ >= 0)
        printf("dlmopen gave a driver of its own\n");
    if (dlsym(RTLD_DEFAULT, "curl_easy_init") != NULL || dlsym(cuda, "cuNoSuchThing") != NULL || dlerror() == NULL)
        failures++;
    expect("a name of nobody's", "malloc", dlsym(RTLD_DEFAULT, "malloc"), dlsym(RTLD_DEFAULT, "malloc"));
    fclose(list);
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
