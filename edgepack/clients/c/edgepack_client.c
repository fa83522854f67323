/* edgepack_client.c - see edgepack_client.h.
 *
 * Requests are written into the caller's buffer from the front; the head and JSON of an answer are read
 * into it again. Every read has a bound, and everything that comes is checked before it is believed.
 */
#define _POSIX_C_SOURCE 200809L
#include "edgepack_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEPTH 16 /* of nested JSON; the protocol needs four */

static const char *const datatypes[] = {"BOOL",   "INT8",  "UINT8",  "INT16", "UINT16", "INT32",
                                        "UINT32", "INT64", "UINT64", "FP16",  "FP32",   "FP64"};
#define NUM_DATATYPES ((int32_t)(sizeof datatypes / sizeof datatypes[0]))

const char *epc_strerror(int status) {
    static const char *const words[] = {
        "no error",
        "a pointer is null, or a name or size is impossible",
        "the buffer is too small for the request or its answer",
        "a system call failed or timed out",
        "the agent closed the connection, or it was never made",
        "what came is not the answer to what was asked",
        "the agent refused",
    };
    if (status > 0 || status < EPC_ERR_SERVER) return "unknown status";
    return words[-status];
}

/* ---- writing a request ---------------------------------------------------------------------- */

typedef struct text {
    char *start;
    size_t length, capacity;
    int overflow;
} text;

/* Written by hand: printf would take as long as the agent needs to read what it writes. */
static void append_bytes(text *out, const char *bytes, size_t size) {
    if (out->capacity - out->length < size) {
        out->overflow = 1;
        return;
    }
    memcpy(out->start + out->length, bytes, size);
    out->length += size;
}

static void append(text *out, const char *words) { append_bytes(out, words, strlen(words)); }

static void append_number(text *out, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    append_bytes(out, digits + at, sizeof digits - at);
}

static void append_extent(text *out, int64_t extent) {
    if (extent < 0) append(out, "-");
    append_number(out, extent < 0 ? -(uint64_t)extent : (uint64_t)extent);
}

static void append_string(text *out, const char *string) {
    append(out, "\"");
    for (size_t n; *string; string += n) {
        n = strcspn(string, "\"\\");
        append_bytes(out, string, n);
        if (string[n]) {
            append(out, "\\");
            append_bytes(out, string + n++, 1);
        }
    }
    append(out, "\"");
}

/* Names of models become part of a path. */
static int is_model_name(const char *name) {
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n < EPC_NAME_BYTES && name[n] == '\0';
}

static int is_inside(const epc_tensor *tensor) {
    const epc_region *region = tensor->region;
    size_t offset;
    if (region == NULL) return 1;
    if ((char *)tensor->data < (char *)region->memory) return 0;
    offset = (size_t)((char *)tensor->data - (char *)region->memory);
    return offset <= region->nbytes && tensor->nbytes <= region->nbytes - offset;
}

static int is_tensor(const epc_tensor *tensor, int is_input) {
    const char *c;
    if (tensor->name == NULL || tensor->data == NULL || !is_inside(tensor)) return 0;
    if (tensor->dtype < 0 || tensor->dtype >= NUM_DATATYPES) return 0;
    if (is_input && (tensor->ndim < 0 || (tensor->ndim && tensor->shape == NULL))) return 0;
    for (c = tensor->name; *c; c++)
        if ((unsigned char)*c < ' ') return 0;
    return 1;
}

static void append_place(text *out, const epc_tensor *tensor) {
    const epc_region *region = tensor->region;
    if (region == NULL) return;
    append(out, "\"shared_memory_region\":\"");
    append(out, region->name);
    append(out, "\",\"shared_memory_byte_size\":");
    append_number(out, tensor->nbytes);
    append(out, ",\"shared_memory_offset\":");
    append_number(out, (size_t)((char *)tensor->data - (char *)region->memory));
}

static void append_input(text *out, const epc_tensor *tensor) {
    append(out, "{\"name\":");
    append_string(out, tensor->name);
    append(out, ",\"datatype\":\"");
    append(out, datatypes[tensor->dtype]);
    append(out, "\",\"shape\":[");
    for (int32_t i = 0; i < tensor->ndim; i++) {
        if (i) append(out, ",");
        append_extent(out, tensor->shape[i]);
    }
    append(out, "],\"parameters\":{");
    append_place(out, tensor);
    if (tensor->region == NULL) {
        append(out, "\"binary_data_size\":");
        append_number(out, tensor->nbytes);
    }
    append(out, "}}");
}

