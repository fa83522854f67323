//! One running worker: a child process, a socket for requests, a pipe for replies, shared memory.
//!
//! The protocol and the layout are those of worker/serve.zig and model_info.zig. How the child becomes a
//! worker, with what descriptors and rights, is in worker_child.zig and confine.zig.
//! Every wait is bounded, by the caller's deadline or, until exec, by one here; a worker that misses it is killed.
//!
//! A WorkerProcess is for one thread at a time. stop() reaps the child: no zombie stays.

const std = @import("std");
const Blob = @import("blob.zig").Blob;
const cgroup = @import("cgroup.zig");
const clock = @import("clock.zig");
const linux = std.os.linux;
const log = @import("log.zig");
const model_info = @import("model_info.zig");
const ModelInfo = model_info.ModelInfo;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const worker_child = @import("worker_child.zig");
const worker_exit = @import("worker_exit.zig");

const magic: u32 = 0x31575045; // "EPW1"
const operation_run: u32 = 1;
/// What a worker may map beyond what its model is known to need: the tables of its session, and the
/// stacks of 64 threads.
const spare_bytes = 32 << 20;
/// From fork to exec, some thirty system calls. One that hangs, on storage that stalls or on a lock that
/// another thread of an emulator held at the fork, says nothing of the worker: there is another attempt.
const exec_deadline_ms = 5_000;
const exec_attempts = 2;
/// Falling asleep and waking up cost some 10 to 20 us.
const longest_ns_worth_spinning = 100_000;
const Reply = extern struct { magic: u32, status: i32, value: u64 };
const Request = extern struct { magic: u32, operation: u32, zero: u64 };

/// Of one version: open files.
pub const Files = struct {
    worker: linux.fd_t,
    worker_bytes: u64,
    weights: linux.fd_t,

    /// Blobs of the store; they must stay open until the worker is ready.
    pub fn of(worker: *const Blob, weights: *const Blob) Files {
        return .{ .worker = worker.from.file.file.handle, .worker_bytes = worker.size, .weights = weights.from.file.file.handle };
    }
};

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
    /// The last run, in nanoseconds, by the worker's clock; long, until there was one.
    took_ns: u64 = std.math.maxInt(u64),

    /// Starts a worker and waits until it is ready.
    pub fn start(refusal: *Refusal, files: Files, info: *const ModelInfo, deadline_ms: u32) refusals.Error!WorkerProcess {
        const shared = openShared(info.shm_bytes) orelse
            return refusal.because(.worker, "no shared memory of {d} bytes", .{info.shm_bytes});
        defer closeFd(shared);
        const address = linux.mmap(null, info.shm_bytes, .{ .READ = true, .WRITE = true }, .{ .TYPE = .SHARED }, shared, 0);
        if (failed(address)) return refusal.because(.worker, "cannot map {d} bytes of shared memory", .{info.shm_bytes});
        const shm: [*]align(std.heap.page_size_min) u8 = @ptrFromInt(address);
        errdefer _ = linux.munmap(shm, info.shm_bytes);

        var process = for (0..exec_attempts) |_| {
            if (try spawn(refusal, files, shared, memoryLimit(files, info))) |spawned| break spawned;
            log.line("a worker was not executed within {d} ms and was killed", .{exec_deadline_ms});
        } else return refusal.because(.worker, "the worker was not executed within {d} ms, {d} times", .{ exec_deadline_ms, exec_attempts });
        process.shm = shm[0..info.shm_bytes];
        errdefer process.kill();
        const ready = process.readReply(deadline_ms, null) catch |err|
            return process.refuseDead(refusal, "did not start", err, deadline_ms);
        if (ready.status != 0) {
            return refusal.because(.worker, "the worker did not start: {s} ({d})", .{ worker_exit.statusText(ready.status), ready.status });
        }
        process.memory_bytes = ready.value;
        return process;
    }

    /// Runs the model on what lies in `shm`; the time it took in nanoseconds, by the worker's clock.
    /// After a refusal `alive` tells a model that failed from a worker that is gone.
    /// `in_progress` counts the requests that wait for any model; without it none is waited for actively.
    pub fn run(self: *WorkerProcess, refusal: *Refusal, deadline_ms: u32, in_progress: ?*const std.atomic.Value(u32)) refusals.Error!u64 {
        if (!self.alive) return refusal.because(.worker, "the worker is not running", .{});
        const request: Request = .{ .magic = magic, .operation = operation_run, .zero = 0 };
        // A worker that died is an error here, not a SIGPIPE.
        const sent = linux.sendto(self.requests, std.mem.asBytes(&request), @sizeOf(Request), linux.MSG.NOSIGNAL, null, 0);
        if (sent != @sizeOf(Request)) return self.refuseDead(refusal, "died", error.Died, 0);
        const reply = self.readReply(deadline_ms, in_progress) catch |err|
            return self.refuseDead(refusal, "did not answer", err, deadline_ms);
        if (reply.status != 0) {
            return refusal.because(.worker, "the model failed: {s} ({d})", .{ worker_exit.statusText(reply.status), reply.status });
        }
        self.took_ns = reply.value;
        return reply.value;
    }

    /// Whether it is still there, without asking it; a worker that died meanwhile is reaped.
    pub fn checkAlive(self: *WorkerProcess) bool {
        if (!self.alive) return false;
        var status: u32 = 0;
        if (linux.waitpid(self.pid, @ptrCast(&status), linux.W.NOHANG) == 0) return true;
        self.alive = false;
        cgroup.release(self.pid);
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
        cgroup.release(self.pid);
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

    /// With `in_progress` the reply of a model that is done within microseconds is waited for actively, to
    /// spare falling asleep, which would take as long again. Not while other requests wait: their threads
    /// have work for this processor.
    fn readReply(self: *WorkerProcess, deadline_ms: u32, in_progress: ?*const std.atomic.Value(u32)) ReplyError!Reply {
        const began = clock.nanoseconds();
        const deadline = began / std.time.ns_per_ms + deadline_ms;
        var active = in_progress != null and self.took_ns <= longest_ns_worth_spinning;
        var reply: Reply = undefined;
        const bytes = std.mem.asBytes(&reply);
        var filled: usize = 0;
        while (filled < bytes.len) {
            const count = linux.read(self.replies, bytes.ptr + filled, bytes.len - filled);
            switch (linux.errno(count)) {
                .SUCCESS => if (count == 0) return error.Died,
                .INTR => continue,
                .AGAIN => {
                    active = active and in_progress.?.load(.monotonic) == 1 and clock.nanoseconds() - began < 2 * longest_ns_worth_spinning;
                    if (active) {
                        _ = linux.sched_yield();
                    } else {
                        var fds = [_]linux.pollfd{.{ .fd = self.replies, .events = linux.POLL.IN, .revents = 0 }};
                        if (!clock.poll(&fds, deadline)) return error.Late;
                    }
                    continue;
                },
                else => return error.Died,
            }
            filled += count;
        }
        return if (reply.magic == magic) reply else error.Garbled;
    }
};

