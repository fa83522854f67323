/* agent_load.c - asks the agent for inferences as fast as it answers, and tells how long answers took.
 *
 *   agent_load SOCKET MODEL bytes|shared CLIENTS SECONDS INPUT OUTPUT
 *
 * INPUT and OUTPUT are NAME:BYTES:EXTENTxEXTENT..., float32. Each client is a thread with a connection of its
 * own that it keeps, by edgepack_client.h. Prints one line of JSON: requests, seconds and microseconds. */
#include "edgepack_client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_CLIENTS 32
#define MAX_TIMES (1 << 21)
#define PAGE 4096

typedef struct {
    char name[128];
    size_t nbytes;
    int64_t shape[8];
    int ndim;
} tensor;

typedef struct {
    pthread_t thread;
    double *times; /* microseconds */
    size_t count;
    int status;
} asker;

static const char *path, *model;
static int shared;
static double seconds;
static tensor input, output;
static asker askers[MAX_CLIENTS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static tensor parsed(char *text) {
    tensor it = {.ndim = 0};
    char *bytes = strchr(text, ':'), *extents = bytes ? strchr(bytes + 1, ':') : NULL;
    if (!extents || (size_t)(bytes - text) >= sizeof it.name) exit(2);
    memcpy(it.name, text, (size_t)(bytes - text));
    it.nbytes = strtoull(bytes + 1, NULL, 10);
    for (char *at = extents + 1; *at && it.ndim < 8; at += *at == 'x') it.shape[it.ndim++] = strtoll(at, &at, 10);
    return it;
}

static void *work(void *argument) {
    asker *self = argument;
    static char buffers[MAX_CLIENTS][4 * EPC_MIN_BUFFER];
    epc_client client;
    epc_region region;
    size_t out_at = (input.nbytes + PAGE - 1) / PAGE * PAGE;
    char *memory = calloc(1, out_at + output.nbytes);
    self->status = epc_connect(&client, path, 30000, buffers[self - askers], sizeof *buffers);
    if (!self->status && shared) {
        self->status = epc_region_create(&client, &region, out_at + output.nbytes);
        if (!self->status) memory = region.memory;
    }
    epc_tensor in = {input.name, EPC_FLOAT32, input.ndim, input.shape, memory, input.nbytes, shared ? &region : NULL};
    epc_tensor out = {output.name, EPC_FLOAT32, 0, NULL, memory + out_at, output.nbytes, shared ? &region : NULL};
    for (double began = now(), end = began + seconds * 1e6; !self->status && began < end && self->count < MAX_TIMES;) {
        self->status = epc_infer(&client, model, &in, 1, &out, 1);
        double ended = now();
        self->times[self->count++] = ended - began;
        began = ended;
    }
    if (self->status) fprintf(stderr, "%s: %s\n", epc_strerror(self->status), client.message);
    if (!self->status && shared) epc_region_destroy(&client, &region);
    epc_close(&client);
    return NULL;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    size_t total = 0;
    int clients;
    if (argc != 8 || (clients = atoi(argv[4])) < 1 || clients > MAX_CLIENTS) return 2;
    path = argv[1], model = argv[2], shared = !strcmp(argv[3], "shared"), seconds = atof(argv[5]);
    input = parsed(argv[6]), output = parsed(argv[7]);
    double began = now();
    for (int i = 0; i < clients; i++) {
        askers[i].times = malloc(MAX_TIMES * sizeof(double));
        if (!askers[i].times || pthread_create(&askers[i].thread, NULL, work, &askers[i])) return 1;
    }
    for (int i = 0; i < clients; i++) {
        pthread_join(askers[i].thread, NULL);
        if (askers[i].status) return 1;
        total += askers[i].count;
    }
    double took = (now() - began) / 1e6, *all = malloc(total * sizeof *all);
    for (int i = 0, at = 0; i < clients; at += (int)askers[i++].count)
        memcpy(all + at, askers[i].times, askers[i].count * sizeof *all);
    qsort(all, total, sizeof *all, compare);
    printf("{\"requests\": %zu, \"seconds\": %.3f, \"median\": %.2f, \"p99\": %.2f}\n", total, took, all[total / 2],
           all[total * 99 / 100]);
    return 0;
}