static void append_output(text *out, const epc_tensor *tensor) {
    append(out, "{\"name\":");
    append_string(out, tensor->name);
    append(out, ",\"parameters\":{");
    append_place(out, tensor);
    if (tensor->region == NULL) append(out, "\"binary_data\":true");
    append(out, "}}");
}

/* ---- the connection ------------------------------------------------------------------------- */

static int lose(epc_client *client, int status) {
    int kept = errno;
    epc_close(client);
    errno = kept;
    return status;
}

#define MAX_PIECES 16 /* of one message */

typedef struct outgoing {
    struct iovec pieces[MAX_PIECES];
    size_t count;
} outgoing;

static int send_pieces(epc_client *client, outgoing *out) {
    struct iovec *piece = out->pieces, *const end = piece + out->count;
    out->count = 0;
    while (piece < end) {
        struct msghdr message = {.msg_iov = piece, .msg_iovlen = (size_t)(end - piece)};
        ssize_t n = sendmsg(client->descriptor, &message, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EPIPE || errno == ECONNRESET ? EPC_ERR_CLOSED : EPC_ERR_SYSTEM;
        for (; piece < end && (size_t)n >= piece->iov_len; piece++) n -= (ssize_t)piece->iov_len;
        if (piece < end) {
            piece->iov_base = (char *)piece->iov_base + n;
            piece->iov_len -= (size_t)n;
        }
    }
    return EPC_OK;
}

/* Sent with what follows, as far as that fits one message: each message wakes the agent. */
static int add_piece(epc_client *client, outgoing *out, const void *data, size_t size) {
    out->pieces[out->count++] = (struct iovec){(void *)(uintptr_t)data, size};
    return out->count == MAX_PIECES ? send_pieces(client, out) : EPC_OK;
}

/* Until something is there. Not recv(), which also wakes when the agent takes what was sent (unix_write_space). */
static int wait_for_bytes(epc_client *client) {
    struct pollfd wanted = {client->descriptor, POLLIN, 0};
    int n;
    do n = poll(&wanted, 1, client->timeout_ms ? client->timeout_ms : -1);
    while (n < 0 && errno == EINTR);
    if (n == 0) errno = EAGAIN;
    return n > 0 ? EPC_OK : EPC_ERR_SYSTEM;
}

/* At least one byte and at most `size`. */
static int receive(epc_client *client, void *data, size_t size, size_t *got) {
    for (;;) {
        ssize_t n;
        if (wait_for_bytes(client)) return EPC_ERR_SYSTEM;
        n = recv(client->descriptor, data, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return EPC_ERR_CLOSED;
        if (n < 0) return EPC_ERR_SYSTEM;
        *got = (size_t)n;
        return EPC_OK;
    }
}

int epc_connect(epc_client *client, const char *path, int timeout_ms, void *buffer, size_t buffer_bytes) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval wait = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};

    if (client == NULL) return EPC_ERR_ARGUMENT;
    memset(client, 0, sizeof *client);
    client->descriptor = -1;
    if (path == NULL || buffer == NULL || timeout_ms < 0) return EPC_ERR_ARGUMENT;
    if (strlen(path) >= sizeof address.sun_path) return EPC_ERR_ARGUMENT;
    if (buffer_bytes < EPC_MIN_BUFFER) return EPC_ERR_BUFFER;
    memcpy(address.sun_path, path, strlen(path) + 1);
    client->buffer = buffer;
    client->capacity = buffer_bytes;
    client->timeout_ms = timeout_ms;
    client->descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    if (client->descriptor < 0) return EPC_ERR_SYSTEM;
    if (fcntl(client->descriptor, F_SETFD, FD_CLOEXEC) ||
        setsockopt(client->descriptor, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) ||
        setsockopt(client->descriptor, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) ||
        connect(client->descriptor, (struct sockaddr *)&address, sizeof address))
        return lose(client, EPC_ERR_SYSTEM);
    return EPC_OK;
}

void epc_close(epc_client *client) {
    if (client == NULL || client->descriptor < 0) return;
    close(client->descriptor);
    client->descriptor = -1;
}

/* ---- reading an answer ---------------------------------------------------------------------- */

typedef struct answer {
    const char *json; /* in the buffer */
    size_t json_bytes;
    const char *rest; /* what of the tensors came along with the head and the JSON */
    size_t rest_bytes;
    size_t tensor_bytes; /* of all, rest included */
    int keep;
} answer;

