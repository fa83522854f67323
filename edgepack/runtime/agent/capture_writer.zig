//! The one thread that writes captures, of all models. It starts with the first capture, or with the
//! agent where there are captures already, whose limits it sees to.
//!
//! Written captures are synced `sync_ms` after the first that is not, when a segment ends, when somebody
//! asks, and at the end. A power cut loses what came after the last of these.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const boot = @import("boot.zig");
const Watch = @import("capture_age.zig").Watch;
const capture_folder = @import("capture_folder.zig");
const Folder = capture_folder.Folder;
const format = @import("capture_format.zig");
const Model = @import("capture_model.zig").Model;
const Node = @import("capture_node.zig").Node;
const capture_rules = @import("capture_rules.zig");
const Rules = capture_rules.Rules;
const Captures = @import("captures.zig").Captures;
const clock = @import("clock.zig");
const log = @import("log.zig");
const Mutex = @import("mutex.zig").Mutex;
const naming = @import("naming.zig");
const Refusal = @import("refusal.zig").Refusal;

const stack_bytes = 256 << 10;
const sync_ms = 5_000;
const idle_ms = 60_000;
const least_ms_between_looks = 1_000;
const retry_ms = 10_000;

/// What the writer keeps of a model.
pub const Writing = struct {
    folder: ?Folder = null,
    version_buffer: [32]u8 = undefined,
    version_len: usize = 0,
    /// Has been told, and is told again only after a success.
    failing: bool = false,
};

pub const Writer = struct {
    /// Around the start of the thread.
    starting: Mutex = .{},
    runs: bool = false,
    ended: std.atomic.Value(bool) = .init(false),
    event: linux.fd_t = -1,
    watch: Watch = undefined,
    looked_at: u64 = 0,
    /// When what is unsynced is to be synced, by clock.milliseconds().
    sync_at: ?u64 = null,

    /// Opens the folders of all models that are captured by rule, so that no request waits for them.
    pub fn begin(self: *Writer, owner: *Captures) void {
        const event = linux.eventfd(0, linux.EFD.CLOEXEC | linux.EFD.NONBLOCK);
        if (linux.errno(event) == .SUCCESS) self.event = @intCast(event);
        self.watch = .begin(boot.wallMilliseconds(), boot.milliseconds());
        const io = owner.store.io;
        const dir = owner.store.root.openDir(io, format.folder, .{ .iterate = true }) catch return;
        defer dir.close(io);
        var entries = dir.iterate();
        while (entries.next(io) catch null) |entry| {
            if (!naming.isName(entry.name)) continue;
            owner.lock.lock();
            const model = owner.findOrAdd(entry.name);
            owner.lock.unlock();
            self.readRules(owner, model orelse break);
            prepare(owner, model.?);
        }
        if (owner.len > 0) _ = self.ensureRuns(owner);
    }

    /// False where it cannot run.
    pub fn ensureRuns(self: *Writer, owner: *Captures) bool {
        self.starting.lock();
        defer self.starting.unlock();
        if (self.runs) return true;
        if (self.event < 0) return false;
        const thread = std.Thread.spawn(.{ .stack_size = stack_bytes }, run, .{ self, owner }) catch return false;
        thread.detach();
        self.runs = true;
        return true;
    }

    pub fn wake(self: *Writer) void {
        const one: u64 = 1;
        _ = linux.write(self.event, std.mem.asBytes(&one), @sizeOf(u64));
    }

    pub fn end(self: *Writer, patience_ms: u64) void {
        if (!self.runs) return;
        self.wake();
        const deadline = clock.milliseconds() + patience_ms;
        while (!self.ended.load(.acquire)) {
            if (clock.milliseconds() >= deadline) return log.line("captures that wait for the disk are lost", .{});
            _ = clock.poll(&.{}, clock.milliseconds() + 1);
        }
    }

    /// As rules.json says now; where there is none, as a model without rules is captured.
    pub fn readRules(_: *Writer, owner: *Captures, model: *Model) void {
        const rules: ?Rules = loadRules(owner, model.name()) catch null;
        owner.lock.lock();
        defer owner.lock.unlock();
        model.rules = rules orelse .{ .off = true };
        model.seen = 0; // the first is one of every N
        if (!model.rules.off and model.phase != .open) model.phase = .wanted;
    }

    fn run(self: *Writer, owner: *Captures) void {
        while (true) {
            owner.lock.lock();
            const stopping = owner.stopping;
            const settling = owner.settle_asked;
            const settles = settling != owner.settle_done;
            const models = owner.models[0..owner.len];
            owner.lock.unlock();
            for (models) |model| prepare(owner, model);
            self.writeAll(owner);
            if (settles or stopping) self.settle(owner, models);
            self.look(owner, models);
            if (settles) {
                owner.lock.lock();
                owner.settle_done = settling;
                owner.lock.unlock();
            }
            if (stopping) return self.ended.store(true, .release);
            self.sleep();
        }
    }

    fn sleep(self: *Writer) void {
        const deadline = self.sync_at orelse clock.milliseconds() + idle_ms;
        var fds = [_]linux.pollfd{.{ .fd = self.event, .events = linux.POLL.IN, .revents = 0 }};
        if (!clock.poll(&fds, deadline)) return;
        var count: u64 = 0;
        _ = linux.read(self.event, std.mem.asBytes(&count), @sizeOf(u64));
    }

    fn writeAll(self: *Writer, owner: *Captures) void {
        var next = owner.takeAll();
        while (next) |node| {
            next = node.next;
            const model = node.model;
            prepare(owner, model);
            const outcome = write(owner, node);
            const failed = outcome != .written;
            if (failed and !model.writing.failing) log.line("{s}: captures are lost: {s}", .{ model.name(), switch (outcome) {
                .written => unreachable,
                inline .dropped, .failed => |reason| reason,
            } });
            model.writing.failing = failed;
            if (!failed and self.sync_at == null) self.sync_at = clock.milliseconds() + sync_ms;
            owner.done(node, outcome);
        }
    }

    fn settle(self: *Writer, owner: *Captures, models: []const *Model) void {
        self.sync_at = null;
        for (models) |model| {
            const folder = if (model.writing.folder) |*it| it else continue;
            owner.lock.lock();
            const ends = model.end_segment or owner.stopping;
            model.end_segment = false;
            owner.lock.unlock();
            folder.endIfDeleted();
            if (ends) folder.endSegment() else folder.sync();
            folder.expire(limitsOf(owner, model), &self.watch);
        }
    }

    /// Syncs what has waited long enough, and sees to the limits.
    fn look(self: *Writer, owner: *Captures, models: []const *Model) void {
        const now = clock.milliseconds();
        const syncs = now >= self.sync_at orelse now + 1;
        if (syncs) self.sync_at = null;
        const looks = now -| self.looked_at >= least_ms_between_looks;
        if (looks) {
            self.looked_at = now;
            self.watch.look(boot.wallMilliseconds(), boot.milliseconds());
        }
        for (models) |model| {
            const folder = if (model.writing.folder) |*it| it else continue;
            if (syncs) folder.sync();
            if (!looks) continue;
            folder.endIfDeleted();
            folder.expire(limitsOf(owner, model), &self.watch);
        }
    }
};

