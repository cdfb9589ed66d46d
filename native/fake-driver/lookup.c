/* Lookups by name, version and flags: versions.txt has who stands behind which; and private tables. See fake.h. */
#include <stdio.h>
#include <string.h>

#include "fake.h"

static void *find_export(const char *name)
{
    for (unsigned int i = 0; i < fake_export_count; i++) {
        if (strcmp(fake_exports[i].name, name) == 0)
            return fake_exports[i].address;
    }
    return NULL;
}

API CUresult cuGetProcAddress_v2(const char *symbol, void **out, int version, cuuint64_t flags, int *status)
{
    const char *name = NULL;
    int oldest = 0;
    for (const fake_version *v = fake_versions; v->version != 0; v++) {
        if (strcmp(v->base, symbol) != 0)
            continue;
        oldest = oldest == 0 || v->version < oldest ? v->version : oldest;
        if (v->version <= version)
            name = v->name;
    }
    *out = NULL;
    if (status != NULL)
        *status = oldest == 0 ? 1 : name == NULL ? 2 : 0;
    if (name == NULL)
        return CUDA_ERROR_NOT_FOUND;
    char variant[128];
    static const char *const modes[] = {"_ptsz", "_ptds"};
    for (int i = 0; i < 2 && (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) && *out == NULL; i++) {
        snprintf(variant, sizeof variant, "%s%s", name, modes[i]);
        *out = find_export(variant);
    }
    if (*out == NULL)
        *out = find_export(name);
    return *out == NULL ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}

API CUresult cuGetProcAddress(const char *symbol, void **out, int version, cuuint64_t flags)
{
    return cuGetProcAddress_v2(symbol, out, version, flags, NULL);
}

API CUresult cuGetProcAddress_v2_ptsz(const char *symbol, void **out, int version, cuuint64_t flags, int *status)
{
    return cuGetProcAddress_v2(symbol, out, version, flags, status);
}

/* A driver's private tables: one that the runtime needs, one that makes contexts, and one that nobody has heard of. */
API CUresult cuGetExportTable(const void **out, const CUuuid *id)
{
    static const unsigned char ids[][16] = {
        {0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9},
        {0x0c, 0xa5, 0x0b, 0x8c, 0x10, 0x04, 0x92, 0x9a, 0x89, 0xa7, 0xd0, 0xdf, 0x10, 0xe7, 0x72, 0x86},
        {'n', 'o', 'b', 'o', 'd', 'y', ' ', 'k', 'n', 'o', 'w', 's', ' ', 'm', 'e', '!'},
    };
    static const size_t table[1] = {sizeof table};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        if (memcmp(ids[i], id->bytes, sizeof ids[i]) == 0) {
            *out = table;
            return CUDA_SUCCESS;
        }
    }
    *out = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}
