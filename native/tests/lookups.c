/*
 * Asks for every name of a list in every way a program can, and checks that each way gives what the table says.
 *
 *   lookups NAMES VERSION...   NAMES: lines `name class`; class neutral must give the driver's own entry point, every other the
 *                              hook; VERSION: versions to ask cuGetProcAddress with
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hami/cuda_abi.h"
#include "intercept/elf.h"

extern void *from_library(const char *name); /* libnextlookup.so: RTLD_NEXT and RTLD_DEFAULT asked there */
extern void *default_from_library(const char *name);

static int failures, checks, looked_up;

static void expect(const char *way, const char *name, const void *got, const void *want)
{
    checks++;
    if (got != want && failures++ < 40)
        printf("%s of %s: %p, not %p\n", way, name, got, want);
}

/* ---- by version and flags: exactly the binary interface that the driver chose ---- */

enum { NAMES = 2048 };

typedef CUresult (*ask_fn)(const char *, void **, int, cuuint64_t, int *);
typedef CUresult (*ask_v1_fn)(const char *, void **, int, cuuint64_t);

static struct {
    char name[128];
    bool neutral;
} classes[NAMES];
static int class_count;
static ask_fn ask, ask_ptsz, ask_driver; /* the last: the driver's own, past the library */
static ask_v1_fn ask_v1;

static void read_classes(FILE *list)
{
    char kind[32];
    while (class_count < NAMES && fscanf(list, "%127s %31s", classes[class_count].name, kind) == 2)
        classes[class_count++].neutral = strcmp(kind, "neutral") == 0;
    rewind(list);
}

static void ask_for(void *cuda)
{
    const void *addresses[] = {dlsym(cuda, "cuGetProcAddress_v2"), dlsym(cuda, "cuGetProcAddress_v2_ptsz"),
                               hami_elf_find("libcuda.so", "cuGetProcAddress_v2"), dlsym(cuda, "cuGetProcAddress")};
    memcpy(&ask, &addresses[0], sizeof ask);
    memcpy(&ask_ptsz, &addresses[1], sizeof ask_ptsz);
    memcpy(&ask_driver, &addresses[2], sizeof ask_driver);
    memcpy(&ask_v1, &addresses[3], sizeof ask_v1);
}

/* What the table says a program gets where the driver gives `real`; NULL: the driver's export is not in the table. */
static const void *wanted(const void *real)
{
    Dl_info info;
    if (dladdr(real, &info) == 0 || info.dli_sname == NULL || info.dli_saddr != real)
        return NULL;
    for (int i = 0; i < class_count; i++) {
        if (strcmp(classes[i].name, info.dli_sname) == 0)
            return classes[i].neutral ? real : hami_elf_find("libvgpu.so", info.dli_sname);
    }
    return NULL;
}

static void by_version(const char *name, int version, cuuint64_t flags)
{
    static const char *const ways[] = {"cuGetProcAddress_v2", "cuGetProcAddress_v2_ptsz", "cuGetProcAddress"};
    void *real = NULL, *got[3] = {NULL};
    int real_status = 7, status[3] = {7, 7, 7};
    const CUresult result = ask_driver(name, &real, version, flags, &real_status);
    const CUresult results[3] = {ask(name, &got[0], version, flags, &status[0]), ask_ptsz(name, &got[1], version, flags, &status[1]),
                                 ask_v1(name, &got[2], version, flags)};
    status[2] = real_status; /* it tells none */
    for (int way = 0; way < 3; way++) {
        if ((results[way] != result || status[way] != real_status) && failures++ < 40)
            printf("%s of %s at %d: %d and %d, not %d and %d\n", ways[way], name, version, results[way], status[way], result,
                   real_status);
        expect(ways[way], name, got[way], real == NULL ? NULL : wanted(real));
    }
}

int main(int count, char **words)
{
    char name[128], kind[32];
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW), *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_DEEPBIND);
    FILE *list = count > 1 ? fopen(words[1], "re") : NULL;
    if (list == NULL || cuda == NULL || nvml == NULL)
        return 2;
    ask_for(cuda);
    read_classes(list);
    while (fscanf(list, "%127s %31s", name, kind) == 2) {
        const bool is_cuda = strncmp(name, "cu", 2) == 0, neutral = strcmp(kind, "neutral") == 0;
        void *handle = is_cuda ? cuda : nvml;
        const void *own = hami_elf_find(is_cuda ? "libcuda.so" : "libnvidia-ml.so", name);
        const void *hook = hami_elf_find("libvgpu.so", name);
        if (own == NULL)
            continue; /* this driver has no such name */
        looked_up++;
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
    rewind(list);
    while (fscanf(list, "%127s %31s", name, kind) == 2) {
        for (int word = 2; strncmp(name, "cu", 2) == 0 && word < count; word++) {
            for (cuuint64_t flags = 0; flags <= 2; flags++)
                by_version(name, atoi(words[word]), flags);
        }
    }
    if (dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW) != NULL && failures++ >= 0)
        printf("dlmopen gave a driver of its own\n");
    if (dlsym(RTLD_DEFAULT, "curl_easy_init") != NULL || dlsym(cuda, "cuNoSuchThing") != NULL || dlerror() == NULL)
        failures++;
    expect("a name of nobody's", "malloc", dlsym(RTLD_DEFAULT, "malloc"), dlsym(RTLD_DEFAULT, "malloc"));
    fclose(list);
    printf("%d names, %d checks, %d failures\n", looked_up, checks, failures);
    return failures != 0;
}