/* Digits only; at most 15 of them. */
static int parse_length(const char *at, const char *end, size_t *value) {
    unsigned long long n = 0;
    if (at == end || end - at > 15) return 0;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9') return 0;
        n = n * 10 + (unsigned)(*at - '0');
    }
    *value = (size_t)n;
    return *value == n;
}

/* One field of the head, without its line end. */
static int parse_field(const char *line, const char *end, size_t *length, int *has_length, size_t *json,
                       int *has_json, int *keep) {
    const char *colon = memchr(line, ':', (size_t)(end - line)), *value;
    size_t n;
    if (colon == NULL) return 0;
    n = (size_t)(colon - line);
    for (value = colon + 1; value < end && *value == ' ';) value++;
    if (n == 14 && !strncasecmp(line, "content-length", n)) {
        if (*has_length) return 0;
        *has_length = 1;
        return parse_length(value, end, length);
    }
    if (n == 31 && !strncasecmp(line, "inference-header-content-length", n)) {
        if (*has_json) return 0;
        *has_json = 1;
        return parse_length(value, end, json);
    }
    if (n == 10 && !strncasecmp(line, "connection", n))
        *keep = !(end - value == 5 && !strncasecmp(value, "close", 5));
    return !(n == 17 && !strncasecmp(line, "transfer-encoding", n)); /* none is asked for */
}

/* `end` is behind the empty line. */
static int parse_head(epc_client *client, const char *head, const char *end, size_t *length, answer *to) {
    int has_length = 0, has_json = 0;
    const char *line, *stop;
    to->keep = 1;
    if (end - head < 19 || memcmp(head, "HTTP/1.1 ", 9)) return 0;
    for (int i = 9; i < 12; i++)
        if (head[i] < '0' || head[i] > '9') return 0;
    client->http_status = (head[9] - '0') * 100 + (head[10] - '0') * 10 + (head[11] - '0');
    for (line = head; line[0] != '\r';) line++;
    for (line += 2; line < end - 2; line = stop + 2) {
        for (stop = line; stop < end - 1 && !(stop[0] == '\r' && stop[1] == '\n');) stop++;
        if (!parse_field(line, stop, length, &has_length, &to->json_bytes, &has_json, &to->keep)) return 0;
    }
    if (!has_length) return 0;
    if (!has_json) to->json_bytes = *length;
    if (to->json_bytes > *length) return 0;
    to->tensor_bytes = *length - to->json_bytes;
    return 1;
}

static const char *find_end(const char *start, size_t length) {
    for (size_t i = 0; i + 4 <= length; i++)
        if (!memcmp(start + i, "\r\n\r\n", 4)) return start + i + 4;
    return NULL;
}

/* Head and JSON, which must fit the buffer. */
static int read_answer(epc_client *client, answer *to) {
    size_t have = 0, got, length = 0, head;
    const char *end = NULL;
    int status;
    while (end == NULL) {
        if (have == client->capacity) return EPC_ERR_BUFFER;
        if ((status = receive(client, client->buffer + have, client->capacity - have, &got))) return status;
        have += got;
        end = find_end(client->buffer, have);
    }
    if (!parse_head(client, client->buffer, end, &length, to)) return EPC_ERR_ANSWER;
    head = (size_t)(end - client->buffer);
    if (to->json_bytes > client->capacity - head) return EPC_ERR_BUFFER;
    while (have < head + to->json_bytes) {
        status = receive(client, client->buffer + have, head + to->json_bytes - have, &got);
        if (status) return status;
        have += got;
    }
    if (have - head > length) return EPC_ERR_ANSWER; /* more than one answer to one request */
    to->json = end;
    to->rest = end + to->json_bytes;
    to->rest_bytes = have - head - to->json_bytes;
    return EPC_OK;
}

static int read_tensor(epc_client *client, answer *from, char *data, size_t size) {
    size_t got = size < from->rest_bytes ? size : from->rest_bytes;
    int status;
    memcpy(data, from->rest, got);
    from->rest += got;
    from->rest_bytes -= got;
    for (data += got, size -= got; size; data += got, size -= got)
        if ((status = receive(client, data, size, &got))) return status;
    return EPC_OK;
}

/* ---- JSON: a cursor that never leaves what came --------------------------------------------- */

typedef struct cursor {
    const char *at, *end;
    int bad;
} cursor;

