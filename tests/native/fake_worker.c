/* A fake worker: speaks the worker's protocol, but computes nothing that was compiled.
 *
 * Its model is that of tests/package_samples.py: x (3 floats) -> y = {x[0], -x[0]}, label = x[0].
 * The first word of the weights file says how it behaves, so that a test chooses by the weights.
 */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct message {
    uint32_t magic;
    int32_t word; /* operation, or status */
    uint64_t value;
};

static int starts(const char *text, const char *word) { return strncmp(text, word, strlen(word)) == 0; }

int main(int argc, char **argv) {
    const uint32_t magic = 0x31575045;
    struct message in, out = {magic, 0, 1 << 20};
    char mode[64] = "";
    int weights, shared;
    char *shm;

    if (argc != 4 || strcmp(argv[1], "serve") || strncmp(argv[3], "fd:", 3)) return 1;
    weights = strncmp(argv[2], "fd:", 3) ? open(argv[2], O_RDONLY) : atoi(argv[2] + 3);
    if (weights < 0 || read(weights, mode, sizeof mode - 1) < 0) return 1;
    shared = atoi(argv[3] + 3);
    shm = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (shm == MAP_FAILED) return 1;

    if (starts(mode, "leaves")) return 7;
    if (starts(mode, "roams") && (open("/etc/passwd", O_RDONLY) >= 0 || fork() >= 0)) return 9;
    if (starts(mode, "garbles")) out.magic = 0;
    if (starts(mode, "starves")) out.word = -2; /* EP_ERR_MEMORY */
    if (write(1, &out, sizeof out) != sizeof out || out.word) return 1;
    while (read(0, &in, sizeof in) == sizeof in) {
        const float *x = (const float *)shm;
        float *y = (float *)(shm + 64);
        int64_t *label = (int64_t *)(shm + 128);
        if (in.magic != magic || in.word != 1) return 1;
        if (starts(mode, "crashes")) raise(SIGSEGV);
        if (starts(mode, "illegal")) raise(SIGILL);
        if (!starts(mode, "writes nothing")) {
            y[0] = starts(mode, "nan") ? NAN : x[0];
            y[1] = starts(mode, "wrong") ? x[0] : -x[0];
            *label = (int64_t)x[0] + starts(mode, "off by one");
        }
        if (starts(mode, "constant")) y[0] = y[1] = 0, *label = 0;
        out.word = starts(mode, "fails") ? -5 : 0; /* EP_ERR_KERNEL */
        out.value = 1000;
        if (write(1, &out, sizeof out) != sizeof out) return 1;
    }
    return 0;
}
