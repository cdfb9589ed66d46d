/* Two faults that a sanitized library must not live through: the control of tests/native/test_whole.py. */
#include <pthread.h>
#include <stdlib.h>

static int shared;

static void *race(void *unused)
{
    for (int i = 0; i < 1000; i++)
        shared++;
    return unused;
}

__attribute__((noinline)) static void put(volatile char *at)
{
    *at = 1;
}

__attribute__((constructor)) static void fault(void)
{
    pthread_t one, two;
    if (pthread_create(&one, NULL, race, NULL) == 0 && pthread_create(&two, NULL, race, NULL) == 0) {
        pthread_join(one, NULL);
        pthread_join(two, NULL);
    }
    char *block = malloc(16);
    if (block != NULL)
        put(block + 15 + (shared > 0)); /* one too many */
    free(block);
}
