/* edgepack.h - run a compiled model inside your own process.
 *
 * A compiled model is code (kernels and a static plan) plus one blob of weights. This header is the
 * whole interface to it; it is C99 and needs no allocator, nor an operating system for one thread. The model is linked
 * in as an object or archive; the weights are wherever you put them: mapped from a file, in flash.
 *
 *     const ep_model *model = ep_model_get();
 *     void *memory = aligned_alloc(EP_ALIGNMENT, ep_memory_bytes(model));
 *     ep_session *session;
 *     if (ep_session_init(&session, model, memory, ep_memory_bytes(model), weights, n_weights)) ...
 *     if (ep_run(session, inputs, outputs)) ...
 *
 * More threads than the caller's: ep_session_set_threads() once, and ep_session_close() at the end.
 * Compiled with EP_NO_THREADS, the runtime knows one thread and needs no operating system.
 *
 * Rules that hold for every call:
 *   - A call that can fail returns EP_OK (0) or a negative ep_status; ep_strerror() puts it in words.
 *   - The caller owns all memory. Nothing is allocated, nothing is freed, nothing is kept but
 *     pointers into what ep_session_init() was given: `memory` and `weights` outlive the session.
 *   - A session is for one thread at a time. Several sessions of one model may run at once, each
 *     with its own `memory`; they share the weights, which are only read.
 *   - Tensors are dense, row-major, native endian, and start at a multiple of EP_ALIGNMENT.
 */
#ifndef EDGEPACK_H
#define EDGEPACK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EP_ABI_VERSION 1 /* changes when anything below changes its meaning */
#define EP_ALIGNMENT 64  /* bytes; of memory, weights, every input and every output */
#define EP_MAX_THREADS 64

typedef enum ep_status {
    EP_OK = 0,
    EP_ERR_ARGUMENT = -1,  /* a pointer is null or a size is impossible */
    EP_ERR_MEMORY = -2,    /* `memory` is smaller than ep_memory_bytes() */
    EP_ERR_WEIGHTS = -3,   /* the weights blob has not the size that the plan was made for */
    EP_ERR_ALIGNMENT = -4, /* a pointer is no multiple of EP_ALIGNMENT */
    EP_ERR_KERNEL = -5,    /* a kernel reported failure; outputs are undefined */
    EP_ERR_THREADS = -6    /* the system gives no more threads, or EP_NO_THREADS was set */
} ep_status;

typedef enum ep_dtype {
    EP_BOOL = 0, /* one byte an element, 0 or 1 */
    EP_INT8 = 1,
    EP_UINT8 = 2,
    EP_INT16 = 3,
    EP_UINT16 = 4,
    EP_INT32 = 5,
    EP_UINT32 = 6,
    EP_INT64 = 7,
    EP_UINT64 = 8,
    EP_FLOAT16 = 9,
    EP_FLOAT32 = 10,
    EP_FLOAT64 = 11
} ep_dtype;

typedef struct ep_tensor {
    const char *name;     /* as in the source model; UTF-8, NUL-terminated */
    int32_t dtype;        /* an ep_dtype */
    int32_t ndim;         /* number of dimensions; 0 for a scalar */
    const int64_t *shape; /* ndim extents */
    size_t nbytes;        /* product of the extents times the element size */
} ep_tensor;

typedef struct ep_model ep_model;     /* constant, made by the compiler */
typedef struct ep_session ep_session; /* lives inside the caller's `memory` */

/* ---- the model ------------------------------------------------------------------------------ */

const ep_model *ep_model_get(void); /* the model that was linked in */
uint32_t ep_abi_version(const ep_model *model);

size_t ep_num_inputs(const ep_model *model);
size_t ep_num_outputs(const ep_model *model);
const ep_tensor *ep_input(const ep_model *model, size_t index);  /* NULL if out of range */
const ep_tensor *ep_output(const ep_model *model, size_t index); /* NULL if out of range */

size_t ep_weights_bytes(const ep_model *model); /* exact size of the weights blob */
size_t ep_arena_bytes(const ep_model *model);   /* activations and workspaces; part of the next */
size_t ep_memory_bytes(const ep_model *model);  /* what ep_session_init() needs */

/* ---- a session ------------------------------------------------------------------------------ */

/* Lays a session out in `memory`, for one thread. Reads nothing of `weights` but its address. */
int ep_session_init(ep_session **session, const ep_model *model, void *memory, size_t memory_bytes,
                    const void *weights, size_t weights_bytes);

/* Runs the model once. inputs[i] holds ep_input(model, i)->nbytes bytes and is only read;
 * outputs[i] holds ep_output(model, i)->nbytes bytes and is written whole. Inputs and outputs must
 * not overlap one another. */
int ep_run(ep_session *session, const void *const inputs[], void *const outputs[]);

/* Lets ep_run() use `threads` threads, 1 to EP_MAX_THREADS: its caller's and helpers, which start here,
 * with stacks of 128 KiB from the system, and sleep between runs. Results do not depend on the number.
 * Not during ep_run(). On failure the session has one thread. */
int ep_session_set_threads(ep_session *session, uint32_t threads);

/* Ends the helpers, if there are any, after which `memory` is the caller's again. */
void ep_session_close(ep_session *session);

const char *ep_strerror(int status); /* never NULL */

#ifdef __cplusplus
}
#endif
#endif
