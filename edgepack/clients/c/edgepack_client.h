/* edgepack_client.h - ask the edgepack agent on this device for inferences, from C.
 *
 * One .c file, C99 and POSIX, no library. It speaks the Open Inference Protocol v2 with the binary tensor
 * data and system shared memory extensions, over the agent's Unix socket, on one kept connection.
 *
 *     static char buffer[16384];
 *     epc_client client;
 *     if (epc_connect(&client, EPC_DEFAULT_SOCKET, 5000, buffer, sizeof buffer)) ...
 *     const int64_t shape[] = {1, 4};
 *     epc_tensor in = {.name = "x", .dtype = EPC_FLOAT32, .ndim = 2, .shape = shape, .data = x, .nbytes = 16};
 *     epc_tensor out = {.name = "y", .dtype = EPC_FLOAT32, .data = y, .nbytes = 8};
 *     int status = epc_infer(&client, "model", &in, 1, &out, 1);
 *     if (status) fprintf(stderr, "%s: %s\n", epc_strerror(status), client.message);
 *     epc_close(&client);
 *
 * Large tensors need not travel at all: epc_region_create() once, then put tensors into region.memory and
 * set .region (and .data inside it); the agent reads and writes there.
 *
 * Rules that hold for every call:
 *   - A call that can fail returns EPC_OK (0) or a negative epc_status; epc_strerror() puts it in words.
 *     After EPC_ERR_SERVER, client.message is the server's own line and client.http_status its status.
 *   - The caller owns all memory. Nothing is allocated: requests and answers but for the tensors pass
 *     through `buffer`, and tensors go straight from and to their `data`.
 *   - After EPC_ERR_SYSTEM, EPC_ERR_CLOSED and EPC_ERR_ANSWER the connection is closed: epc_connect() again,
 *     and register regions anew. Nothing is ever sent twice by itself. The agent closes a connection that
 *     is idle for a minute; an inference that met EPC_ERR_CLOSED may be repeated, it changes nothing.
 *   - A client is for one thread at a time. Tensors are dense, row-major and little-endian.
 */
#ifndef EDGEPACK_CLIENT_H
#define EDGEPACK_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EPC_DEFAULT_SOCKET "/var/lib/edgepack/run/agent.sock"
#define EPC_MIN_BUFFER 4096 /* bytes; about 300 more for each tensor beyond eight */
#define EPC_NAME_BYTES 64

typedef enum epc_status {
    EPC_OK = 0,
    EPC_ERR_ARGUMENT = -1, /* a pointer is null, or a name or size is impossible */
    EPC_ERR_BUFFER = -2,   /* `buffer` is too small for this request, or for its answer */
    EPC_ERR_SYSTEM = -3,   /* a system call failed or timed out: see errno */
    EPC_ERR_CLOSED = -4,   /* the agent closed the connection, or it was never made */
    EPC_ERR_ANSWER = -5,   /* what came is not the answer to what was asked */
    EPC_ERR_SERVER = -6    /* the agent refused: see client.message */
} epc_status;

typedef enum epc_dtype { /* numbers as in edgepack.h */
    EPC_BOOL = 0,
    EPC_INT8 = 1,
    EPC_UINT8 = 2,
    EPC_INT16 = 3,
    EPC_UINT16 = 4,
    EPC_INT32 = 5,
    EPC_UINT32 = 6,
    EPC_INT64 = 7,
    EPC_UINT64 = 8,
    EPC_FLOAT16 = 9,
    EPC_FLOAT32 = 10,
    EPC_FLOAT64 = 11
} epc_dtype;

typedef struct epc_client { /* read message and http_status; leave the rest alone */
    char message[256];
    int http_status;
    int descriptor;
    int timeout_ms;
    char *buffer;
    size_t capacity;
} epc_client;

typedef struct epc_region { /* memory that the agent can use too */
    void *memory;
    size_t nbytes;
    char name[EPC_NAME_BYTES];
} epc_region;

typedef struct epc_tensor {
    const char *name;         /* as the model has it */
    int32_t dtype;            /* an epc_dtype */
    int32_t ndim;             /* of an input; outputs need neither ndim nor shape */
    const int64_t *shape;     /* ndim extents */
    void *data;               /* nbytes bytes; inside region->memory if there is a region */
    size_t nbytes;            /* exact */
    const epc_region *region; /* NULL: the bytes travel */
} epc_tensor;

typedef struct epc_model {
    char name[EPC_NAME_BYTES];
    char version[EPC_NAME_BYTES];
    int ready; /* 0 or 1 */
} epc_model;

/* ---- the connection ------------------------------------------------------------------------- */

/* Connects to the socket at `path`. `buffer` stays in use until epc_close(); timeout_ms is for each
 * wait, 0 for ever. */
int epc_connect(epc_client *client, const char *path, int timeout_ms, void *buffer, size_t buffer_bytes);

void epc_close(epc_client *client); /* more than once does no harm */

/* ---- models --------------------------------------------------------------------------------- */

/* EPC_OK if `model` can be asked, or with NULL every installed model; else EPC_ERR_SERVER. */
int epc_ready(epc_client *client, const char *model);

/* Writes up to `capacity` installed models, and to *count how many there are. The whole list must fit the
 * buffer, and 16 KiB (well over a hundred models): beyond that the agent answers in chunks, which are
 * not understood here (EPC_ERR_ANSWER). */
int epc_list(epc_client *client, epc_model models[], size_t capacity, size_t *count);

/* ---- inference ------------------------------------------------------------------------------ */

/* Runs `model` once. Every input must be there; outputs are those that are wanted, in any order. */
int epc_infer(epc_client *client, const char *model, const epc_tensor inputs[], size_t num_inputs,
              const epc_tensor outputs[], size_t num_outputs);

/* Maps nbytes of new shared memory and registers it. The agent's user must share a group with this
 * process, or be root. */
int epc_region_create(epc_client *client, epc_region *region, size_t nbytes);

/* Unregisters it, if the connection stands, and unmaps it. */
void epc_region_destroy(epc_client *client, epc_region *region);

const char *epc_strerror(int status); /* never NULL */

#ifdef __cplusplus
}
#endif
#endif
