/* edgepack.c - walks the static plan of a compiled model. See edgepack.h for the interface.
 *
 * A session is laid out in the caller's memory as
 *     ep_session | one DLTensor a slot | one tagged value an argument | arena (aligned)
 * All of it is written once, in ep_session_init(). A run only sets the addresses of inputs and
 * outputs, then calls the kernels in order: no checks of shapes, no lookups, no allocation.
 */
#include "plan.h"
#include "pool.h"

#include <string.h>

/* DLPack's tensor (dlpack.h, version 1). Device 1 is the CPU. */
typedef struct dl_tensor {
    void *data;
    struct { int32_t type, id; } device;
    int32_t ndim;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    const int64_t *shape;
    const int64_t *strides; /* NULL: dense, row-major */
    uint64_t byte_offset;
} dl_tensor;

struct ep_session {
    const ep_model *model;
    dl_tensor *tensors;
    ep_value *values;
    uint8_t *arena;
    const uint8_t *weights;
    ep_pool pool;
};

enum { DL_CPU = 1, DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_BOOL = 6, TAG_TENSOR = 7 };

static const struct { uint8_t code, bits; } dtypes[] = {
    [EP_BOOL] = {DL_BOOL, 8},    [EP_INT8] = {DL_INT, 8},     [EP_UINT8] = {DL_UINT, 8},
    [EP_INT16] = {DL_INT, 16},   [EP_UINT16] = {DL_UINT, 16}, [EP_INT32] = {DL_INT, 32},
    [EP_UINT32] = {DL_UINT, 32}, [EP_INT64] = {DL_INT, 64},   [EP_UINT64] = {DL_UINT, 64},
    [EP_FLOAT16] = {DL_FLOAT, 16}, [EP_FLOAT32] = {DL_FLOAT, 32}, [EP_FLOAT64] = {DL_FLOAT, 64},
};

static size_t aligned(size_t bytes) {
    return (bytes + (EP_ALIGNMENT - 1)) & ~(size_t)(EP_ALIGNMENT - 1);
}

static int misaligned(const void *pointer) {
    return ((uintptr_t)pointer & (EP_ALIGNMENT - 1)) != 0;
}

uint32_t ep_abi_version(const ep_model *model) { return model->abi_version; }
size_t ep_num_inputs(const ep_model *model) { return model->num_inputs; }
size_t ep_num_outputs(const ep_model *model) { return model->num_outputs; }
size_t ep_weights_bytes(const ep_model *model) { return (size_t)model->weights_bytes; }
size_t ep_arena_bytes(const ep_model *model) { return (size_t)model->arena_bytes; }
uint32_t ep_cores(const ep_model *model) { return model->cores; }
uint32_t ep_num_calls(const ep_model *model) { return model->num_calls; }
uint64_t ep_peak_flops(const ep_model *model) { return model->peak.kernel ? model->peak.flops : 0; }

const ep_tensor *ep_input(const ep_model *model, size_t index) {
    return index < model->num_inputs ? &model->inputs[index] : NULL;
}

const ep_tensor *ep_output(const ep_model *model, size_t index) {
    return index < model->num_outputs ? &model->outputs[index] : NULL;
}

size_t ep_memory_bytes(const ep_model *model) {
    return aligned(sizeof(ep_session)) + aligned(model->num_slots * sizeof(dl_tensor)) +
           aligned(model->num_args * sizeof(ep_value)) + aligned((size_t)model->arena_bytes);
}

static void *slot_address(const ep_session *session, const ep_slot *slot) {
    switch (slot->place) {
    case EP_IN_WEIGHTS:
        return (void *)(uintptr_t)(session->weights + slot->offset);
    case EP_IN_ARENA:
        return session->arena + slot->offset;
    default:
        return NULL; /* an input or output: set by every ep_run() */
    }
}

int ep_session_init(ep_session **session, const ep_model *model, void *memory, size_t memory_bytes,
                    const void *weights, size_t weights_bytes) {
    if (!session || !model || !memory || (!weights && model->weights_bytes)) return EP_ERR_ARGUMENT;
    if (misaligned(memory) || misaligned(weights)) return EP_ERR_ALIGNMENT;
    if (memory_bytes < ep_memory_bytes(model)) return EP_ERR_MEMORY;
    if (weights_bytes != model->weights_bytes) return EP_ERR_WEIGHTS;

    uint8_t *next = memory;
    ep_session *s = memory;
    s->model = model;
    s->weights = weights;
    s->tensors = (dl_tensor *)(void *)(next += aligned(sizeof(ep_session)));
    s->values = (ep_value *)(void *)(next += aligned(model->num_slots * sizeof(dl_tensor)));
    s->arena = next + aligned(model->num_args * sizeof(ep_value));

    for (uint32_t i = 0; i < model->num_slots; i++) {
        const ep_slot *slot = &model->slots[i];
        dl_tensor *tensor = &s->tensors[i];
        memset(tensor, 0, sizeof *tensor);
        tensor->data = slot_address(s, slot);
        tensor->device.type = DL_CPU;
        tensor->ndim = slot->ndim;
        tensor->dtype.code = dtypes[slot->dtype].code;
        tensor->dtype.bits = dtypes[slot->dtype].bits;
        tensor->dtype.lanes = 1;
        tensor->shape = model->shapes + slot->shape;
    }
    for (uint32_t i = 0; i < model->num_args; i++) {
        memset(&s->values[i], 0, sizeof s->values[i]);
        s->values[i].type_index = TAG_TENSOR;
        s->values[i].as.pointer = &s->tensors[model->args[i]];
    }
    *session = s;
    return ep_pool_start(&s->pool, 1);
}

