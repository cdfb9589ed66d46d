/* What every program of these tests ends by when something is not so. */
#ifndef HAMI_CHECK_H
#define HAMI_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                   \
    do {                                                              \
        if (!(what)) {                                                \
            printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                  \
        }                                                             \
    } while (0)

#endif
