/* pool.h - the threads of one session. Not for applications: edgepack.h says how many there are.
 *
 * A kernel with a parallel loop hands it over through __TVMBackendParallelLaunch as one function and a
 * number of tasks (tvm, c_backend_api.h). The split is static: of n threads, thread t has the share t,
 * t + n, ... and thread 0 is the one that called ep_run(). Only a share whose thread has not come by the
 * time that thread 0 is done with its own is done by thread 0 too: where other programs use the cores, it
 * does not wait for one. What a task computes is the same wherever it runs.
 * With EP_NO_THREADS nothing here needs pthread.
 */
#ifndef EDGEPACK_POOL_H
#define EDGEPACK_POOL_H

#include "edgepack.h"

#ifdef EP_NO_THREADS

typedef struct ep_pool {
    uint32_t threads;
} ep_pool;

#else

#include <pthread.h>

struct ep_group;
typedef int ep_task(int task_id, struct ep_group *group, void *closure);

#define EP_CACHE_LINE __attribute__((aligned(64)))

/* What the caller writes, what helpers poll, and what each helper writes lie in lines of their own. */
typedef struct ep_helper {
    EP_CACHE_LINE uint32_t taken; /* the last round whose share somebody has begun */
    uint32_t done;                /* the last round whose share is finished */
    int failed;                   /* a task of it returned an error */
    uint32_t index;               /* 1 and up; 0 is the caller */
    struct ep_pool *pool;
    pthread_t thread;
} ep_helper;

typedef struct ep_pool {
    uint32_t threads; /* with the caller; up to 1: there are no helpers */
    int32_t num_tasks;
    ep_task *task;
    void *closure;
    EP_CACHE_LINE uint32_t round; /* counts launches; a new value is the order to work */
    uint32_t leaving;
    EP_CACHE_LINE uint32_t sleepers;
    uint32_t caller_sleeps;
    pthread_mutex_t lock; /* held by whoever goes to sleep or wakes another; never while working */
    pthread_cond_t work, done;
    ep_helper helpers[EP_MAX_THREADS - 1];
} ep_pool;

#endif

/* Starts threads - 1 helpers. EP_ERR_THREADS, and no helper is left, where the system refuses. */
int ep_pool_start(ep_pool *pool, uint32_t threads);

/* Ends the helpers and waits until they are gone; nothing to do where there are none. */
void ep_pool_stop(ep_pool *pool);

/* From here on, kernels of this thread use `pool`; NULL: none. Returns what they used before. */
ep_pool *ep_pool_enter(ep_pool *pool);

#endif
