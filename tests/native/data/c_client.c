/* c_client.c - an application that asks the fake model of fake_model.c through edgepack_client.h.
 *
 *   c_client SOCKET ask        readiness, the list, an inference by bytes, one by shared memory, refusals
 *   c_client SOCKET infer N    N times connect and infer; prints each status
 */
#include "edgepack_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char buffer[EPC_MIN_BUFFER];
static const int64_t shape[] = {2, 2};
static float x[4] = {1, 2, 3, 4}, y[4];
static int64_t calls[2];

static epc_tensor floats(const char *name, float *data, const epc_region *region) {
    epc_tensor tensor = {name, EPC_FLOAT32, 2, shape, data, 4 * sizeof *data, region};
    return tensor;
}

static void show(const char *what, int status, const float *values) {
    printf("%s %d", what, status);
    if (!status)
        for (int i = 0; i < 4; i++) printf(" %g", values[i]);
    printf("\n");
}

static int ask(epc_client *client) {
    epc_model models[1];
    epc_region region;
    size_t count;
    epc_tensor in = floats("x", x, NULL), out[2] = {{"calls", EPC_INT64, 0, NULL, calls, 16, NULL}};
    out[1] = floats("y", y, NULL);

    printf("ready %d %d\n", epc_ready(client, NULL), epc_ready(client, "m"));
    printf("list %d", epc_list(client, models, 1, &count));
    printf(" %zu %s %s %d\n", count, models[0].name, models[0].version, models[0].ready);
    show("bytes", epc_infer(client, "m", &in, 1, out, 2), y);
    printf("calls %d %d\n", (int)calls[0], (int)calls[1]);

    printf("region %d\n", epc_region_create(client, &region, 4096));
    if (region.memory == NULL) return 1;
    for (int i = 0; i < 2; i++) {
        float *shared = region.memory;
        epc_tensor shared_in = floats("x", shared, &region), shared_out = floats("y", shared + 16, &region);
        for (int j = 0; j < 4; j++) shared[j] = (float)(10 * (i + 1) + j);
        show("shared", epc_infer(client, "m", &shared_in, 1, &shared_out, 1), shared + 16);
    }
    in.data = (char *)region.memory + 4090;
    in.region = &region;
    show("outside", epc_infer(client, "m", &in, 1, out, 2), y);
    epc_region_destroy(client, &region);

    in = floats("z", x, NULL);
    printf("refused %d", epc_infer(client, "m", &in, 1, out, 2));
    printf(" %d %s\n", client->http_status, client->message);
    printf("missing %d", epc_ready(client, "nobody"));
    printf(" %d\n", client->http_status);
    printf("path %d\n", epc_ready(client, "../m"));
    in = floats("x", x, NULL);
    show("again", epc_infer(client, "m", &in, 1, &out[1], 1), y);
    epc_close(client);
    printf("closed %d\n", epc_ready(client, NULL));
    return 0;
}

int main(int argc, char **argv) {
    epc_client client;
    int status;
    if (argc == 3) {
        status = epc_connect(&client, argv[1], 30000, buffer, sizeof buffer);
        printf("connect %d\n", status);
        return status ? 1 : ask(&client);
    }
    for (int i = 0; argc == 4 && i < atoi(argv[3]); i++) {
        epc_tensor in = floats("x", x, NULL), out = floats("y", y, NULL);
        status = epc_connect(&client, argv[1], 30000, buffer, sizeof buffer);
        if (!status) status = epc_infer(&client, "m", &in, 1, &out, 1);
        printf("%d\n", status);
        epc_close(&client);
    }
    return 0;
}
