/* worker_load.c - runs a model through its worker alone, without the agent, as often as it can.
 *
 *   worker_load WORKER WEIGHTS SHARED_BYTES SECONDS
 *
 * The memory shared with the worker is zeros. Prints the median of a run in microseconds. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_TIMES (1 << 21)

typedef struct {
    uint32_t magic;
    int32_t word; /* operation, or status */
    uint64_t value;
} message;

static double times[MAX_TIMES];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int start(char *worker, char *weights, off_t bytes) {
    int ends[2], memory = memfd_create("worker_load", 0);
    char shared[16];
    if (memory < 0 || ftruncate(memory, bytes) || socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) exit(1);
    snprintf(shared, sizeof shared, "fd:%d", memory);
    if (fork() == 0) {
        close(ends[1]);
        dup2(ends[0], 0);
        dup2(ends[0], 1);
        execl(worker, "worker", "serve", weights, shared, (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    return ends[1];
}

int main(int argc, char **argv) {
    const message run = {0x31575045, 1, 0};
    message answer;
    size_t count = 0;
    if (argc != 5) return 2;
    int worker = start(argv[1], argv[2], atol(argv[3]));
    if (read(worker, &answer, sizeof answer) != sizeof answer || answer.word) return 1;
    for (double began = now(), end = began + atof(argv[4]) * 1e6; began < end && count < MAX_TIMES;) {
        if (write(worker, &run, sizeof run) != sizeof run) return 1;
        if (read(worker, &answer, sizeof answer) != sizeof answer || answer.word) return 1;
        double ended = now();
        times[count++] = ended - began;
        began = ended;
    }
    qsort(times, count, sizeof *times, compare);
    printf("%.2f\n", times[count / 2]);
    return 0;
}
