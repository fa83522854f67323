//! `worker serve`: run the model whenever the parent asks.
//!
//! Messages are 16 bytes, little-endian. To the worker: {u32 magic, u32 operation, u64 0}; from the worker:
//! {u32 magic, i32 status, u64 value}. The first one, unasked, says that it is ready (value: bytes of
//! memory) or why not; each later one answers a request:
//!
//!     1  run the model on what lies in the shared memory; value: nanoseconds
//!     2  the same with every call timed; where status is 0, one u64 a call of the plan follows: nanoseconds
//!     3  value: the monotonic clock in nanoseconds
//!     4  value: peak resident memory in bytes
//!     5  value: the core's measured peak in FLOP/s
//!
//! End of input is the order to leave.
//!
//! There is no PR_SET_PDEATHSIG on purpose: it follows the parent *thread* that forked, and the agent
//! starts workers from threads that come and go. When the agent dies, stdin ends; in the middle of a
//! run, which is bounded, the answer's write fails. Either way the worker leaves.

const std = @import("std");
const abi = @import("abi.zig");
const confine = @import("confine.zig");
const measure = @import("measure.zig");
const terminal = @import("terminal.zig");
const linux = std.os.linux;

const magic: u32 = 0x31575045; // "EPW1"
const Operation = enum(u32) { run = 1, observe = 2, clock = 3, memory = 4, peak = 5, _ };

/// More tensors than this no model has; it bounds the tables on the stack.
const max_tensors = 256;

const Request = extern struct { magic: u32, operation: u32, zero: u64 };
const Reply = extern struct { magic: u32, status: i32, value: u64 };

comptime {
    std.debug.assert(@sizeOf(Request) == 16 and @sizeOf(Reply) == 16);
    // Every target of this project is little-endian; the structs go over the pipe as they are.
    std.debug.assert(@import("builtin").cpu.arch.endian() == .little);
}

/// What an attempt to get ready ended with: a status for the parent.
const Failed = error{Failed};

var tensors: [2 * max_tensors][*]u8 = undefined;

/// Exit code of the process: 0 after end of input, 1 after any failure.
pub fn run(weights_path: [*:0]const u8, shared_name: [*:0]const u8, threads: u32) u8 {
    // The agent executes an open file, which has no name of its own.
    _ = linux.prctl(@backingInt(linux.PR.SET_NAME), @intFromPtr("worker"), 0, 0, 0);
    var status: i32 = 0;
    const session = prepare(weights_path, shared_name, threads, &status) catch {
        _ = reply(status, 0);
        return 1;
    };
    defer abi.ep_session_close(session);
    const model = abi.ep_model_get();
    if (!reply(0, abi.ep_memory_bytes(model))) return 1;
    const inputs = abi.ep_num_inputs(model);
    const work: Work = .{ .session = session, .inputs = @ptrCast(tensors[0..inputs].ptr), .outputs = tensors[inputs..].ptr };
    return answerRequests(&work);
}

/// `worker clock`: what a request for the clock is answered with.
pub fn tellTime() u8 {
    return if (reply(0, measure.now())) 0 else 1;
}

const Work = struct {
    session: *abi.Session,
    inputs: [*]const [*]const u8,
    outputs: [*]const [*]u8,
};

fn answerRequests(work: *const Work) u8 {
    while (true) {
        var request: Request = undefined;
        switch (readWhole(std.mem.asBytes(&request))) {
            .end => return 0,
            .broken => return 1,
            .whole => {},
        }
        if (request.magic != magic or request.zero != 0) return refuse();
        const operation: Operation = @fromBackingInt(request.operation);
        const answered = switch (operation) {
            .run => answerRun(work),
            .observe => answerObserved(work),
            .clock => reply(0, measure.now()),
            .memory => reply(0, measure.peakMemory()),
            .peak => reply(0, measure.peak()),
            _ => return refuse(),
        };
        if (!answered) return 1;
    }
}

fn refuse() u8 {
    terminal.complain(&.{"a request that is none"});
    return 1;
}

