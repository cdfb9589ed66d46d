/* See image.h. A cubin is an ELF file for the machine "CUDA"; like the driver, this trusts its headers. */
#include "memory/image.h"

#include <elf.h>
#include <stddef.h>
#include <string.h>

enum { MACHINE_CUDA = 190 };

/* Shared and local memory are laid out in sections too, and are none of the module's. */
static int on_card(const char *name)
{
    return strncmp(name, ".text", 5) == 0 || strncmp(name, ".nv.global", 10) == 0 || strncmp(name, ".nv.constant", 12) == 0;
}

int64_t hami_image_bytes(const void *image)
{
    const char *base = image;
    Elf64_Ehdr head;
    int64_t sum = 0;
    if (image == NULL || memcmp(image, ELFMAG, SELFMAG) != 0)
        return 0;
    memcpy(&head, image, sizeof head);
    if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != MACHINE_CUDA || head.e_shentsize != sizeof(Elf64_Shdr) ||
        head.e_shstrndx >= head.e_shnum)
        return 0;
    const char *sections = base + head.e_shoff;
    Elf64_Shdr names, section;
    memcpy(&names, sections + (size_t)head.e_shstrndx * sizeof names, sizeof names);
    for (size_t i = 0; i < head.e_shnum; i++) {
        memcpy(&section, sections + i * sizeof section, sizeof section);
        if ((section.sh_flags & SHF_ALLOC) == 0 || section.sh_name >= names.sh_size || !on_card(base + names.sh_offset + section.sh_name))
            continue;
        if (__builtin_add_overflow(sum, (int64_t)section.sh_size, &sum) || section.sh_size > INT64_MAX)
            return INT64_MAX;
    }
    return sum;
}
