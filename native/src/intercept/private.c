/*
 * Private tables of the driver, found by UUID: the CUDA runtime, its libraries and profilers ask for them.
 *
 * What is behind an entry of such a table nobody sees; which tables may be given is private.txt's to say.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "process/driver.h"
#include "intercept/elf.h"
#include "intercept/intercept.h"
#include "process/log.h"

static _Atomic unsigned long unknown_count;

static const hami_private *private_find(const CUuuid *id)
{
    for (unsigned int i = 0; i < hami_private_count; i++) {
        if (memcmp(&hami_privates[i].id, id, sizeof *id) == 0)
            return &hami_privates[i];
    }
    return NULL;
}

static void say(const hami_private *table, const CUuuid *id, const void *caller, bool denied)
{
    char text[37];
    hami_elf_object who = {.file = "an unknown caller"};
    const bool usual = table != NULL && table->kind == HAMI_NEUTRAL;
    const unsigned long unknown = table != NULL ? 0 : atomic_fetch_add(&unknown_count, 1) + 1;
    int length = 0;
    if (hami_log_level < (usual ? HAMI_LOG_ALL : HAMI_LOG_WARN))
        return;
    for (int i = 0; i < 16; i++)
        length += snprintf(text + length, sizeof text - (size_t)length, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                           id->bytes[i]);
    hami_elf_owner(caller, &who);
    if (table == NULL)
        hami_say(HAMI_LOG_WARN, "private table %s, asked for by %s, is unknown to this library%s (number %lu)", text, who.file,
                 denied ? " and denied" : "", unknown);
    else
        hami_say(usual ? HAMI_LOG_ALL : HAMI_LOG_WARN, "private table %s, asked for by %s, is %s", text, who.file,
                 denied ? "denied" : usual ? "given" : "given, and takes what the limits see only afterwards");
}

/* What is denied gets the answer that this driver has for a table it has not: programs are used to older drivers. */
CUresult cuGetExportTable(const void **out, const CUuuid *id)
{
    static const CUuuid nobody = {{'n', 'o', ' ', 't', 'a', 'b', 'l', 'e', ' ', 'h', 'a', 's', ' ', 't', 'h', 'i'}};
    hami_driver_load();
    if (id == NULL)
        return BEHIND(cuGetExportTable, out, id);
    const hami_private *table = private_find(id);
    const bool denied = hami_strict() && (table == NULL || table->kind == HAMI_DENY);
    say(table, id, __builtin_return_address(0), denied);
    return BEHIND(cuGetExportTable, out, denied ? &nobody : id);
}
