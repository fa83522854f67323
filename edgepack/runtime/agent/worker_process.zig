//! One running worker: a child process, a socket for requests, a pipe for replies, shared memory.
//!
//! The protocol and the layout are those of worker/serve.zig and model_info.zig. The child gets stdin,
//! stdout, our stderr and the shared memory as descriptor 3, an empty environment, and nothing else.
//! Every wait is bounded by the caller's deadline; a worker that misses it is killed.
//!
//! A WorkerProcess is for one thread at a time. stop() reaps the child: no zombie stays.

const std = @import("std");
const clock = @import("clock.zig");
const linux = std.os.linux;
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const worker_exit = @import("worker_exit.zig");

const magic: u32 = 0x31575045; // "EPW1"
const operation_run: u32 = 1;
const shared_fd = 3; // in the child
const Reply = extern struct { magic: u32, status: i32, value: u64 };
const Request = extern struct { magic: u32, operation: u32, zero: u64 };

pub const WorkerProcess = struct {
    /// Inputs and outputs, at the offsets that ModelInfo gives.
    shm: []align(std.heap.page_size_min) u8,
    pid: linux.pid_t,
    requests: linux.fd_t,
    replies: linux.fd_t,
    /// False once it died or was killed; run() then refuses until a new one is started.
    alive: bool = true,
    /// What the worker said it needs, in bytes.
    memory_bytes: u64 = 0,

    /// Starts `worker_path serve weights_path` and waits until it is ready.
    pub fn start(
        refusal: *Refusal,
        worker_path: []const u8,
        weights_path: []const u8,
        info: *const ModelInfo,
        deadline_ms: u32,
    ) refusals.Error!WorkerProcess {
        const shared = openShared(info.shm_bytes) orelse
            return refusal.because(.worker, "no shared memory of {d} bytes", .{info.shm_bytes});
        defer closeFd(shared);
        const address = linux.mmap(null, info.shm_bytes, .{ .READ = true, .WRITE = true }, .{ .TYPE = .SHARED }, shared, 0);
        if (failed(address)) return refusal.because(.worker, "cannot map {d} bytes of shared memory", .{info.shm_bytes});
        const shm: [*]align(std.heap.page_size_min) u8 = @ptrFromInt(address);
        errdefer _ = linux.munmap(shm, info.shm_bytes);

        var process = try spawn(refusal, worker_path, weights_path, shared);
        process.shm = shm[0..info.shm_bytes];
        errdefer process.kill();
        const ready = process.readReply(deadline_ms) catch |err|
            return process.refuseDead(refusal, "did not start", err, deadline_ms);
        if (ready.status != 0) {
            return refusal.because(.worker, "the worker did not start: {s} ({d})", .{ worker_exit.statusText(ready.status), ready.status });
        }
        process.memory_bytes = ready.value;
        return process;
    }

    /// Runs the model on what lies in `shm`; the time it took in nanoseconds, by the worker's clock.
    /// After a refusal `alive` tells a model that failed from a worker that is gone.
    pub fn run(self: *WorkerProcess, refusal: *Refusal, deadline_ms: u32) refusals.Error!u64 {
        if (!self.alive) return refusal.because(.worker, "the worker is not running", .{});
        const request: Request = .{ .magic = magic, .operation = operation_run, .zero = 0 };
        // A worker that died is an error here, not a SIGPIPE.
        const sent = linux.sendto(self.requests, std.mem.asBytes(&request), @sizeOf(Request), linux.MSG.NOSIGNAL, null, 0);
        if (sent != @sizeOf(Request)) return self.refuseDead(refusal, "died", error.Died, 0);
        const reply = self.readReply(deadline_ms) catch |err|
            return self.refuseDead(refusal, "did not answer", err, deadline_ms);
        if (reply.status != 0) {
            return refusal.because(.worker, "the model failed: {s} ({d})", .{ worker_exit.statusText(reply.status), reply.status });
        }
        return reply.value;
    }

    /// Whether it is still there, without asking it; a worker that died meanwhile is reaped.
    pub fn checkAlive(self: *WorkerProcess) bool {
        if (!self.alive) return false;
        var status: u32 = 0;
        if (linux.waitpid(self.pid, @ptrCast(&status), linux.W.NOHANG) == 0) return true;
        self.alive = false;
        return false;
    }

    /// Kills it if it is still there, reaps it, and gives back everything start() took.
    pub fn stop(self: *WorkerProcess) void {
        self.kill();
        _ = linux.munmap(self.shm.ptr, self.shm.len);
        self.* = undefined;
    }

    /// The status that wait4 gave, or null where an earlier check already reaped it.
    fn reap(self: *WorkerProcess) ?u32 {
        if (!self.alive) return null;
        self.alive = false;
        // A child that is already gone keeps its own status; only one that hangs gets this signal.
        _ = linux.kill(self.pid, .KILL);
        var status: u32 = 0;
        while (linux.errno(linux.waitpid(self.pid, @ptrCast(&status), 0)) == .INTR) {}
        return status;
    }

    fn kill(self: *WorkerProcess) void {
        _ = self.reap();
        closeFd(self.requests);
        closeFd(self.replies);
        self.requests = -1;
        self.replies = -1;
    }

    fn refuseDead(self: *WorkerProcess, refusal: *Refusal, what: []const u8, err: ReplyError, deadline_ms: u32) error{Refused} {
        const status = self.reap();
        return switch (err) {
            error.Late => refusal.because(.worker, "the worker {s} within {d} ms and was killed", .{ what, deadline_ms }),
            error.Garbled => refusal.because(.worker, "the worker {s}: it speaks another protocol", .{what}),
            error.Died => {
                var buffer: [128]u8 = undefined;
                return refusal.because(.worker, "the worker {s}: {s}", .{ what, worker_exit.describe(&buffer, status) });
            },
        };
    }

    const ReplyError = error{ Died, Late, Garbled };

    fn readReply(self: *WorkerProcess, deadline_ms: u32) ReplyError!Reply {
        const deadline = clock.milliseconds() + deadline_ms;
        var reply: Reply = undefined;
        const bytes = std.mem.asBytes(&reply);
        var filled: usize = 0;
        while (filled < bytes.len) {
            var fds = [_]linux.pollfd{.{ .fd = self.replies, .events = linux.POLL.IN, .revents = 0 }};
            if (!clock.poll(&fds, deadline)) return error.Late;
            const count = linux.read(self.replies, bytes.ptr + filled, bytes.len - filled);
            switch (linux.errno(count)) {
                .SUCCESS => if (count == 0) return error.Died,
                .INTR => continue,
                else => return error.Died,
            }
            filled += count;
        }
        return if (reply.magic == magic) reply else error.Garbled;
    }
};

