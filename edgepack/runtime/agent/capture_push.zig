//! Pushes captures to where ROOT/push.json says: in order for each model, each at least once.
//!
//! A batch is whole records that lie one behind the other in a segment. When the server has confirmed one
//! with a 2xx, its last number is stored, and the next one goes. Whatever fails is tried again after a pause,
//! 1 s at first, doubled up to 15 min; so a device may be months without a network, and forgets only what
//! the limits of its captures drop. An answer that says that the request itself is wrong (400s but 408 and
//! 429, and redirects) is not cured by time: then the pause is the longest, unless push.json changes.
//!
//! One thread, of the lowest priority for processor and disk. push.json is read before each attempt.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const linux = std.os.linux;
const capture_id = @import("capture_id.zig");
const capture_output = @import("capture_output.zig");
const capture_reader = @import("capture_reader.zig");
const Reader = capture_reader.Reader;
const clock = @import("clock.zig");
const log = @import("log.zig");
const push_config = @import("push_config.zig");
const Config = push_config.Config;
const push_request = @import("push_request.zig");
const push_state = @import("push_state.zig");
const state = &push_state.state;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Web = @import("web.zig").Web;

const look_ms = 5_000;
const first_pause_ms = 1_000;
const longest_pause_ms = 15 * 60 * 1_000;
const stack_bytes = 256 << 10;
/// Then another model's turn comes.
const max_batches = 64;

/// Stands for what is there and cannot be read, or is too long.
const unreadable: []const u8 = "?";

const Failure = struct { refusal: Refusal = .{}, lasting: bool = false };

/// What a round has done.
const Round = struct { records: u64 = 0, more: bool = false };

const Pusher = struct {
    io: Io,
    root: []const u8,
    stop: linux.fd_t,
    seen: [push_config.max_file_bytes]u8 = undefined,
    seen_len: ?usize = null,
    interval_ms: u64 = 0,
    /// By clock.milliseconds().
    next: u64 = 0,
    failures: u6 = 0,

    fn run(self: *Pusher) void {
        yieldToOthers();
        while (!self.stops(@min(look_ms, self.next -| clock.milliseconds()))) {
            var arena_state: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
            defer arena_state.deinit();
            self.look(arena_state.allocator());
        }
    }

    /// Waits; at least a little, so that a clock that stands still cannot make it spin.
    fn stops(self: *Pusher, ms: u64) bool {
        var fds = [_]linux.pollfd{.{ .fd = self.stop, .events = linux.POLL.IN, .revents = 0 }};
        return clock.poll(&fds, clock.milliseconds() + @max(1, ms));
    }

    fn look(self: *Pusher, arena: Allocator) void {
        const bytes = readConfig(arena, self.io, self.root);
        if (self.isChanged(bytes)) {
            self.failures = 0;
            self.next = 0;
        }
        const text = bytes orelse {
            self.next = clock.milliseconds() + look_ms;
            return;
        };
        if (clock.milliseconds() < self.next) return;
        var failure: Failure = .{};
        const round = attempt(arena, self.io, self.root, text, &failure) catch return self.fail(&failure);
        self.failures = 0;
        self.next = if (round.more) 0 else clock.milliseconds() + self.interval_ms;
    }

    /// Also tells the others what the configuration is.
    fn isChanged(self: *Pusher, bytes: ?[]const u8) bool {
        const known: ?[]const u8 = if (self.seen_len) |len| self.seen[0..len] else null;
        if (bytes == null and known == null) return false;
        if (bytes != null and known != null and std.mem.eql(u8, bytes.?, known.?)) return false;
        self.seen_len = if (bytes) |it| it.len else null;
        if (bytes) |it| @memcpy(self.seen[0..it.len], it);
        var arena_state: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
        defer arena_state.deinit();
        var ignored: Refusal = .{};
        const config: ?Config = if (bytes) |it| Config.parse(arena_state.allocator(), &ignored, it) catch null else null;
        self.interval_ms = if (config) |it| it.interval_s * std.time.ms_per_s else 0;
        state.configure(if (config) |it| it.url else if (bytes != null) "" else null);
        return true;
    }

    fn fail(self: *Pusher, failure: *const Failure) void {
        const pause = if (failure.lasting) longest_pause_ms else @min(longest_pause_ms, @as(u64, first_pause_ms) << self.failures);
        self.failures = @min(self.failures + 1, 20);
        self.next = clock.milliseconds() + pause / 2 + random() % (pause / 2 + 1);
        if (state.fail(failure.refusal.reason())) log.line("captures are not pushed: {s}", .{failure.refusal.reason()});
    }
};

