/* Symbols of one loaded object, read from its own tables: what dlsym cannot be asked without being asked of us. */
#ifndef HAMI_INTERCEPT_ELF_H
#define HAMI_INTERCEPT_ELF_H

#include <link.h>
#include <stdbool.h>

/* As strcmp is 0. */
bool hami_elf_same(const char *one, const char *other);

/* First object whose file name starts with `prefix` that defines `name` (default version). NULL: none. */
void *hami_elf_find(const char *prefix, const char *name);

/* The same from the loader's own list and without a call, for the very first lookups of a process: of what is never unloaded. */
void *hami_elf_first(const char *prefix, const char *name);

/* What RTLD_NEXT means for code at `caller`: the first object after the caller's, in load order, that defines `name`. */
void *hami_elf_next(const void *caller, const char *name);

typedef struct {
    const char *file;       /* name without its folder */
    const char *soname;     /* what it calls itself, whatever its file is called; empty where it does not say */
    const char *low, *high; /* its bounds */
} hami_elf_object;

/* The object that holds `address`. False: none of this name space does. */
bool hami_elf_owner(const void *address, hami_elf_object *out);

#endif
