/* evil_worker.c - a worker that was built to do harm: it speaks the protocol, never confines itself, and
 * tries with each run what x[0] orders. y = {1 where it succeeded, else 0; errno; ...}.
 * Its model is that of fake_model.c; its weights are the path of the device's ROOT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct message {
    uint32_t magic;
    int32_t word; /* operation, or status */
    uint64_t value;
};

static char root[4096];

static const char *below(const char *name) {
    static char path[8192];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static int opens(const char *path, int flags) {
    const int fd = open(path, flags, 0666);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

/* A socket, and what one does with it. */
static int listens(int kind) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int fd = socket(AF_INET, kind, 0);
    const int done = fd >= 0 && !bind(fd, (void *)&address, sizeof address);
    if (fd >= 0) close(fd);
    return done;
}

static int connects(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return 0;
    strncpy(address.sun_path, below("run/agent.sock"), sizeof address.sun_path - 1);
    const int done = !connect(fd, (void *)&address, sizeof address);
    close(fd);
    return done;
}

static int forks(void) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    return child > 0 && waitpid(child, NULL, 0) == child;
}

static int reads_parent(void) {
    char byte;
    struct iovec own = {&byte, 1}, other = {(void *)environ, 1};
    /* An address that is not mapped there is an answer too: it was looked for. */
    return process_vm_readv(getppid(), &own, 1, &other, 1, 0) == 1 || errno == EFAULT;
}

static int sends_descriptor(void) {
    char space[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
    return sendmsg(0, &message, MSG_DONTWAIT) == 1;
}

static int closes_and_makes(int fd) { return fd >= 0 && !close(fd); }

/* Touches up to 512 MiB, piece by piece, and gives them back. */
static int fills_memory(float *megabytes) {
    enum { PIECE = 4 << 20, PIECES = 128 };
    void *pieces[PIECES];
    int count = 0;
    while (count < PIECES) {
        pieces[count] = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pieces[count] == MAP_FAILED) break;
        memset(pieces[count++], 1, PIECE);
    }
    *megabytes = 4.0f * count;
    const int cause = errno;
    for (int i = 0; i < count; i++) munmap(pieces[i], PIECE);
    errno = cause;
    return count == PIECES;
}

static int attempt(int order, float *y) {
    char *const words[] = {"sh", "-c", "exit 0", NULL}, *const none[] = {NULL};
    static char noise[4096];
    cpu_set_t cpus;
    CPU_ZERO(&cpus), CPU_SET(0, &cpus);
    switch (order) {
    case 1: return opens("/etc/passwd", O_RDONLY);
    case 2: return opens("/tmp/edgepack-evil", O_WRONLY | O_CREAT);
    case 3: return opens(below("evil"), O_WRONLY | O_CREAT);
    case 4: return opens("/proc/self/fd/4", O_RDWR);    /* its weights */
    case 5: return !chmod("/proc/self/exe", 0777);      /* its own blob */
    case 6: return !unlink(below("victim"));
    case 7: return !mkdir(below("evil.d"), 0777);
    case 8: return listens(SOCK_STREAM);
    case 9: return listens(SOCK_DGRAM);
    case 10: return connects();
    case 11: return forks();
    case 12: return execve("/bin/sh", words, none) == 0;
    case 13: return syscall(SYS_execveat, AT_FDCWD, "/bin/sh", words, none, AT_EMPTY_PATH) == 0;
    case 14: return !kill(getppid(), 0);
    case 15: return !kill(-1, 0);
    case 16: return !ptrace(PTRACE_SEIZE, getppid(), 0, 0);
    case 17: return reads_parent();
    case 18: return !sched_setaffinity(getppid(), sizeof cpus, &cpus);
    case 19: return !prlimit(getppid(), RLIMIT_CORE, &(struct rlimit){0, 0}, NULL);
    case 20: return closes_and_makes(memfd_create("evil", 0));
    case 21: return !unshare(CLONE_NEWNET);
    case 22: return !mount("none", "/mnt", "tmpfs", 0, NULL) && !umount("/mnt");
    case 23: return !shmctl(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), IPC_RMID, NULL);
    case 24: return closes_and_makes((int)syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &(uint64_t[3]){0}, 24));
    case 25: return !fcntl(0, F_SETOWN, getppid());
    case 26: return !ioctl(0, FIONREAD, &(int){0});
    case 27: return sends_descriptor();
    case 28: return !access("/etc/passwd", F_OK);
    case 29: return !setpriority(PRIO_PROCESS, 0, -5);
    case 30: return fills_memory(&y[2]);
    case 31: /* succeeds everywhere; the test looks where it went */
        for (int i = 0; i < 1024; i++)
            if (write(2, noise, sizeof noise) != sizeof noise) return 0;
        return 1;
    case 32: /* dies of what it cannot get */
        for (;;) {
            static char *volatile piece; /* which no compiler takes for unused */
            piece = malloc(1 << 20);
            if (!piece) abort();
            memset(piece, 1, 1 << 20);
        }
    }
    errno = ENOSYS;
    return 1;
}

int main(int argc, char **argv) {
    struct message in, out = {0x31575045, 0, 1 << 20};
    if (argc != 4 || strncmp(argv[2], "fd:", 3) || strncmp(argv[3], "fd:", 3)) return 1;
    if (pread(atoi(argv[2] + 3), root, sizeof root - 1, 0) < 1) return 1;
    char *shm = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[3] + 3), 0);
    if (shm == MAP_FAILED || write(1, &out, sizeof out) != sizeof out) return 1;
    while (read(0, &in, sizeof in) == sizeof in) {
        float *y = (float *)(shm + 64);
        errno = 0;
        y[0] = (float)attempt((int)*(float *)shm, y);
        y[1] = (float)errno;
        if (write(1, &out, sizeof out) != sizeof out) return 1;
    }
    return 0;
}
