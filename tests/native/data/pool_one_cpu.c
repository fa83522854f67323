/* pool.c - a caller and its helper on a single CPU, as where the system keeps both on one: the helper, which
 * the caller leaves little to do, gives way instead of spinning. Prints what each used, and returns 1 where the
 * helper used more than a quarter of the caller's time. Built by test_threads.py. */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 40000, STEPS = 500 };
extern int (*__TVMBackendParallelLaunch)(ep_task *, void *, int);

/* About a microsecond. */
static int work(int task_id, struct ep_group *group, void *closure) {
    volatile float *sums = closure;
    (void)group;
    for (int i = 0; i < STEPS; i++) sums[16 * task_id] += 1;
    return 0;
}

static double seconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(void) {
    static ep_pool pool;
    static float sums[32];
    clockid_t clock;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) || ep_pool_start(&pool, 2)) return 2;
    if (pthread_getcpuclockid(pool.helpers[0].thread, &clock)) return 2;
    ep_pool_enter(&pool);
    for (int i = 0; i < ROUNDS; i++) __TVMBackendParallelLaunch(work, sums, 0);
    const double caller = seconds(CLOCK_THREAD_CPUTIME_ID), helper = seconds(clock);
    ep_pool_stop(&pool);
    printf("caller %.3f s, helper %.3f s\n", caller, helper);
    return helper > caller / 4;
}
