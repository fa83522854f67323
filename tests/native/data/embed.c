/* An application that embeds a model through edgepack.h: reads the inputs from stdin, writes the
 * outputs to stdout, and first makes every mistake that the header names. argv[1] is the weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgepack.h"

#define EXPECT(condition)                                              \
    do {                                                               \
        if (!(condition)) {                                            \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);    \
            return 1;                                                  \
        }                                                              \
    } while (0)

static void *aligned(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, EP_ALIGNMENT, bytes ? bytes : EP_ALIGNMENT)) abort();
    return memory;
}

static void *read_weights(const char *path, size_t bytes) {
    uint8_t *weights = aligned(bytes);
    FILE *file = fopen(path, "rb");
    if (!file || fread(weights, 1, bytes, file) != bytes) abort();
    fclose(file);
    return weights;
}

int main(int argc, char **argv) {
    const ep_model *model = ep_model_get();
    const size_t bytes = ep_memory_bytes(model), n_weights = ep_weights_bytes(model);
    EXPECT(argc == 2 && ep_abi_version(model) == EP_ABI_VERSION);
    EXPECT(ep_arena_bytes(model) < bytes);
    uint8_t *weights = read_weights(argv[1], n_weights), *memory = aligned(bytes + EP_ALIGNMENT);
    ep_session *session = NULL;

    EXPECT(ep_session_init(NULL, model, memory, bytes, weights, n_weights) == EP_ERR_ARGUMENT);
    EXPECT(ep_session_init(&session, model, NULL, bytes, weights, n_weights) == EP_ERR_ARGUMENT);
    EXPECT(ep_session_init(&session, model, memory + 8, bytes, weights, n_weights) == EP_ERR_ALIGNMENT);
    EXPECT(ep_session_init(&session, model, memory, bytes - 1, weights, n_weights) == EP_ERR_MEMORY);
    EXPECT(ep_session_init(&session, model, memory, bytes, weights, n_weights - 1) == EP_ERR_WEIGHTS);
    EXPECT(session == NULL);
    memset(memory + bytes, 0xA5, EP_ALIGNMENT); /* must never be touched */
    EXPECT(ep_session_init(&session, model, memory, bytes, weights, n_weights) == EP_OK);

    const void *inputs[8];
    void *outputs[8];
    EXPECT(ep_num_inputs(model) <= 8 && ep_num_outputs(model) <= 8);
    EXPECT(ep_input(model, ep_num_inputs(model)) == NULL);
    for (size_t i = 0; i < ep_num_inputs(model); i++) {
        void *input = aligned(ep_input(model, i)->nbytes);
        EXPECT(fread(input, 1, ep_input(model, i)->nbytes, stdin) == ep_input(model, i)->nbytes);
        inputs[i] = input;
    }
    for (size_t i = 0; i < ep_num_outputs(model); i++) outputs[i] = aligned(ep_output(model, i)->nbytes);

    const void *const first = inputs[0];
    inputs[0] = NULL;
    EXPECT(ep_run(session, inputs, outputs) == EP_ERR_ARGUMENT);
    inputs[0] = (const char *)first + 4;
    EXPECT(ep_run(session, inputs, outputs) == EP_ERR_ALIGNMENT);
    inputs[0] = first;
    EXPECT(strcmp(ep_strerror(EP_ERR_ALIGNMENT), ep_strerror(EP_OK)) != 0);

    EXPECT(ep_session_set_threads(NULL, 2) == EP_ERR_ARGUMENT);
    EXPECT(ep_session_set_threads(session, 0) == EP_ERR_ARGUMENT);
    EXPECT(ep_session_set_threads(session, EP_MAX_THREADS + 1) == EP_ERR_ARGUMENT);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        EXPECT(ep_session_set_threads(session, threads) == EP_OK);
        EXPECT(ep_run(session, inputs, outputs) == EP_OK);
    }
    ep_session_close(session);
    for (size_t i = 0; i < ep_num_outputs(model); i++)
        fwrite(outputs[i], 1, ep_output(model, i)->nbytes, stdout);
    for (size_t i = 0; i < EP_ALIGNMENT; i++) EXPECT(memory[bytes + i] == 0xA5);
    return 0;
}