static char peek(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t')) c->at++;
    return c->at < c->end ? *c->at : '\0';
}

static int take(cursor *c, char wanted) {
    if (c->bad || peek(c) != wanted || c->at == c->end) return 0;
    c->at++;
    return 1;
}

/* A string as it is written, escapes and all. */
static void take_string(cursor *c, const char **start, size_t *length) {
    *start = "";
    *length = 0;
    if (!take(c, '"')) {
        c->bad = 1;
        return;
    }
    *start = c->at;
    while (c->at < c->end && *c->at != '"') {
        c->at += *c->at == '\\' ? 2 : 1;
        if (c->at > c->end) c->at = c->end;
    }
    if (c->at == c->end)
        c->bad = 1;
    else
        *length = (size_t)(c->at++ - *start);
}

/* The next key of an object that was entered by take('{'); 0 at its end. */
static int next_key(cursor *c, int *first, const char **key, size_t *length) {
    if (c->bad || take(c, '}')) return 0;
    if (!*first && !take(c, ',')) c->bad = 1;
    *first = 0;
    take_string(c, key, length);
    if (!take(c, ':')) c->bad = 1;
    return !c->bad;
}

/* The same for an array that was entered by take('['). */
static int next_item(cursor *c, int *first) {
    if (c->bad || take(c, ']')) return 0;
    if (!*first && !take(c, ',')) c->bad = 1;
    *first = 0;
    return !c->bad;
}

static void skip(cursor *c, int depth) {
    const char *word;
    size_t length;
    int first = 1;
    if (depth > MAX_DEPTH) {
        c->bad = 1;
    } else if (take(c, '{')) {
        while (next_key(c, &first, &word, &length)) skip(c, depth + 1);
    } else if (take(c, '[')) {
        while (next_item(c, &first)) skip(c, depth + 1);
    } else if (peek(c) == '"') {
        take_string(c, &word, &length);
    } else {
        for (word = c->at; c->at < c->end && strchr("+-.0123456789Eaeflnrstu", *c->at) && *c->at;) c->at++;
        if (word == c->at) c->bad = 1;
    }
}

static int is(const char *word, size_t length, const char *expected) {
    return length == strlen(expected) && !memcmp(word, expected, length);
}

/* Copies as much as there is room for; what is not printable becomes a question mark. */
static void copy(char *to, size_t capacity, const char *from, size_t length) {
    size_t n = length < capacity - 1 ? length : capacity - 1;
    for (size_t i = 0; i < n; i++) to[i] = (unsigned char)from[i] < ' ' ? '?' : from[i];
    to[n] = '\0';
}

static void read_message(epc_client *client, const answer *from) {
    cursor c = {from->json, from->json + from->json_bytes, 0};
    const char *key, *value;
    size_t length;
    int first = 1;
    snprintf(client->message, sizeof client->message, "HTTP status %d", client->http_status);
    if (!take(&c, '{')) return;
    while (next_key(&c, &first, &key, &length)) {
        if (is(key, length, "error") && peek(&c) == '"') {
            take_string(&c, &value, &length);
            if (!c.bad) copy(client->message, sizeof client->message, value, length);
        } else {
            skip(&c, 0);
        }
    }
}

/* ---- one request and its answer ------------------------------------------------------------- */

/* Sends a request with this JSON (which lies in the buffer) and these tensors, and reads the answer. */
static int exchange(epc_client *client, const char *method, const char *path, const char *json,
                    size_t json_bytes, const epc_tensor *inputs, size_t num_inputs, answer *to) {
    char line[512]; /* paths are short: it always fits */
    text head = {line, 0, sizeof line, 0};
    outgoing out;
    size_t total = json_bytes;
    int status, cut, has_bytes = 0;
    out.count = 0;
    for (size_t i = 0; i < num_inputs; i++) {
        if (inputs[i].region) continue;
        has_bytes = 1;
        total += inputs[i].nbytes;
    }
    append(&head, method);
    append(&head, " ");
    append(&head, path);
    append(&head, " HTTP/1.1\r\nHost: localhost\r\nContent-Length: ");
    append_number(&head, total);
    if (has_bytes) {
        append(&head, "\r\nInference-Header-Content-Length: ");
        append_number(&head, json_bytes);
    }
    append(&head, "\r\n\r\n");
    status = add_piece(client, &out, line, head.length);
    if (!status) status = add_piece(client, &out, json, json_bytes);
    for (size_t i = 0; i < num_inputs && !status; i++)
        if (inputs[i].region == NULL) status = add_piece(client, &out, inputs[i].data, inputs[i].nbytes);
    if (!status) status = send_pieces(client, &out);
    /* Refused before it was read whole: the answer says why. */
    cut = status != EPC_OK;
    if (!status || status == EPC_ERR_CLOSED) status = read_answer(client, to);
    if (status) return lose(client, status);
    if (cut) to->keep = 0;
    if (client->http_status == 200) return EPC_OK;
    if (to->tensor_bytes) return lose(client, EPC_ERR_ANSWER);
    read_message(client, to);
    if (!to->keep) epc_close(client);
    return EPC_ERR_SERVER;
}

