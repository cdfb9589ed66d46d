/* See log.h. */
#include "process/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "prim/prim.h"

_Atomic int hami_log_level = 0;

void hami_say(int level, const char *format, ...)
{
    static const char *const names[] = {"note", "error", "warning", "decision", "trace"};
    char line[512];
    int length = snprintf(line, sizeof line, "hami-vgpu[%d] %s: ", (int)getpid(), names[level < 0 || level > 4 ? 0 : level]);
    va_list values;
    va_start(values, format);
    const int more = vsnprintf(line + length, sizeof line - (size_t)length - 1, format, values);
    va_end(values);
    length += more < 0 ? 0 : more;
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length] = '\n';
    hami_write_stderr(line, (size_t)length + 1);
}
