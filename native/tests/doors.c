/* What prim/door.h says: a thread that does not come back from in there, or is called again there by a handler, keeps nobody waiting. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "prim/door.h"

static hami_door door;
static sigjmp_buf out;
static int inside, rounds; /* not atomic: TSan is to see who comes in unasked */

static void jump(int number)
{
    (void)number;
    siglongjmp(out, 1);
}

static void again(int number)
{
    (void)number;
    CHECK(!hami_door_enter(&door));
}

static void leave_the_thread(int number)
{
    (void)number;
    pthread_exit(NULL);
}

static void *go_in(void *handler)
{
    CHECK(hami_door_enter(&door));
    CHECK(inside++ == 0);
    if (handler != NULL)
        raise(SIGUSR1);
    CHECK(--inside == 0);
    rounds++;
    hami_door_leave(&door);
    return NULL;
}

static void *often(void *unused)
{
    for (int i = 0; i < 2000; i++)
        go_in(NULL);
    return unused;
}

static void another_goes_in(void)
{
    pthread_t thread;
    int state;
    inside = 0;
    CHECK(pthread_create(&thread, NULL, go_in, NULL) == 0 && pthread_join(thread, NULL) == 0);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    CHECK(state == PTHREAD_CANCEL_ENABLE);
}

int main(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, often, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(rounds == 4 * 2000);

    signal(SIGUSR1, again);
    go_in(&door);
    another_goes_in();

    signal(SIGUSR1, jump);
    if (sigsetjmp(out, 1) == 0)
        go_in(&door);
    inside = 0;
    go_in(NULL);
    another_goes_in();

    signal(SIGUSR1, leave_the_thread);
    CHECK(pthread_create(&threads[0], NULL, go_in, &door) == 0 && pthread_join(threads[0], NULL) == 0);
    another_goes_in();
    printf("nobody waits\n");
    return 0;
}