fn answerRun(work: *const Work) bool {
    const started = measure.now();
    const status = abi.ep_run(work.session, work.inputs, work.outputs);
    const elapsed = measure.now() - started;
    complainOf(status);
    return reply(status, elapsed);
}

fn answerObserved(work: *const Work) bool {
    // Mapped by the first such request, for good: who asks once asks again.
    const store = struct {
        var times: ?[]u64 = null;
    };
    const times = store.times orelse blk: {
        var status: i32 = 0;
        const bytes = @max(1, abi.ep_num_calls(abi.ep_model_get())) * @sizeOf(u64);
        const memory = mapPrivate("times", bytes, &status) catch return reply(status, 0);
        const mapped: [*]u64 = @ptrCast(@alignCast(memory));
        store.times = mapped[0..abi.ep_num_calls(abi.ep_model_get())];
        break :blk store.times.?;
    };
    const started = measure.now();
    const status = measure.runObserved(work.session, work.inputs, work.outputs, times);
    const elapsed = measure.now() - started;
    complainOf(status);
    if (!reply(status, elapsed)) return false;
    return status != 0 or terminal.writeAll(1, std.mem.sliceAsBytes(times));
}

fn complainOf(status: c_int) void {
    if (status != 0) terminal.complain(&.{ "run: ", std.mem.span(abi.ep_strerror(status)) });
}

/// Maps everything the model needs and lays the session out; on failure `status` says why.
fn prepare(weights_path: [*:0]const u8, shared_name: [*:0]const u8, threads: u32, status: *i32) Failed!*abi.Session {
    const model = abi.ep_model_get();
    if (abi.ep_abi_version(model) != abi.abi_version or
        abi.ep_num_inputs(model) > max_tensors or abi.ep_num_outputs(model) > max_tensors)
    {
        status.* = abi.status_argument;
        return complain("the model is made for another runtime");
    }
    const weights = try mapWeights(weights_path, abi.ep_weights_bytes(model), status);
    const shared = try mapShared(shared_name, abi.sharedBytes(model), status);
    closeInherited();
    measure.openCounters();
    placeTensors(model, shared);
    var held: confine.Held = .{};
    confine.leaveFiles(&held);

    const memory_bytes = abi.ep_memory_bytes(model);
    const memory = try mapPrivate("memory", @max(memory_bytes, 1), status);
    var session: ?*abi.Session = null;
    status.* = abi.ep_session_init(&session, model, memory, memory_bytes, weights, abi.ep_weights_bytes(model));
    if (status.* == 0 and threads > 1) status.* = abi.ep_session_set_threads(session.?, threads);
    if (status.* != 0) return complain(std.mem.span(abi.ep_strerror(status.*)));
    confine.leaveCalls(&held);
    confine.tellWhatIsMissing(held);
    return session.?;
}

/// The weights as they lie in the page cache: shared with every other process that maps them. `path` may
/// be fd:N for a file that the parent opened, as for the shared memory.
fn mapWeights(path: [*:0]const u8, expected: usize, status: *i32) Failed![*]const u8 {
    const nothing = struct {
        const bytes: [abi.alignment]u8 align(abi.alignment) = @splat(0);
    };
    const fd = try given("weights", path, .RDONLY, status);
    defer _ = linux.close(fd);
    if (fileSize(fd) != expected) {
        status.* = abi.status_weights;
        return complain(std.mem.span(abi.ep_strerror(status.*)));
    }
    if (expected == 0) return &nothing.bytes;
    return map("weights", expected, .{ .READ = true }, .{ .TYPE = .SHARED }, fd, status);
}

fn mapShared(name: [*:0]const u8, expected: usize, status: *i32) Failed![*]u8 {
    const fd = try given("shared memory", name, .RDWR, status);
    defer _ = linux.close(fd);
    if (fileSize(fd) < expected) {
        status.* = abi.status_memory;
        return complain("shared memory: smaller than the model's inputs and outputs");
    }
    if (expected == 0) return complain("the model has no tensors");
    return map("shared memory", expected, .{ .READ = true, .WRITE = true }, .{ .TYPE = .SHARED }, fd, status);
}

