/* Every name of a list by dlsym and by cuGetProcAddress. See probe.h. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "probe.h"

void symbols(const char *path)
{
    static void *exported[4096];
    char name[128];
    int names = 0, there = 0, asked = 0, answered = 0, hidden = 0, shown = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        fail(path, 0);
    while (fscanf(file, "%127s", name) == 1 && names < 4096) {
        exported[names] = dlsym(driver, name);
        there += exported[names] != NULL;
        names++;
    }
    rewind(file);
    static const int versions[] = {2000, 3020, 4000, 7000, 10000, 11000, 11030, 12000, 12040, 12080, 13000};
    while (fscanf(file, "%127s", name) == 1) {
        char *suffix = strstr(name, "_v");
        if (suffix != NULL || strstr(name, "_pt") != NULL || strncmp(name, "cu", 2) != 0)
            continue;
        for (size_t v = 0; v < sizeof versions / sizeof versions[0]; v++) {
            for (cuuint64_t flags = 0; flags <= 2; flags++) {
                void *address = NULL;
                int status = 0;
                asked++;
                if (get_proc_address(name, &address, versions[v], flags, &status) != CUDA_SUCCESS || address == NULL)
                    continue;
                answered++;
                bool known = false;
                for (int i = 0; i < names && !known; i++)
                    known = exported[i] == address;
                hidden += !known;
                if (!known && shown++ < 40)
                    fprintf(stderr, "not exported: %s version %d flags %d\n", name, versions[v], (int)flags);
            }
        }
    }
    fclose(file);
    printf("{\"names\": %d, \"exported\": %d, \"lookups\": %d, \"answered\": %d, \"not_exported_addresses\": %d}\n", names, there,
           asked, answered, hidden);
}
