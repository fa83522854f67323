/* pool.c - the threads of sessions, tested without a compiler: a plan written by hand whose kernels have
 * parallel loops as TVM makes them. Prints nothing and returns 0 where all is right. Built by
 * test_threads.py, with and without sanitizers. */
#define _POSIX_C_SOURCE 200809L
#include "plan.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPECT(condition)                                              \
    do {                                                               \
        if (!(condition)) {                                            \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);    \
            exit(1);                                                   \
        }                                                              \
    } while (0)

enum { N = 1003, CALLS = 40, SESSIONS = 3 };
static int runs = 200;

struct group { void *sync_handle; int32_t num_task; };
typedef int task_function(int task_id, struct group *group, void *closure);
extern int (*__TVMBackendParallelLaunch)(task_function *, void *, int);

struct closure { const float *x; float *y; int wanted; };

static void *data_of(const ep_value *value) { return *(void **)value->as.pointer; }

/* y = x + 1, by the split that TVM's code makes. x[0] of -1: the last task fails. */
static int add_chunk(int task_id, struct group *group, void *closure) {
    const struct closure *work = closure;
    const int step = (N + group->num_task - 1) / group->num_task;
    const int end = (task_id + 1) * step < N ? (task_id + 1) * step : N;
    EXPECT(task_id >= 0 && task_id < group->num_task);
    EXPECT(work->wanted == 0 || group->num_task == work->wanted || group->num_task == 1);
    for (int i = task_id * step; i < end; i++) work->y[i] = work->x[i] + 1;
    return work->x[0] == -1 && task_id == group->num_task - 1 ? -1 : 0;
}

/* A parallel loop inside a parallel loop runs where it is: every task of the outer one adds all. */
static int nested_chunk(int task_id, struct group *group, void *closure) {
    struct closure work = *(const struct closure *)closure;
    float mine[N];
    (void)group;
    work.y = task_id == 0 ? work.y : mine;
    return __TVMBackendParallelLaunch(add_chunk, &work, 0);
}

static int launch(const ep_value *args, task_function *task, int wanted) {
    struct closure work = {data_of(&args[0]), data_of(&args[1]), wanted};
    return __TVMBackendParallelLaunch(task, &work, wanted);
}

static int parallel_kernel(void *self, const ep_value *args, int32_t count, ep_value *result) {
    (void)self, (void)count, (void)result;
    return launch(args, add_chunk, 0);
}

static int seven_tasks_kernel(void *self, const ep_value *args, int32_t count, ep_value *result) {
    (void)self, (void)count, (void)result;
    return launch(args, add_chunk, 7);
}

static int nested_kernel(void *self, const ep_value *args, int32_t count, ep_value *result) {
    (void)self, (void)count, (void)result;
    return launch(args, nested_chunk, 0);
}

/* Long enough for helpers to fall asleep. */
static int slow_kernel(void *self, const ep_value *args, int32_t count, ep_value *result) {
    const struct timespec nap = {0, 2 * 1000 * 1000};
    (void)self, (void)count, (void)result;
    nanosleep(&nap, NULL);
    return launch(args, add_chunk, 0);
}

/* x -> a -> b -> a -> ... -> y: CALLS times one is added. */
static const int64_t shapes[] = {N};
static const ep_tensor inputs[] = {{"x", EP_FLOAT32, 1, shapes, N * sizeof(float)}};
static const ep_tensor outputs[] = {{"y", EP_FLOAT32, 1, shapes, N * sizeof(float)}};
static const ep_slot slots[] = {
    {EP_IN_INPUT, EP_FLOAT32, 1, 0, 0, N * sizeof(float)},
    {EP_IN_ARENA, EP_FLOAT32, 1, 0, 0, N * sizeof(float)},
    {EP_IN_ARENA, EP_FLOAT32, 1, 0, 4096, N * sizeof(float)},
    {EP_IN_OUTPUT, EP_FLOAT32, 1, 0, 0, N * sizeof(float)},
};
static uint32_t args[2 * CALLS];
static ep_call calls[CALLS];
static const ep_model model = {
    .abi_version = EP_ABI_VERSION, .num_inputs = 1, .num_outputs = 1, .num_slots = 4,
    .num_calls = CALLS, .num_args = 2 * CALLS, .arena_bytes = 8192, .inputs = inputs,
    .outputs = outputs, .slots = slots, .calls = calls, .args = args, .shapes = shapes, .cores = 1,
};