fn placeTensors(model: *const abi.Model, shared: [*]u8) void {
    var end: usize = 0;
    const inputs = abi.ep_num_inputs(model);
    for (0..inputs + abi.ep_num_outputs(model)) |index| {
        const tensor = if (index < inputs) abi.ep_input(model, index) else abi.ep_output(model, index - inputs);
        tensors[index] = shared + std.mem.alignForward(usize, end, abi.alignment);
        end = abi.afterTensor(end, tensor.?);
    }
}

/// `name` is a path, or fd:N for a file that the parent opened.
fn given(what: []const u8, name: [*:0]const u8, mode: std.posix.ACCMODE, status: *i32) Failed!i32 {
    const text = std.mem.span(name);
    if (!std.mem.startsWith(u8, text, "fd:")) return open(name, .{ .ACCMODE = mode, .CLOEXEC = true }, status);
    return std.fmt.parseInt(u15, text[3..], 10) catch {
        status.* = abi.status_errno_base - @as(i32, @backingInt(linux.E.BADF));
        terminal.complain(&.{ what, ": no such file descriptor" });
        return error.Failed;
    };
}

/// What an ancestor left open is not the model's to hold. Old kernels (before 5.9) have no
/// close_range; there the parent's close-on-exec flags are the only guard, as they should be anyway.
fn closeInherited() void {
    _ = linux.close_range(3, std.math.maxInt(i32), .{ .UNSHARE = false, .CLOEXEC = false });
}

fn open(path: [*:0]const u8, flags: linux.O, status: *i32) Failed!i32 {
    const result = linux.open(path, flags, 0);
    if (linux.errno(result) == .SUCCESS) return @intCast(result);
    status.* = abi.status_errno_base - @as(i32, @backingInt(linux.errno(result)));
    terminal.complain(&.{ "cannot open ", std.mem.span(path) });
    return error.Failed;
}

/// 0 where it cannot be told. No statx: kernels before 4.11 have none.
fn fileSize(fd: i32) u64 {
    if (@sizeOf(usize) == 8) {
        const result: usize = @intCast(linux.lseek(fd, 0, linux.SEEK.END));
        return if (linux.errno(result) == .SUCCESS) result else 0;
    }
    var size: i64 = 0;
    return if (linux.errno(@as(usize, linux.llseek(fd, 0, &size, linux.SEEK.END))) == .SUCCESS) @intCast(size) else 0;
}

fn mapPrivate(what: []const u8, bytes: usize, status: *i32) Failed![*]u8 {
    return map(what, bytes, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, status);
}

fn map(what: []const u8, bytes: usize, protection: linux.PROT, flags: linux.MAP, fd: i32, status: *i32) Failed![*]u8 {
    const result = linux.mmap(null, bytes, protection, flags, fd, 0);
    if (linux.errno(result) == .SUCCESS) return @ptrFromInt(result);
    status.* = abi.status_errno_base - @as(i32, @backingInt(linux.errno(result)));
    terminal.complain(&.{ "cannot map ", what });
    return error.Failed;
}

fn complain(text: []const u8) Failed {
    terminal.complain(&.{text});
    return error.Failed;
}

fn reply(status: i32, value: u64) bool {
    const message: Reply = .{ .magic = magic, .status = status, .value = value };
    return terminal.writeAll(1, std.mem.asBytes(&message));
}

const Read = enum { whole, end, broken };

fn readWhole(buffer: []u8) Read {
    var filled: usize = 0;
    while (filled < buffer.len) {
        const result = linux.read(0, buffer.ptr + filled, buffer.len - filled);
        switch (linux.errno(result)) {
            .SUCCESS => if (result == 0) return if (filled == 0) .end else .broken,
            .INTR => continue,
            else => return .broken,
        }
        filled += result;
    }
    return .whole;
}