int ep_session_set_threads(ep_session *session, uint32_t threads) {
    if (!session || threads < 1 || threads > EP_MAX_THREADS) return EP_ERR_ARGUMENT;
    ep_pool_stop(&session->pool);
    return ep_pool_start(&session->pool, threads);
}

void ep_session_close(ep_session *session) {
    if (session) ep_pool_stop(&session->pool);
}

static int bind_arguments(ep_session *s, const void *const inputs[], void *const outputs[]) {
    const ep_model *model = s->model;
    for (uint32_t i = 0; i < model->num_inputs; i++)
        if (!inputs[i] || misaligned(inputs[i])) return inputs[i] ? EP_ERR_ALIGNMENT : EP_ERR_ARGUMENT;
    for (uint32_t i = 0; i < model->num_outputs; i++)
        if (!outputs[i] || misaligned(outputs[i])) return outputs[i] ? EP_ERR_ALIGNMENT : EP_ERR_ARGUMENT;
    for (uint32_t i = 0; i < model->num_slots; i++) {
        const ep_slot *slot = &model->slots[i];
        if (slot->place == EP_IN_INPUT)
            s->tensors[i].data = (void *)(uintptr_t)inputs[slot->offset];
        else if (slot->place == EP_IN_OUTPUT)
            s->tensors[i].data = outputs[slot->offset];
    }
    return EP_OK;
}

static int run_call(const ep_session *s, const ep_call *call) {
    const ep_value *args = s->values + call->first;
    if (call->kernel) {
        ep_value result = {0};
        return call->kernel(NULL, args, (int32_t)call->count, &result) != 0 ? EP_ERR_KERNEL : EP_OK;
    }
    const dl_tensor *from = args[0].as.pointer, *to = args[1].as.pointer;
    const uint32_t source = s->model->args[call->first];
    memcpy(to->data, from->data, (size_t)s->model->slots[source].nbytes);
    return EP_OK;
}

/* Compiled twice: ep_run() has nothing of `ended` in it. */
static inline int walk(ep_session *s, const void *const inputs[], void *const outputs[],
                       void (*ended)(void *context), void *context) {
    if (!s || !outputs || (!inputs && s->model->num_inputs)) return EP_ERR_ARGUMENT;
    int status = bind_arguments(s, inputs, outputs);
    if (status != EP_OK) return status;

    ep_pool *const before = ep_pool_enter(&s->pool);
    for (uint32_t i = 0; i < s->model->num_calls && status == EP_OK; i++) {
        status = run_call(s, &s->model->calls[i]);
        if (ended) ended(context);
    }
    ep_pool_enter(before);
    return status;
}

int ep_run(ep_session *s, const void *const inputs[], void *const outputs[]) {
    return walk(s, inputs, outputs, NULL, NULL);
}

int ep_run_observed(ep_session *s, const void *const inputs[], void *const outputs[],
                    void (*ended)(void *context), void *context) {
    return walk(s, inputs, outputs, ended, context);
}

int ep_run_peak(const ep_model *model) {
    float values[EP_PEAK_VALUES] __attribute__((aligned(EP_ALIGNMENT)));
    const int64_t shape[] = {model->peak.values};
    dl_tensor tensor = {0};
    ep_value value = {0}, result = {0};
    if (!model->peak.kernel || model->peak.values > EP_PEAK_VALUES) return EP_ERR_ARGUMENT;
    for (uint32_t i = 0; i < model->peak.values; i++) values[i] = 1e-9f; /* no overflow, no denormals */
    tensor.data = values;
    tensor.device.type = DL_CPU;
    tensor.ndim = 1;
    tensor.dtype.code = DL_FLOAT;
    tensor.dtype.bits = 32;
    tensor.dtype.lanes = 1;
    tensor.shape = shape;
    value.type_index = TAG_TENSOR;
    value.as.pointer = &tensor;
    return model->peak.kernel(NULL, &value, 1, &result) != 0 ? EP_ERR_KERNEL : EP_OK;
}

const char *ep_strerror(int status) {
    switch (status) {
    case EP_OK: return "success";
    case EP_ERR_ARGUMENT: return "a pointer is null or a size is impossible";
    case EP_ERR_MEMORY: return "the memory given is smaller than the session needs";
    case EP_ERR_WEIGHTS: return "the weights are not those that the plan was made for";
    case EP_ERR_ALIGNMENT: return "a pointer is not aligned to 64 bytes";
    case EP_ERR_KERNEL: return "a kernel failed";
    case EP_ERR_THREADS: return "the threads could not be started";
    default: return "unknown status";
    }
}

#ifdef __ARM_EABI__
/* What LLVM's 32-bit ARM code names and the EABI's runtime library calls otherwise (Run-time ABI for
 * the Arm Architecture, section 5.1): conversions between 64-bit integers and floating point, with
 * arguments in floating-point registers, and the unwinder's routine, though kernels never unwind. */
#define WEAK __attribute__((weak))
WEAK float __floatdisf(int64_t value) { return (float)value; }
WEAK float __floatundisf(uint64_t value) { return (float)value; }
WEAK double __floatdidf(int64_t value) { return (double)value; }
WEAK double __floatundidf(uint64_t value) { return (double)value; }
WEAK int64_t __fixsfdi(float value) { return (int64_t)value; }
WEAK uint64_t __fixunssfdi(float value) { return (uint64_t)value; }
WEAK int64_t __fixdfdi(double value) { return (int64_t)value; }
WEAK uint64_t __fixunsdfdi(double value) { return (uint64_t)value; }
WEAK void __aeabi_unwind_cpp_pr0(void) {}
#endif
