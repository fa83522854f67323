/* plan.h - the tables that the compiler writes and edgepack.c walks. Not for applications.
 *
 * A slot is a tensor as one kernel sees it; a call is one kernel with its slots. Kernels have TVM's
 * packed calling convention (tvm-ffi, c_api.h): tensors as pointers to DLTensor in an array of
 * tagged values.
 */
#ifndef EDGEPACK_PLAN_H
#define EDGEPACK_PLAN_H

#include "edgepack.h"

enum { EP_IN_WEIGHTS = 0, EP_IN_ARENA = 1, EP_IN_INPUT = 2, EP_IN_OUTPUT = 3 };

typedef struct ep_slot {
    uint8_t place;   /* EP_IN_... */
    uint8_t dtype;   /* an ep_dtype */
    uint8_t ndim;    /* number of dimensions */
    uint32_t shape;  /* index of the first extent in ep_model.shapes */
    uint64_t offset; /* bytes from the start of weights or arena; index of the input or output */
    uint64_t nbytes;
} ep_slot;

/* A tagged value: the first word says what the second is. 7 is a DLTensor pointer. */
typedef struct ep_value {
    int32_t type_index;
    uint32_t zero;
    union {
        void *pointer;
        int64_t integer;
    } as;
} ep_value;

typedef int ep_kernel(void *self, const ep_value *args, int32_t num_args, ep_value *result);

typedef struct ep_call {
    ep_kernel *kernel; /* NULL: copy the first slot to the second */
    uint32_t first;    /* index of the first argument in ep_model.args */
    uint32_t count;
} ep_call;

/* Multiplies and adds in registers alone, as fast as the core can: what a profile calls its peak. */
typedef struct ep_peak {
    ep_kernel *kernel; /* NULL: none was linked in */
    uint32_t values;   /* float32 elements of its one argument, read and written; up to EP_PEAK_VALUES */
    uint64_t flops;    /* of one call */
} ep_peak;

enum { EP_PEAK_VALUES = 2048 };

struct ep_model {
    uint32_t abi_version;
    uint32_t num_inputs, num_outputs, num_slots, num_calls, num_args;
    uint64_t arena_bytes, weights_bytes;
    const ep_tensor *inputs, *outputs;
    const ep_slot *slots;
    const ep_call *calls;
    const uint32_t *args; /* slot numbers */
    const int64_t *shapes;
    uint32_t cores; /* of the target profile: how many threads a worker uses if nobody says */
    ep_peak peak;
};

/* ---- for the worker, which measures --------------------------------------------------------- */

uint32_t ep_cores(const ep_model *model);
uint32_t ep_num_calls(const ep_model *model);
uint64_t ep_peak_flops(const ep_model *model); /* of one ep_run_peak(); 0: there is no such kernel */

/* ep_run() that tells when each call has ended: `ended(context)`, in the plan's order. */
int ep_run_observed(ep_session *session, const void *const inputs[], void *const outputs[],
                    void (*ended)(void *context), void *context);

/* Calls the peak kernel once, on this thread. */
int ep_run_peak(const ep_model *model);

#endif