static int simple(epc_client *client, const char *method, const char *path, const char *json, answer *to) {
    int status;
    if (client->descriptor < 0) return EPC_ERR_CLOSED;
    status = exchange(client, method, path, json, strlen(json), NULL, 0, to);
    if (!status && to->tensor_bytes) return lose(client, EPC_ERR_ANSWER);
    if (!status && !to->keep) epc_close(client);
    return status;
}

int epc_ready(epc_client *client, const char *model) {
    char path[128] = "/v2/health/ready";
    answer got;
    if (client == NULL || (model && !is_model_name(model))) return EPC_ERR_ARGUMENT;
    if (model) snprintf(path, sizeof path, "/v2/models/%s/ready", model);
    return simple(client, "GET", path, "", &got);
}

static void read_model(cursor *c, epc_model *model) {
    const char *key, *value;
    size_t length, size;
    int first = 1;
    memset(model, 0, sizeof *model);
    if (!take(c, '{')) c->bad = 1;
    while (next_key(c, &first, &key, &length)) {
        if (peek(c) != '"') {
            skip(c, 0);
            continue;
        }
        take_string(c, &value, &size);
        if (is(key, length, "name")) copy(model->name, sizeof model->name, value, size);
        if (is(key, length, "version")) copy(model->version, sizeof model->version, value, size);
        if (is(key, length, "state")) model->ready = is(value, size, "READY");
    }
}

int epc_list(epc_client *client, epc_model models[], size_t capacity, size_t *count) {
    answer got;
    cursor c = {0};
    epc_model model;
    int first = 1, status;
    if (client == NULL || count == NULL || (capacity && models == NULL)) return EPC_ERR_ARGUMENT;
    *count = 0;
    if ((status = simple(client, "POST", "/v2/repository/index", "{}", &got))) return status;
    c.at = got.json;
    c.end = got.json + got.json_bytes;
    if (!take(&c, '[')) c.bad = 1;
    while (next_item(&c, &first)) {
        read_model(&c, &model);
        if (*count < capacity) models[*count] = model;
        ++*count;
    }
    return c.bad || peek(&c) ? lose(client, EPC_ERR_ANSWER) : EPC_OK;
}

/* ---- inference ------------------------------------------------------------------------------ */

/* One of the answer's outputs: it must be the tensor that was asked for. */
static void read_output(cursor *c, const epc_tensor *wanted) {
    const char *key, *value;
    size_t length, size;
    int first = 1, has_name = 0, has_type = 0;
    if (!take(c, '{')) c->bad = 1;
    while (next_key(c, &first, &key, &length)) {
        if (is(key, length, "name")) {
            take_string(c, &value, &size);
            /* A name with escapes is compared by its place alone. */
            has_name = is(value, size, wanted->name) || memchr(value, '\\', size) != NULL;
        } else if (is(key, length, "datatype")) {
            take_string(c, &value, &size);
            has_type = is(value, size, datatypes[wanted->dtype]);
        } else {
            if (is(key, length, "data")) c->bad = 1; /* JSON where bytes were asked for */
            skip(c, 0);
        }
    }
    if (!has_name || !has_type) c->bad = 1;
}

static int check_outputs(const answer *got, const epc_tensor outputs[], size_t num_outputs) {
    cursor c = {got->json, got->json + got->json_bytes, 0};
    const char *key;
    size_t length, n = 0, expected = 0;
    int first = 1, first_item = 1;
    if (!take(&c, '{')) return 0;
    while (next_key(&c, &first, &key, &length)) {
        if (!is(key, length, "outputs") || n) {
            skip(&c, 0);
            continue;
        }
        if (!take(&c, '[')) return 0;
        while (next_item(&c, &first_item)) {
            if (n == num_outputs) return 0;
            read_output(&c, &outputs[n++]);
        }
    }
    for (size_t i = 0; i < num_outputs; i++) expected += outputs[i].region ? 0 : outputs[i].nbytes;
    return !c.bad && !peek(&c) && n == num_outputs && got->tensor_bytes == expected;
}