/// Enough for a model that is as model.json says.
fn memoryLimit(files: Files, info: *const ModelInfo) u64 {
    return files.worker_bytes +| info.weights_bytes +| info.arena_bytes +| info.shm_bytes +| spare_bytes;
}

/// Null where it was not executed in time.
fn spawn(refusal: *Refusal, files: Files, shared: linux.fd_t, memory_bytes: u64) error{Refused}!?WorkerProcess {
    const requests = openPair(.socket) orelse return refusal.because(.worker, "no pipe for the worker", .{});
    defer closeFd(requests.read);
    errdefer closeFd(requests.write);
    const replies = openPair(.pipe) orelse return refusal.because(.worker, "no pipe for the worker", .{});
    defer closeFd(replies.write);
    errdefer closeFd(replies.read);
    _ = linux.fcntl(replies.read, linux.F.SETFL, @as(u32, @bitCast(linux.O{ .NONBLOCK = true })));
    const trouble = openPair(.pipe) orelse return refusal.because(.worker, "no pipe for the worker", .{});
    defer closeFd(trouble.read);

    const child: worker_child.Child = .{
        .worker = files.worker,
        .weights = files.weights,
        .requests = requests.read,
        .replies = replies.write,
        .shared = shared,
        .trouble = trouble.write,
        .memory_bytes = memory_bytes,
    };
    const pid = linux.fork();
    if (pid == 0) child.become();
    closeFd(trouble.write);
    if (failed(pid)) return refusal.because(.worker, "cannot fork: {t}", .{linux.errno(pid)});

    var process: WorkerProcess = .{ .shm = undefined, .pid = @intCast(pid), .requests = requests.write, .replies = replies.read };
    if (try awaitExec(refusal, &process, trouble.read)) return process;
    process.kill();
    return null;
}

/// Until exec closes the pipe, or the child says why there was none; false where neither came in time.
fn awaitExec(refusal: *Refusal, process: *WorkerProcess, pipe: linux.fd_t) error{Refused}!bool {
    var fds = [_]linux.pollfd{.{ .fd = pipe, .events = linux.POLL.IN, .revents = 0 }};
    if (!clock.poll(&fds, clock.milliseconds() + exec_deadline_ms)) return false;
    var trouble: worker_child.Trouble = undefined;
    var count = linux.read(pipe, std.mem.asBytes(&trouble), @sizeOf(worker_child.Trouble));
    while (linux.errno(count) == .INTR) count = linux.read(pipe, std.mem.asBytes(&trouble), @sizeOf(worker_child.Trouble));
    if (count != @sizeOf(worker_child.Trouble)) return true;
    _ = process.reap();
    const cause: linux.E = @fromBackingInt(trouble.errno);
    const hint = switch (cause) {
        .NOEXEC => " (built for another CPU architecture?)",
        .NOENT => " (a script? a worker is a static executable)",
        else => "",
    };
    if (trouble.what == .execute) return refusal.because(.worker, "cannot execute the worker: {t}{s}", .{ cause, hint });
    return refusal.because(.worker, "cannot start the worker: {t}: {t}", .{ trouble.what, cause });
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

/// The same file under a number that the child's own cannot collide with.
fn aboveStandard(fd: linux.fd_t) ?linux.fd_t {
    defer closeFd(fd);
    return worker_child.duplicate(fd);
}

fn failed(result: usize) bool {
    return linux.errno(result) != .SUCCESS;
}

fn closeFd(fd: linux.fd_t) void {
    if (fd >= 0) _ = linux.close(fd);
}
