/* pool.c - runs the parallel loops of kernels. See pool.h for the split.
 *
 * A round: the caller publishes the task and bumps `round`; every helper takes its share, does it and
 * says so; the caller does share 0, takes the shares that nobody has begun, and waits for the others.
 * Whoever waits spins for some tens of microseconds, which is longer than the serial kernel between two
 * parallel ones, and then sleeps, so that an idle session costs nothing. A helper that spins gives way to
 * whoever else could run on its core, now and then: it is the caller itself where the system woke the helper
 * on the caller's core, and kept both there.
 *
 * A share is taken by moving `taken` from the round before to this one, so one thread gets it. The caller
 * goes on only when every share was taken and is done: a helper that has taken one may read the task, and
 * one that comes late finds its share taken and touches nothing.
 *
 * Nobody is left asleep: a sleeper first counts itself (or sets caller_sleeps) and then looks at the
 * word it waits for; a waker first changes that word and then looks for sleepers. Both in sequentially
 * consistent order, so at least one of the two sees the other. The lock closes the gap between the
 * sleeper's look and its wait.
 */
#define _POSIX_C_SOURCE 200809L /* for signal masks under -std=c99 */
#include "pool.h"

#include <stddef.h>

struct ep_group { void *sync_handle; int32_t num_task; }; /* tvm, TVMParallelGroupEnv */

#ifdef EP_NO_THREADS
typedef int ep_task(int task_id, struct ep_group *group, void *closure);
#endif

static int run_alone(ep_task *task, void *closure) {
    struct ep_group group = {NULL, 1};
    return task(0, &group, closure);
}

#ifdef EP_NO_THREADS

int ep_pool_start(ep_pool *pool, uint32_t threads) {
    pool->threads = 1;
    return threads == 1 ? EP_OK : EP_ERR_THREADS;
}

void ep_pool_stop(ep_pool *pool) { pool->threads = 1; }

ep_pool *ep_pool_enter(ep_pool *pool) {
    (void)pool;
    return NULL;
}

static int launch(ep_task *task, void *closure, int wanted) {
    (void)wanted;
    return run_alone(task, closure);
}

#else

#include <sched.h>
#include <signal.h>
#include <string.h>

/* Kernels keep their buffers in the arena and at most a few kilobytes on the stack. Only pages that
 * are touched count as memory. */
#define STACK_BYTES (128 * 1024)

/* Looks at a word before going to sleep: 40 to 100 microseconds. x86's pause takes 40 to 140 cycles
 * (Intel's optimization manual, section 2.7), ARM's yield one or two. */
#if defined(__x86_64__) || defined(__i386__)
#define SPINS 2000
#else
#define SPINS 20000
#endif
/* Looks between two that a helper gives way after: one or two microseconds. */
#define SPINS_AT_ONCE (SPINS / 40)

static void spin_once(void) {
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause" ::: "memory");
#elif defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)
    __asm__ volatile("yield" ::: "memory");
#elif defined(__riscv)
    __asm__ volatile(".4byte 0x0100000f" ::: "memory"); /* pause (Zihintpause); elsewhere a no-op */
#else
    __asm__ volatile("" ::: "memory");
#endif
}

/* The pool of the session that this thread is running, by which launch() finds it: several sessions
 * may run at once, each on a thread of its own. NULL in helpers and inside a task: what a task
 * launches runs where it is. */
static __thread ep_pool *current;

ep_pool *ep_pool_enter(ep_pool *pool) {
    ep_pool *const before = current;
    current = pool && pool->threads > 1 ? pool : NULL;
    return before;
}

static int share(const ep_pool *pool, uint32_t index) {
    const int32_t tasks = pool->num_tasks;
    int status = 0;
    for (int32_t task = (int32_t)index; task < tasks; task += (int32_t)pool->threads) {
        struct ep_group group = {NULL, tasks};
        status |= pool->task(task, &group, pool->closure);
    }
    return status;
}

/* Waits for another round than `seen`, and returns it. */
static uint32_t await_round(ep_pool *pool, uint32_t seen) {
    uint32_t round = seen;
    for (int i = 0; i < SPINS; i++) {
        round = __atomic_load_n(&pool->round, __ATOMIC_ACQUIRE);
        if (round != seen) return round;
        if (i % SPINS_AT_ONCE == SPINS_AT_ONCE - 1) sched_yield();
        spin_once();
    }
    pthread_mutex_lock(&pool->lock);
    __atomic_add_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    while ((round = __atomic_load_n(&pool->round, __ATOMIC_SEQ_CST)) == seen)
        pthread_cond_wait(&pool->work, &pool->lock);
    __atomic_sub_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->lock);
    return round;
}

