/*
 * See elf.h.
 *
 * Nothing here is called by its name: a sanitizer asks for dlsym before its own strcmp and dl_iterate_phdr work, and those are what we would get.
 */
#define _GNU_SOURCE
#include "intercept/elf.h"

#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint32_t *gnu_hash;
    const uint32_t *sysv_hash;
    const ElfW(Half) * versions;
} tables;

bool hami_elf_same(const char *one, const char *other)
{
    while (*one != '\0' && *one == *other)
        one++, other++;
    return *one == *other;
}

static bool begins(const char *text, const char *prefix)
{
    while (*prefix != '\0' && *text == *prefix)
        text++, prefix++;
    return *prefix == '\0';
}

static const char *file_name(const char *path)
{
    const char *name = path;
    for (; *path != '\0'; path++)
        name = *path == '/' ? path + 1 : name;
    return name;
}

/* glibc relocates these pointers in place on our architectures; the vDSO's are left as offsets. */
static const void *pointer(ElfW(Addr) base, ElfW(Addr) value)
{
    return (const void *)(value < base ? value + base : value);
}

/* Of an object loaded at `base`, from its dynamic section. */
static bool read_tables(ElfW(Addr) base, const ElfW(Dyn) * entry, tables *out)
{
    *out = (tables){0};
    for (; entry != NULL && entry->d_tag != DT_NULL; entry++) {
        switch (entry->d_tag) {
        case DT_SYMTAB: out->symbols = pointer(base, entry->d_un.d_ptr); break;
        case DT_STRTAB: out->strings = pointer(base, entry->d_un.d_ptr); break;
        case DT_GNU_HASH: out->gnu_hash = pointer(base, entry->d_un.d_ptr); break;
        case DT_HASH: out->sysv_hash = pointer(base, entry->d_un.d_ptr); break;
        case DT_VERSYM: out->versions = pointer(base, entry->d_un.d_ptr); break;
        default: break;
        }
    }
    return out->symbols != NULL && out->strings != NULL && (out->gnu_hash != NULL || out->sysv_hash != NULL);
}

static bool defines(const tables *t, uint32_t index, const char *name)
{
    const ElfW(Sym) *symbol = &t->symbols[index];
    /* Bit 15 of a version: hidden, an old version kept for old programs. */
    const bool old = t->versions != NULL && (t->versions[index] & 0x8000) != 0;
    return symbol->st_shndx != SHN_UNDEF && symbol->st_value != 0 && !old && hami_elf_same(t->strings + symbol->st_name, name);
}

static uint32_t find_gnu(const tables *t, const char *name)
{
    uint32_t hash = 5381;
    for (const unsigned char *at = (const unsigned char *)name; *at != '\0'; at++)
        hash = hash * 33 + *at;
    const uint32_t buckets = t->gnu_hash[0], first = t->gnu_hash[1], bloom = t->gnu_hash[2];
    const uint32_t *bucket = t->gnu_hash + 4 + bloom * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
    const uint32_t *chain = bucket + buckets;
    uint32_t index = buckets == 0 ? 0 : bucket[hash % buckets];
    if (index < first)
        return 0;
    for (;; index++) {
        const uint32_t there = chain[index - first];
        if ((there | 1) == (hash | 1) && defines(t, index, name))
            return index;
        if (there & 1)
            return 0;
    }
}

static uint32_t find_sysv(const tables *t, const char *name)
{
    uint32_t hash = 0;
    for (const unsigned char *at = (const unsigned char *)name; *at != '\0'; at++) {
        hash = (hash << 4) + *at;
        hash = (hash ^ (hash & 0xf0000000u) >> 24) & 0x0fffffffu;
    }
    const uint32_t buckets = t->sysv_hash[0];
    const uint32_t *bucket = t->sysv_hash + 2, *chain = bucket + buckets;
    uint32_t index = buckets == 0 ? 0 : bucket[hash % buckets];
    while (index != 0 && !defines(t, index, name))
        index = chain[index];
    return index;
}

/* Empty where it does not say. */
static const char *soname_of(ElfW(Addr) base, const ElfW(Dyn) * dynamic)
{
    tables t;
    if (!read_tables(base, dynamic, &t))
        return "";
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_SONAME)
            return t.strings + dynamic->d_un.d_val;
    }
    return "";
}

