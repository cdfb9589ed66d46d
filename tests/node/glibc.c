/* What the simulated driver takes of glibc that musl has not: a compatibility layer, under the name of glibc's loader. */
#include <stdarg.h>
#include <stdio.h>

int __isoc99_sscanf(const char *text, const char *form, ...)
{
    va_list words;
    va_start(words, form);
    const int count = vsscanf(text, form, words);
    va_end(words);
    return count;
}
