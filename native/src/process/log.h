/* Messages on stderr, silent unless asked for by LIBCUDA_LOG_LEVEL (0 nothing, 1 errors ... 4 everything). */
#ifndef HAMI_LOG_H
#define HAMI_LOG_H

enum { HAMI_LOG_ERROR = 1, HAMI_LOG_WARN = 2, HAMI_LOG_DECISION = 3, HAMI_LOG_ALL = 4 };

extern _Atomic int hami_log_level; /* as the policy says, from its first reading on */

#define hami_log(level, ...)                  \
    do {                                      \
        if (hami_log_level >= (level))        \
            hami_say((level), __VA_ARGS__);   \
    } while (0)

/* Formats into a bounded buffer and writes it with one system call; errno is kept. */
__attribute__((format(printf, 2, 3))) void hami_say(int level, const char *format, ...);

#endif