const ep_model *ep_model_get(void) { return &model; }

static void make_plan(void) {
    for (uint32_t i = 0; i < CALLS; i++) {
        ep_kernel *const usual = i % 7 == 3 ? seven_tasks_kernel : parallel_kernel;
        ep_kernel *const kernel = i == 20 ? slow_kernel : i % 11 == 5 ? nested_kernel : usual;
        args[2 * i] = i == 0 ? 0 : 1 + (i - 1) % 2;
        args[2 * i + 1] = i + 1 == CALLS ? 3 : 1 + i % 2;
        calls[i] = (ep_call){kernel, 2 * i, 2};
    }
}

static void *aligned(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, EP_ALIGNMENT, bytes)) abort();
    return memory;
}

struct application { uint32_t threads; pthread_t thread; };

static void run_once(ep_session *session, float *x, float *y, float first) {
    for (int i = 0; i < N; i++) x[i] = first + (float)i, y[i] = -7;
    const void *const in[] = {x};
    void *const out[] = {y};
    const int status = ep_run(session, in, out);
    if (first == -1) {
        EXPECT(status == EP_ERR_KERNEL);
        return;
    }
    EXPECT(status == EP_OK);
    for (int i = 0; i < N; i++) EXPECT(y[i] == x[i] + CALLS);
}

/* A session of its own with changing numbers of threads; several of these run at once. */
static void *use_a_session(void *argument) {
    const struct application *self = argument;
    const size_t bytes = ep_memory_bytes(&model);
    void *memory = aligned(bytes);
    float *x = aligned(4096), *y = aligned(4096);
    ep_session *session = NULL;
    memset(memory, 0xA5, bytes); /* a session does not trust its memory to be zero */
    EXPECT(ep_session_init(&session, &model, memory, bytes, memory, 0) == EP_OK);
    for (int run = 0; run < runs; run++) {
        if (run % (runs / 4) == 0) {
            const uint32_t threads = run % (runs / 2) ? 1 + self->threads / 2 : self->threads;
            EXPECT(ep_session_set_threads(session, threads) == EP_OK);
        }
        run_once(session, x, y, run % 9 == 4 ? -1 : (float)run);
    }
    EXPECT(ep_session_set_threads(session, 0) == EP_ERR_ARGUMENT);
    EXPECT(ep_session_set_threads(session, EP_MAX_THREADS + 1) == EP_ERR_ARGUMENT);
    run_once(session, x, y, 5); /* a refused number changes nothing */
    ep_session_close(session);
    memset(memory, 0xA5, bytes);
    free(memory), free(x), free(y);
    return NULL;
}

static int count_threads(void) {
    char line[256];
    int threads = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "Threads: %d", &threads);
    if (status) fclose(status);
    return threads;
}

/* A thread that was joined may still be counted for a moment. */
static int threads_are_again(int wanted) {
    const struct timespec moment = {0, 1000 * 1000};
    for (int i = 0; i < 5000 && count_threads() != wanted; i++) nanosleep(&moment, NULL);
    return count_threads() == wanted;
}

/* A sanitizer may start a thread of its own with the first of the program's. */
static void *do_nothing(void *argument) { return argument; }

static int count_after_a_first_thread(void) {
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, do_nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
    const struct timespec settled = {0, 20 * 1000 * 1000};
    nanosleep(&settled, NULL);
    return count_threads();
}

int main(int argc, char **argv) {
    struct application applications[SESSIONS];
    const uint32_t most = argc > 1 ? (uint32_t)atoi(argv[1]) : 3;
    if (argc > 2) runs = atoi(argv[2]);
    const int before = count_after_a_first_thread();
    make_plan();
    for (uint32_t i = 0; i < SESSIONS; i++) {
        applications[i].threads = 1 + (most - 1 + i) % most;
        EXPECT(pthread_create(&applications[i].thread, NULL, use_a_session, &applications[i]) == 0);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) EXPECT(pthread_join(applications[i].thread, NULL) == 0);
    ep_session_close(NULL);
    EXPECT(threads_are_again(before)); /* closing a session leaves no thread behind */
    return 0;
}
