/* fake_model.c - a FAKE compiled model for tests of worker and agent: a plan of one call, written by
 * hand, over the real runtime. A test knows every answer:
 *
 *   y[i]  = x[i] + weights[i]                              float32, one weight an element
 *   calls = {runs of this process so far, FAKE_TAG}        int64
 *
 * With FAKE_ALL_DTYPES every other dtype is there once as input `in_DTYPE` and, copied, as output
 * `out_DTYPE`. x[0] can order a failure:
 *
 *   -1001  the kernel fails               -1004  the run takes 300 ms
 *   -1002  the process kills itself       -1005  an illegal instruction
 *   -1003  the run never ends             -1006  y holds NaN and both infinities
 *   -1010  a socket is made               -1011  a file is opened
 *   -1012  a process is made              -1013  another process gets signal 0
 *   -1014  another program is executed    -1015  memory is made executable
 */
#define _DEFAULT_SOURCE
#include "plan.h"

#include <math.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef FAKE_ELEMENTS
#define FAKE_ELEMENTS 4
#endif
#ifndef FAKE_TAG
#define FAKE_TAG 1
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const int64_t shapes[] = {FAKE_ELEMENTS / 2, 2, 3};
#define FLOATS(name) {name, EP_FLOAT32, 2, shapes, FAKE_ELEMENTS * sizeof(float)}
#define THREE(name, dtype, size) {name, dtype, 1, shapes + 2, 3 * size}
#define EVERY(prefix)                                                                              \
    THREE(prefix "bool", EP_BOOL, 1), THREE(prefix "int8", EP_INT8, 1),                            \
        THREE(prefix "uint8", EP_UINT8, 1), THREE(prefix "int16", EP_INT16, 2),                    \
        THREE(prefix "uint16", EP_UINT16, 2), THREE(prefix "int32", EP_INT32, 4),                  \
        THREE(prefix "uint32", EP_UINT32, 4), THREE(prefix "int64", EP_INT64, 8),                  \
        THREE(prefix "uint64", EP_UINT64, 8), THREE(prefix "float16", EP_FLOAT16, 2),              \
        THREE(prefix "float64", EP_FLOAT64, 8), {prefix "scalar", EP_FLOAT32, 0, shapes, 4}

static const ep_tensor inputs[] = {
    FLOATS("x"),
#ifdef FAKE_ALL_DTYPES
    EVERY("in_"),
#endif
};
static const ep_tensor outputs[] = {
    FLOATS("y"),
    {"calls", EP_INT64, 1, shapes + 1, 16},
#ifdef FAKE_ALL_DTYPES
    EVERY("out_"),
#endif
};

/* The head of a DLTensor is the address of its data. */
static void *data_of(const ep_value *value) { return *(void **)value->as.pointer; }

static int fake_kernel(void *self, const ep_value *args, int32_t num_args, ep_value *result) {
    static int64_t runs;
    const float *x = data_of(&args[0]), *weights = data_of(&args[1]);
    float *y = data_of(&args[2]);
    const int64_t calls[2] = {++runs, FAKE_TAG};
    const struct timespec nap = {0, 300 * 1000 * 1000};

    (void)self, (void)num_args, (void)result;
    if (x[0] == -1001) return -1;
    if (x[0] == -1002) kill(getpid(), SIGKILL);
    if (x[0] == -1003)
        for (;;) pause();
    if (x[0] == -1004) nanosleep(&nap, NULL);
    if (x[0] == -1005) raise(SIGILL);
    if (x[0] == -1010) socket(AF_INET, SOCK_STREAM, 0);
    if (x[0] == -1011) open("/dev/null", O_RDONLY);
    if (x[0] == -1012 && fork() == 0) _exit(0);
    if (x[0] == -1013) kill(getppid(), 0);
    if (x[0] == -1014) execve("/bin/true", NULL, NULL);
    if (x[0] == -1015) mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < FAKE_ELEMENTS; i++) y[i] = x[i] + weights[i];
    if (x[0] == -1006) {
        y[0] = NAN;
        y[1] = INFINITY;
        y[2] = -INFINITY;
    }
    memcpy(data_of(&args[3]), calls, sizeof calls);
    return 0;
}

#define WHOLE(place, dtype, index, bytes) {place, dtype, 1, 0, index, bytes}
#define COPY(index, dtype, bytes)                                                                  \
    WHOLE(EP_IN_INPUT, dtype, index, bytes), WHOLE(EP_IN_OUTPUT, dtype, index + 1, bytes)
static const ep_slot slots[] = {
    WHOLE(EP_IN_INPUT, EP_FLOAT32, 0, FAKE_ELEMENTS * sizeof(float)),
    WHOLE(EP_IN_WEIGHTS, EP_FLOAT32, 0, FAKE_ELEMENTS * sizeof(float)),
    WHOLE(EP_IN_OUTPUT, EP_FLOAT32, 0, FAKE_ELEMENTS * sizeof(float)),
    WHOLE(EP_IN_OUTPUT, EP_INT64, 1, 16),
#ifdef FAKE_ALL_DTYPES
    COPY(1, EP_BOOL, 3), COPY(2, EP_INT8, 3), COPY(3, EP_UINT8, 3), COPY(4, EP_INT16, 6),
    COPY(5, EP_UINT16, 6), COPY(6, EP_INT32, 12), COPY(7, EP_UINT32, 12), COPY(8, EP_INT64, 24),
    COPY(9, EP_UINT64, 24), COPY(10, EP_FLOAT16, 6), COPY(11, EP_FLOAT64, 24),
    COPY(12, EP_FLOAT32, 4),
#endif
};
static const uint32_t args[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,
                                14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27};
static const ep_call calls[] = {
    {fake_kernel, 0, 4},
#ifdef FAKE_ALL_DTYPES
    {NULL, 4, 2},  {NULL, 6, 2},  {NULL, 8, 2},  {NULL, 10, 2}, {NULL, 12, 2}, {NULL, 14, 2},
    {NULL, 16, 2}, {NULL, 18, 2}, {NULL, 20, 2}, {NULL, 22, 2}, {NULL, 24, 2}, {NULL, 26, 2},
#endif
};

static const ep_model model = {
    .abi_version = EP_ABI_VERSION,
    .num_inputs = COUNT(inputs),
    .num_outputs = COUNT(outputs),
    .num_slots = COUNT(slots),
    .num_calls = COUNT(calls),
    .num_args = COUNT(slots),
    .arena_bytes = 4096,
    .weights_bytes = FAKE_ELEMENTS * sizeof(float),
    .inputs = inputs,
    .outputs = outputs,
    .slots = slots,
    .calls = calls,
    .args = args,
    .shapes = shapes,
};

const ep_model *ep_model_get(void) { return &model; }