/// In a thread of its own, until `stop` becomes readable. Without it nothing is pushed, and all else goes on.
pub fn start(arena: Allocator, io: Io, root: []const u8, stop: linux.fd_t) void {
    const pusher = arena.create(Pusher) catch return;
    pusher.* = .{ .io = io, .root = root, .stop = stop };
    const thread = std.Thread.spawn(.{ .stack_size = stack_bytes }, Pusher.run, .{pusher}) catch
        return log.line("no thread to push captures with", .{});
    thread.detach();
}

/// `edgepack-agent capture push`: all that is there, now.
pub fn once(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, out: *Io.Writer) (refusals.Error || Io.Writer.Error)!void {
    const text = readConfig(arena, io, root) orelse
        return refusal.because(.state, "there is no {s}/{s}", .{ root, push_config.file_name });
    var records: u64 = 0;
    while (true) { // each round moves a position forward, or is the last
        var failure: Failure = .{};
        const round = attempt(arena, io, root, text, &failure) catch |err| {
            refusal.* = failure.refusal;
            return err;
        };
        records += round.records;
        if (!round.more) break;
    }
    try out.print("{{\"ok\":true,\"records\":{d}}}\n", .{records});
}

fn readConfig(arena: Allocator, io: Io, root: []const u8) ?[]const u8 {
    const path = std.fmt.allocPrint(arena, "{s}/" ++ push_config.file_name, .{root}) catch return null;
    return Io.Dir.cwd().readFileAlloc(io, path, arena, .limited(push_config.max_file_bytes)) catch |err| switch (err) {
        error.FileNotFound => null,
        else => unreadable,
    };
}

/// One turn of every model.
fn attempt(arena: Allocator, io: Io, root: []const u8, text: []const u8, failure: *Failure) refusals.Error!Round {
    const refusal = &failure.refusal;
    failure.lasting = true;
    if (text.ptr == unreadable.ptr) return refusal.because(.state, push_config.file_name ++ " cannot be read; may the server's user?", .{});
    const config: Config = try .parse(arena, refusal, text);
    failure.lasting = false;
    const captures = try capture_output.open(io, refusal, root) orelse return .{};
    defer captures.close(io);
    // Released with the descriptor. By hand and by the server at once would push twice.
    const locked = linux.errno(linux.flock(captures.handle, std.posix.LOCK.EX));
    if (locked != .SUCCESS) return refusal.because(.state, "cannot lock captures/: {t}", .{locked});
    const id = capture_id.get(io, captures) catch |err|
        return refusal.because(.disk, "cannot write captures/{s}: {t}", .{ capture_id.file_name, err });
    const web = try arena.create(Web);
    web.* = try .init(arena, io, refusal, config.url);
    var round: Round = .{};
    for (try capture_output.names(arena, io, refusal, captures)) |name| {
        const dir = captures.openDir(io, name, .{ .iterate = true }) catch continue;
        defer dir.close(io);
        try pushModel(web, &config, .{ .device = &id, .model = name }, dir, &round, failure);
    }
    return round;
}

fn pushModel(web: *Web, config: *const Config, target: push_request.Target, dir: Io.Dir, round: *Round, failure: *Failure) refusals.Error!void {
    const position = push_state.readPosition(web.io, dir);
    const last = capture_output.lastNumber(web.io, dir) orelse return;
    _ = state.succeed(target.model, 0, position, last);
    var reader: Reader = .{ .io = web.io, .dir = dir, .after = position };
    defer reader.close();
    for (0..max_batches) |_| {
        const run = reader.next(config.batch_bytes) orelse return;
        if (reader.gone) |gone| log.line("captures {d} to {d} of {s} went before they were pushed", .{ gone.first, gone.last, target.model });
        const status = try push_request.send(web, config, target, run);
        if (status >= 300) {
            failure.lasting = status < 500 and status != 408 and status != 429;
            return web.refusal.because(.source, "{s} answers {d}", .{ config.url, status });
        }
        push_state.writePosition(web.io, dir, run.last) catch |err|
            return web.refusal.because(.disk, "cannot write captures/{s}/pushed: {t}", .{ target.model, err });
        round.records += run.records;
        if (state.succeed(target.model, run.records, run.last, last)) log.line("captures are pushed again", .{});
    }
    round.more = true;
}

/// Requests come first: this thread gets what they leave of processors and disk.
fn yieldToOthers() void {
    const this_thread = 0;
    const lowest = 19;
    const idle_class = 3 << 13; // IOPRIO_CLASS_IDLE, linux/ioprio.h
    _ = linux.syscall3(.setpriority, 0, this_thread, lowest); // PRIO_PROCESS
    _ = linux.syscall3(.ioprio_set, 1, this_thread, idle_class); // IOPRIO_WHO_PROCESS
}

fn random() u64 {
    var bytes: [8]u8 = @splat(0);
    _ = linux.getrandom(&bytes, bytes.len, 0);
    return std.mem.readInt(u64, &bytes, .little);
}