static void *lookup_in(ElfW(Addr) base, const ElfW(Dyn) * dynamic, const char *name)
{
    tables t;
    if (!read_tables(base, dynamic, &t))
        return NULL;
    const uint32_t index = t.gnu_hash != NULL ? find_gnu(&t, name) : find_sysv(&t, name);
    return index == 0 ? NULL : (void *)(base + t.symbols[index].st_value);
}

static const ElfW(Dyn) * dynamic_of(const struct dl_phdr_info *object)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        if (object->dlpi_phdr[i].p_type == PT_DYNAMIC)
            return (const void *)(object->dlpi_addr + object->dlpi_phdr[i].p_vaddr);
    }
    return NULL;
}

static void *lookup(const struct dl_phdr_info *object, const char *name)
{
    return lookup_in(object->dlpi_addr, dynamic_of(object), name);
}

void *hami_elf_first(const char *prefix, const char *name)
{
    void *found = NULL;
    for (const struct link_map *object = _r_debug.r_map; object != NULL && found == NULL; object = object->l_next) {
        if (object->l_name != NULL && begins(file_name(object->l_name), prefix))
            found = lookup_in(object->l_addr, object->l_ld, name);
    }
    return found;
}

/* The C library's own, whoever stands before it. */
static int each_object(int (*step)(struct dl_phdr_info *, size_t, void *), void *argument)
{
    static _Atomic(void *) found;
    int (*iterate)(int (*)(struct dl_phdr_info *, size_t, void *), void *);
    void *real = atomic_load_explicit(&found, memory_order_relaxed);
    if (real == NULL) {
        real = hami_elf_first("libc.so.6", "dl_iterate_phdr");
        real = real != NULL ? real : hami_elf_first("libc-", "dl_iterate_phdr"); /* libc-2.31.so */
        real = real != NULL ? real : (void *)dl_iterate_phdr;
        atomic_store_explicit(&found, real, memory_order_relaxed);
    }
    __builtin_memcpy(&iterate, &real, sizeof iterate);
    return iterate(step, argument);
}

static bool holds(const struct dl_phdr_info *object, const void *address, const char **low, const char **high)
{
    const ElfW(Addr) at = (ElfW(Addr))address;
    ElfW(Addr) from = (ElfW(Addr))-1, to = 0;
    bool inside = false;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type != PT_LOAD)
            continue;
        const ElfW(Addr) start = object->dlpi_addr + part->p_vaddr, end = start + part->p_memsz;
        inside |= at >= start && at < end;
        from = start < from ? start : from;
        to = end > to ? end : to;
    }
    *low = (const char *)from;
    *high = (const char *)to;
    return inside;
}

typedef struct {
    const char *prefix;
    const char *name;
    const void *address;
    const char *low, *high;
    hami_elf_object owner;
    void *found;
    bool passed; /* the caller's object has been met */
} search;

static int find_step(struct dl_phdr_info *object, size_t size, void *argument)
{
    (void)size;
    search *s = argument;
    if (begins(file_name(object->dlpi_name), s->prefix))
        s->found = lookup(object, s->name);
    return s->found != NULL;
}

void *hami_elf_find(const char *prefix, const char *name)
{
    search s = {.prefix = prefix, .name = name};
    each_object(find_step, &s);
    return s.found;
}

static int next_step(struct dl_phdr_info *object, size_t size, void *argument)
{
    (void)size;
    search *s = argument;
    if (s->passed)
        s->found = lookup(object, s->name);
    else
        s->passed = holds(object, s->address, &s->low, &s->high);
    return s->found != NULL;
}

void *hami_elf_next(const void *caller, const char *name)
{
    search s = {.address = caller, .name = name};
    each_object(next_step, &s);
    return s.found;
}

static int owner_step(struct dl_phdr_info *object, size_t size, void *argument)
{
    (void)size;
    search *s = argument;
    if (!holds(object, s->address, &s->owner.low, &s->owner.high))
        return 0;
    s->owner.file = file_name(object->dlpi_name);
    s->owner.soname = soname_of(object->dlpi_addr, dynamic_of(object));
    return 1;
}

bool hami_elf_owner(const void *address, hami_elf_object *out)
{
    search s = {.address = address};
    const bool found = each_object(owner_step, &s) != 0;
    if (found)
        *out = s.owner;
    return found;
}