static void await_share(ep_pool *pool, const ep_helper *helper, uint32_t round) {
    for (int i = 0; i < SPINS; i++) {
        if (__atomic_load_n(&helper->done, __ATOMIC_ACQUIRE) == round) return;
        spin_once();
    }
    pthread_mutex_lock(&pool->lock);
    __atomic_store_n(&pool->caller_sleeps, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&helper->done, __ATOMIC_SEQ_CST) != round)
        pthread_cond_wait(&pool->done, &pool->lock);
    __atomic_store_n(&pool->caller_sleeps, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->lock);
}

static uint32_t start_round(ep_pool *pool) {
    const uint32_t round = __atomic_add_fetch(&pool->round, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST) != 0) {
        pthread_mutex_lock(&pool->lock); /* not held for the call: those who wake want it */
        pthread_mutex_unlock(&pool->lock);
        pthread_cond_broadcast(&pool->work);
    }
    return round;
}

/* Does the helper's share of this round on the calling thread, unless another has begun it. */
static void do_share(ep_pool *pool, ep_helper *helper, uint32_t round) {
    uint32_t before = round - 1;
    if (!__atomic_compare_exchange_n(&helper->taken, &before, round, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return;
    helper->failed = share(pool, helper->index) != 0;
    __atomic_store_n(&helper->done, round, __ATOMIC_SEQ_CST);
}

static void *help(void *argument) {
    ep_helper *self = argument;
    ep_pool *pool = self->pool;
    for (uint32_t round = 0;;) {
        round = await_round(pool, round);
        if (__atomic_load_n(&pool->leaving, __ATOMIC_ACQUIRE)) return NULL;
        do_share(pool, self, round);
        if (__atomic_load_n(&pool->caller_sleeps, __ATOMIC_SEQ_CST) == 0) continue;
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

static int launch(ep_task *task, void *closure, int wanted) {
    ep_pool *const pool = current;
    if (!pool) return run_alone(task, closure);
    const uint32_t helpers = pool->threads - 1;
    pool->task = task;
    pool->closure = closure;
    pool->num_tasks = wanted > 0 ? wanted : (int32_t)pool->threads;
    const uint32_t round = start_round(pool);
    current = NULL;
    int failed = share(pool, 0) != 0;
    for (uint32_t i = 0; i < helpers; i++) do_share(pool, &pool->helpers[i], round);
    current = pool;
    for (uint32_t i = 0; i < helpers; i++) {
        await_share(pool, &pool->helpers[i], round);
        failed |= pool->helpers[i].failed;
    }
    return failed ? -1 : 0;
}

/* Signals are for the application's own threads. glibc takes an application's thread-local variables out
 * of the stack: where they leave too little of ours, the system's default has room for them. */
static int start_helper(ep_helper *helper) {
    sigset_t all, before;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes)) return -1;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = (pthread_attr_setstacksize(&attributes, STACK_BYTES) ||
                        pthread_create(&helper->thread, &attributes, help, helper)) &&
                       pthread_create(&helper->thread, NULL, help, helper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed ? -1 : 0;
}

int ep_pool_start(ep_pool *pool, uint32_t threads) {
    memset(pool, 0, sizeof *pool);
    pool->threads = 1;
    if (threads == 1) return EP_OK;
    if (pthread_mutex_init(&pool->lock, NULL)) return EP_ERR_THREADS;
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    while (pool->threads < threads) {
        ep_helper *helper = &pool->helpers[pool->threads - 1];
        helper->pool = pool;
        helper->index = pool->threads;
        if (start_helper(helper)) {
            ep_pool_stop(pool);
            return EP_ERR_THREADS;
        }
        pool->threads++;
    }
    return EP_OK;
}

void ep_pool_stop(ep_pool *pool) {
    if (pool->threads == 1 && !pool->helpers[0].pool) return;
    __atomic_store_n(&pool->leaving, 1, __ATOMIC_RELEASE);
    start_round(pool);
    for (uint32_t i = 0; i + 1 < pool->threads; i++) pthread_join(pool->helpers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    memset(pool, 0, sizeof *pool);
    pool->threads = 1;
}

#endif

/* Kernels reach launch() through this pointer, which their object declares weak and leaves empty. */
int (*__TVMBackendParallelLaunch)(ep_task *, void *, int) = launch;