fn loadRules(owner: *Captures, name: []const u8) !Rules {
    var arena_state: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    const path = try std.fmt.allocPrint(arena, format.folder ++ "/{s}/" ++ capture_rules.file_name, .{name});
    const text = owner.store.root.readFileAlloc(owner.store.io, path, arena, .limited(capture_rules.max_file_bytes)) catch |err| switch (err) {
        error.FileNotFound => return .{},
        else => return err,
    };
    var refusal: Refusal = .{};
    return Rules.parse(arena, &refusal, text) catch |err| {
        log.line("{s}: nothing is captured: {s}", .{ name, refusal.reason() });
        return err;
    };
}

fn limitsOf(owner: *Captures, model: *Model) capture_folder.Limits {
    owner.lock.lock();
    defer owner.lock.unlock();
    if (model.rules.off) return .{ .max_bytes = std.math.maxInt(u64), .max_age_s = null }; // what is there stays
    return .{ .max_bytes = model.rules.max_bytes, .max_age_s = model.rules.max_age_s };
}

/// Opens the folder where it is wanted, and reserves numbers before they run out.
fn prepare(owner: *Captures, model: *Model) void {
    owner.lock.lock();
    const phase = model.phase;
    const next = model.next;
    const end = model.end;
    owner.lock.unlock();
    if (phase == .idle or phase == .broken) return;
    if (phase == .open and end - next >= capture_folder.block / 2) return;
    const from = reserve(owner, model, end) catch |err| return noteBroken(owner, model, err);
    owner.lock.lock();
    defer owner.lock.unlock();
    if (model.next == model.end) model.next = from;
    model.end = from + capture_folder.block;
    model.phase = .open;
}

/// The first number of a new block, which follows those that are reserved already.
fn reserve(owner: *Captures, model: *Model, end: u64) !u64 {
    var from = end;
    if (model.writing.folder == null) {
        const opened = try Folder.open(owner.store.io, owner.store.root, model.name());
        model.writing.folder = opened.folder;
        from = opened.next;
    }
    try model.writing.folder.?.reserve(from + capture_folder.block);
    return from;
}

fn noteBroken(owner: *Captures, model: *Model, err: anyerror) void {
    if (!model.writing.failing) log.line("{s}: captures cannot be written: {t}", .{ model.name(), err });
    model.writing.failing = true;
    owner.lock.lock();
    defer owner.lock.unlock();
    model.phase = .broken;
    model.trouble = @errorName(err);
    model.retry_at = boot.milliseconds() + retry_ms;
}

fn write(owner: *Captures, node: *Node) Captures.Outcome {
    const model = node.model;
    const writing = &model.writing;
    const folder = &writing.folder.?; // its numbers come from there
    const version = node.counters.version();
    if (!std.mem.eql(u8, writing.version_buffer[0..writing.version_len], version)) {
        folder.endSegment();
        @memcpy(writing.version_buffer[0..version.len], version);
        writing.version_len = version.len;
    }
    const record = node.record();
    const head: format.Head = .{
        .json_bytes = node.json_bytes,
        .body_bytes = node.body_bytes,
        .number = node.number,
        .crc = format.Crc.hash(record[format.head_bytes..]),
    };
    record[0..format.head_bytes].* = head.encode();
    folder.append(node.number, record, limitsOf(owner, model), boot.milliseconds()) catch |err| return switch (err) {
        error.TooLarge => .{ .dropped = "larger than all captures of the model may be" },
        error.NoRoom => .{ .dropped = "too little room is left on the disk" },
        else => .{ .failed = @errorName(err) },
    };
    return .written;
}