fn spawn(refusal: *Refusal, worker_path: []const u8, weights_path: []const u8, shared: linux.fd_t) error{Refused}!WorkerProcess {
    var worker_buffer: [linux.PATH_MAX]u8 = undefined;
    var weights_buffer: [linux.PATH_MAX]u8 = undefined;
    const worker = terminated(&worker_buffer, worker_path) orelse return refusal.because(.worker, "a path too long", .{});
    const weights = terminated(&weights_buffer, weights_path) orelse return refusal.because(.worker, "a path too long", .{});

    const requests = openPair(.socket) orelse return refusal.because(.worker, "no pipe for the worker", .{});
    defer closeFd(requests.read);
    errdefer closeFd(requests.write);
    const replies = openPair(.pipe) orelse return refusal.because(.worker, "no pipe for the worker", .{});
    defer closeFd(replies.write);
    errdefer closeFd(replies.read);
    // Carries the errno of a failed exec; a successful one closes it.
    const trouble = openPair(.pipe) orelse return refusal.because(.worker, "no pipe for the worker", .{});
    defer closeFd(trouble.read);

    const pid = linux.fork();
    if (pid == 0) becomeWorker(worker, weights, requests.read, replies.write, shared, trouble.write);
    closeFd(trouble.write);
    if (failed(pid)) return refusal.because(.worker, "cannot fork: {t}", .{linux.errno(pid)});

    var process: WorkerProcess = .{ .shm = undefined, .pid = @intCast(pid), .requests = requests.write, .replies = replies.read };
    var code: u32 = 0;
    var count = linux.read(trouble.read, std.mem.asBytes(&code), @sizeOf(u32));
    while (linux.errno(count) == .INTR) count = linux.read(trouble.read, std.mem.asBytes(&code), @sizeOf(u32));
    if (count != @sizeOf(u32)) return process;
    _ = process.reap();
    const cause: linux.E = @fromBackingInt(@intCast(code));
    return refusal.because(.worker, "cannot execute the worker: {t}{s}", .{
        cause, if (cause == .NOEXEC) " (built for another CPU architecture?)" else "",
    });
}