int epc_infer(epc_client *client, const char *model, const epc_tensor inputs[], size_t num_inputs,
              const epc_tensor outputs[], size_t num_outputs) {
    char path[128];
    text json;
    answer got;
    int status;
    if (client == NULL || model == NULL || !is_model_name(model)) return EPC_ERR_ARGUMENT;
    if (!num_inputs || !num_outputs || inputs == NULL || outputs == NULL) return EPC_ERR_ARGUMENT;
    for (size_t i = 0; i < num_inputs; i++)
        if (!is_tensor(&inputs[i], 1)) return EPC_ERR_ARGUMENT;
    for (size_t i = 0; i < num_outputs; i++)
        if (!is_tensor(&outputs[i], 0)) return EPC_ERR_ARGUMENT;
    if (client->descriptor < 0) return EPC_ERR_CLOSED;
    json = (text){client->buffer, 0, client->capacity, 0};
    append(&json, "{\"inputs\":[");
    for (size_t i = 0; i < num_inputs; i++) {
        if (i) append(&json, ",");
        append_input(&json, &inputs[i]);
    }
    append(&json, "],\"outputs\":[");
    for (size_t i = 0; i < num_outputs; i++) {
        if (i) append(&json, ",");
        append_output(&json, &outputs[i]);
    }
    append(&json, "]}");
    if (json.overflow) return EPC_ERR_BUFFER;
    snprintf(path, sizeof path, "/v2/models/%s/infer", model);
    status = exchange(client, "POST", path, json.start, json.length, inputs, num_inputs, &got);
    if (status) return status;
    if (!check_outputs(&got, outputs, num_outputs)) return lose(client, EPC_ERR_ANSWER);
    for (size_t i = 0; i < num_outputs; i++)
        if (outputs[i].region == NULL &&
            (status = read_tensor(client, &got, outputs[i].data, outputs[i].nbytes)))
            return lose(client, status);
    if (!got.keep) epc_close(client);
    return EPC_OK;
}

/* ---- shared memory -------------------------------------------------------------------------- */

int epc_region_create(epc_client *client, epc_region *region, size_t nbytes) {
    static unsigned count;
    char path[128], json[160];
    struct timespec now;
    answer got;
    int descriptor, status;
    if (client == NULL || region == NULL || nbytes == 0) return EPC_ERR_ARGUMENT;
    memset(region, 0, sizeof *region);
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(region->name, sizeof region->name, "edgepack-c-%ld-%lx-%u", (long)getpid(), (long)now.tv_nsec,
             count++);
    snprintf(path, sizeof path, "/dev/shm/%s", region->name);
    descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0660);
    if (descriptor < 0) return EPC_ERR_SYSTEM;
    /* Reserved, not only promised: writing into a full /dev/shm would end the process. */
    if ((errno = posix_fallocate(descriptor, 0, (off_t)nbytes)) == 0)
        region->memory = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (errno || region->memory == MAP_FAILED) {
        region->memory = NULL;
        unlink(path);
        return EPC_ERR_SYSTEM;
    }
    region->nbytes = nbytes;
    snprintf(json, sizeof json, "{\"key\":\"/%s\",\"offset\":0,\"byte_size\":%zu}", region->name, nbytes);
    snprintf(path, sizeof path, "/v2/systemsharedmemory/region/%s/register", region->name);
    status = simple(client, "POST", path, json, &got);
    /* The agent has it open: without a name it goes when both are done with it. */
    snprintf(path, sizeof path, "/dev/shm/%s", region->name);
    unlink(path);
    if (status) {
        munmap(region->memory, nbytes);
        memset(region, 0, sizeof *region);
    }
    return status;
}

void epc_region_destroy(epc_client *client, epc_region *region) {
    char path[128];
    answer got;
    if (client == NULL || region == NULL || region->memory == NULL) return;
    snprintf(path, sizeof path, "/v2/systemsharedmemory/region/%s/unregister", region->name);
    if (client->descriptor >= 0) (void)simple(client, "POST", path, "{}", &got);
    munmap(region->memory, region->nbytes);
    memset(region, 0, sizeof *region);
}
