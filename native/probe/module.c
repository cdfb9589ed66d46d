/* A module that holds much, as text that is compiled or as a cubin that is ready (this for the simulated driver alone). See probe.h. */
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

/* Sections: none, global data, shared memory that is nobody's before a launch, names. */
static const void *cubin(size_t bytes)
{
    static const char names[] = "\0.nv.global\0.nv.shared.k\0.shstrtab";
    static struct {
        Elf64_Ehdr head;
        Elf64_Shdr sections[4];
        char names[sizeof names];
    } image;
    const size_t at = (size_t)((char *)image.names - (char *)&image), table = (size_t)((char *)image.sections - (char *)&image);
    image.head = (Elf64_Ehdr){.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                              .e_machine = 190,
                              .e_shoff = table,
                              .e_shentsize = sizeof(Elf64_Shdr),
                              .e_shnum = 4,
                              .e_shstrndx = 3};
    image.sections[1] = (Elf64_Shdr){.sh_name = 1, .sh_type = SHT_NOBITS, .sh_flags = SHF_ALLOC | SHF_WRITE, .sh_size = bytes};
    image.sections[2] = (Elf64_Shdr){.sh_name = 12, .sh_type = SHT_NOBITS, .sh_flags = SHF_ALLOC | SHF_WRITE, .sh_size = 64 * 1024 * MIB};
    image.sections[3] = (Elf64_Shdr){.sh_name = 25, .sh_type = SHT_STRTAB, .sh_offset = at, .sh_size = sizeof names};
    memcpy(image.names, names, sizeof names);
    return &image;
}

void module(const char *kind, size_t mib, double seconds)
{
    CUmodule loaded = NULL;
    start(false);
    const void *image = strcmp(kind, "cubin") == 0 ? cubin(mib * MIB) : data_image(mib * MIB);
    begin_together();
    const int result = cu.cuModuleLoadData(&loaded, image);
    printf("{\"loaded\": %d}\n", result);
    fflush(stdout);
    usleep((useconds_t)(seconds * 1e6));
    if (result == CUDA_SUCCESS)
        MUST(cuModuleUnload, loaded);
    size_t left, total;
    MUST(cuMemGetInfo, &left, &total);
    printf("{\"loaded\": %d, \"left_mib\": %zu}\n", result, left / MIB);
}