/// In the child, between fork and exec: system calls only, no lock, no allocator, no way back.
fn becomeWorker(
    worker: [*:0]const u8,
    weights: [*:0]const u8,
    stdin: linux.fd_t,
    stdout: linux.fd_t,
    shared: linux.fd_t,
    trouble: linux.fd_t,
) noreturn {
    const argv = [_:null]?[*:0]const u8{ "worker", "serve", weights, "fd:3" };
    const envp = [_:null]?[*:0]const u8{};
    // Ctrl-C and a service manager signal whole groups; a worker leaves when we say so, after the
    // requests in flight. SIGKILL and the end of its stdin remain.
    var blocked = linux.sigemptyset();
    for ([_]linux.SIG{ .INT, .TERM, .HUP, .QUIT }) |signal| linux.sigaddset(&blocked, signal);
    _ = linux.sigprocmask(linux.SIG.SETMASK, &blocked, null);
    // openPair and openShared keep clear of 0 to 3, so none of these overwrites another.
    const moved = !failed(linux.dup2(stdin, 0)) and !failed(linux.dup2(stdout, 1)) and !failed(linux.dup2(shared, shared_fd));
    const code: u32 = if (moved) @backingInt(linux.errno(linux.execve(worker, &argv, &envp))) else @backingInt(linux.E.BADF);
    _ = linux.write(trouble, std.mem.asBytes(&code), @sizeOf(u32));
    linux.exit_group(127);
}

const Pair = struct { read: linux.fd_t, write: linux.fd_t };

fn openPair(kind: enum { pipe, socket }) ?Pair {
    var fds: [2]linux.fd_t = undefined;
    if (failed(switch (kind) {
        .pipe => linux.pipe2(&fds, .{ .CLOEXEC = true }),
        .socket => linux.socketpair(linux.AF.UNIX, linux.SOCK.STREAM | linux.SOCK.CLOEXEC, 0, &fds),
    })) return null;
    const read = aboveStandard(fds[0]);
    const write = aboveStandard(fds[1]);
    if (read != null and write != null) return .{ .read = read.?, .write = write.? };
    if (read) |fd| closeFd(fd);
    if (write) |fd| closeFd(fd);
    return null;
}

/// Memory of its own, that nobody can open by a name, and that the child cannot shrink under us.
fn openShared(bytes: usize) ?linux.fd_t {
    const made = linux.memfd_create("edgepack", linux.MFD.CLOEXEC | linux.MFD.ALLOW_SEALING);
    const fd = aboveStandard(if (failed(made)) openUnlinked() orelse return null else @intCast(made)) orelse return null;
    if (failed(linux.ftruncate(fd, @intCast(bytes)))) {
        closeFd(fd);
        return null;
    }
    _ = linux.fcntl(fd, linux.F.ADD_SEALS, linux.F.SEAL_SHRINK | linux.F.SEAL_GROW | linux.F.SEAL_SEAL);
    return fd;
}

/// For kernels before 3.17: a file in memory without a name.
fn openUnlinked() ?linux.fd_t {
    var path_buffer: [64]u8 = undefined;
    for (0..16) |_| {
        var random: u64 = 0;
        _ = linux.getrandom(std.mem.asBytes(&random), @sizeOf(u64), 0);
        const path = std.fmt.bufPrintSentinel(&path_buffer, "/dev/shm/edgepack.{x}", .{random}, 0) catch unreachable;
        const fd = linux.open(path, .{ .ACCMODE = .RDWR, .CREAT = true, .EXCL = true, .CLOEXEC = true }, 0o600);
        if (linux.errno(fd) == .EXIST) continue;
        if (failed(fd)) return null;
        _ = linux.unlink(path);
        return @intCast(fd);
    }
    return null;
}

/// The same file under a number that the child's 0 to 3 cannot collide with.
fn aboveStandard(fd: linux.fd_t) ?linux.fd_t {
    defer closeFd(fd);
    const result = linux.fcntl(fd, linux.F.DUPFD_CLOEXEC, 10);
    return if (failed(result)) null else @intCast(result);
}

fn terminated(buffer: *[linux.PATH_MAX]u8, path: []const u8) ?[*:0]const u8 {
    if (path.len >= buffer.len or std.mem.findScalar(u8, path, 0) != null) return null;
    @memcpy(buffer[0..path.len], path);
    buffer[path.len] = 0;
    return buffer[0..path.len :0];
}

fn failed(result: usize) bool {
    return linux.errno(result) != .SUCCESS;
}

fn closeFd(fd: linux.fd_t) void {
    if (fd >= 0) _ = linux.close(fd);
}
