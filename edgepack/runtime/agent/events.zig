//! ROOT/events.jsonl: what befell this device's models, oldest first, for whoever asks later.
//!
//!     {"sequence":N,"time":MS,"boot":ID,"boot_ms":MS,"event":KIND,"model":NAME|null,"version":V|null,"reason":TEXT|null}
//!
//! `sequence` orders the events of this device whatever its clock says; `time` is the clock's, since 1970,
//! `boot_ms` the time since the start of the machine that `boot` names. The file is replaced whole for
//! each event, so only what is rare is one: a worker that dies is counted in metrics.zig instead. One that
//! is torn or garbled is begun anew, and an event that cannot be recorded has happened all the same.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const boot = @import("boot.zig");
const clock = @import("clock.zig");
const document = @import("document.zig");
const json_text = @import("json_text.zig");
const log = @import("log.zig");
const Refusal = @import("refusal.zig").Refusal;
const replace = @import("replace.zig").replace;

const file_name = "events.jsonl";
const max_lines = 256;
const max_file_bytes = 128 << 10;
/// Server and commands write the same file; each holds this lock for one replacement.
const lock_name = "run/events.lock";
const lock_patience_ms = 2_000;

pub const Kind = enum {
    /// The server started; the version is the agent's own.
    start,
    install,
    /// An installation was refused.
    refused,
    rollback,
    /// The version failed, and the one before it is served.
    fallback,
    /// A version does not start; or it failed, and there is none to fall back to.
    failing,

    /// Whether more of the same, since the machine started, is left out: whatever tries again every second
    /// must not wear out the flash.
    fn isToldOnce(kind: Kind) bool {
        return switch (kind) {
            .start, .refused, .failing => true,
            .install, .rollback, .fallback => false,
        };
    }
};

pub const Event = struct {
    kind: Kind,
    model: ?[]const u8 = null,
    version: ?[]const u8 = null,
    reason: ?[]const u8 = null,
};

/// `root` was opened with .iterate.
pub fn record(io: Io, root: Io.Dir, event: Event) void {
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const lock = lockFile(io, root) orelse return log.line("no record of an event: " ++ lock_name ++ " is held", .{});
    defer lock.close(io);
    add(arena.allocator(), io, root, event) catch |err| log.line("no record of an event: {t}", .{err});
}

fn lockFile(io: Io, root: Io.Dir) ?Io.File {
    const deadline = clock.milliseconds() + lock_patience_ms;
    while (true) {
        if (root.createFile(io, lock_name, .{
            .lock = .exclusive,
            .lock_nonblocking = true,
            .truncate = false,
            .permissions = .fromMode(0o640),
        })) |file| return file else |err| {
            if (err != error.WouldBlock or clock.milliseconds() >= deadline) return null;
        }
        _ = clock.poll(&.{}, clock.milliseconds() + 10);
    }
}

fn add(arena: Allocator, io: Io, root: Io.Dir, event: Event) !void {
    const lines = try read(arena, io, root);
    const this_boot = boot.id();
    var last: u64 = 0;
    for (lines) |line| {
        if (event.kind.isToldOnce() and line.says(event, &this_boot)) return;
        last = line.sequence;
    }
    var new: Io.Writer.Allocating = .init(arena);
    try write(&new.writer, event, last +| 1, &this_boot);
    var kept = lines[lines.len -| (max_lines - 1)..];
    while (kept.len > 0 and size(kept) + new.written().len > max_file_bytes) kept = kept[1..];
    var out: Io.Writer.Allocating = .init(arena);
    for (kept) |line| try out.writer.print("{s}\n", .{line.text});
    try out.writer.writeAll(new.written());
    try replace(io, root, file_name, out.written());
}

fn write(out: *Io.Writer, event: Event, sequence: u64, this_boot: *const boot.Id) Io.Writer.Error!void {
    try out.print("{{\"sequence\":{d},\"time\":{d},\"boot\":\"{s}\",\"boot_ms\":{d},\"event\":\"{t}\",\"model\":", .{
        sequence, boot.wallMilliseconds(), this_boot, boot.milliseconds(), event.kind,
    });
    try json_text.orNull(out, event.model);
    try out.writeAll(",\"version\":");
    try json_text.orNull(out, event.version);
    try out.writeAll(",\"reason\":");
    try json_text.orNull(out, event.reason);
    try out.writeAll("}\n");
}

/// One that was read, and checked to be an object with these fields.
pub const Line = struct {
    text: []const u8,
    sequence: u64,
    fields: document.Object,

    fn parse(arena: Allocator, text: []const u8) !Line {
        var ignored: Refusal = .{};
        const doc: document.Document = .{ .refusal = &ignored, .check = .state, .title = file_name };
        const fields = try doc.parse(arena, text);
        try doc.onlyFields(fields, &.{ "sequence", "time", "boot", "boot_ms", "event", "model", "version", "reason" });
        return .{ .text = text, .sequence = try doc.integer(fields, "sequence", std.math.maxInt(i64)), .fields = fields };
    }

    fn says(self: *const Line, event: Event, this_boot: *const boot.Id) bool {
        return self.has("boot", this_boot) and self.has("event", @tagName(event.kind)) and
            self.has("model", event.model) and self.has("version", event.version) and self.has("reason", event.reason);
    }

    fn has(self: *const Line, name: []const u8, text: ?[]const u8) bool {
        return switch (self.fields.get(name).?) {
            .string => |it| text != null and std.mem.eql(u8, it, text.?),
            .null => text == null,
            else => false,
        };
    }
};

fn size(lines: []const Line) usize {
    var bytes: usize = 0;
    for (lines) |line| bytes += line.text.len + 1;
    return bytes;
}

/// The events in the file; none where it is not whole. What they point to lives in `arena`.
pub fn read(arena: Allocator, io: Io, root: Io.Dir) error{OutOfMemory}![]const Line {
    const bytes = root.readFileAlloc(io, file_name, arena, .limited(max_file_bytes + 1)) catch |err|
        return if (err == error.OutOfMemory) error.OutOfMemory else &.{};
    var found: std.ArrayList(Line) = .empty;
    var rest = bytes;
    while (rest.len > 0) {
        const end = std.mem.findScalar(u8, rest, '\n') orelse return &.{};
        if (found.items.len == max_lines) return &.{};
        const line = Line.parse(arena, rest[0..end]) catch |err| return if (err == error.OutOfMemory) error.OutOfMemory else &.{};
        try found.append(arena, line);
        rest = rest[end + 1 ..];
    }
    return found.items;
}

/// {"events":[...]}
pub fn render(out: *Io.Writer, lines: []const Line) Io.Writer.Error!void {
    try out.writeAll("{\"events\":[");
    for (lines, 0..) |line, index| try out.print("{s}{s}", .{ if (index > 0) "," else "", line.text });
    try out.writeAll("]}");
}

const testing = std.testing;

const Place = struct {
    tmp: std.testing.TmpDir,
    arena: std.heap.ArenaAllocator,

    fn init() !Place {
        const tmp = testing.tmpDir(.{ .iterate = true });
        try tmp.dir.createDir(testing.io, "run", .fromMode(0o755));
        return .{ .tmp = tmp, .arena = .init(testing.allocator) };
    }

    fn deinit(self: *Place) void {
        self.arena.deinit();
        self.tmp.cleanup();
    }

    fn record(self: *Place, event: Event) void {
        recordIn(testing.io, self.tmp.dir, event);
    }

    fn lines(self: *Place) ![]const Line {
        return read(self.arena.allocator(), testing.io, self.tmp.dir);
    }

    const recordIn = @import("events.zig").record;
};

test "events are kept in order, the oldest go, and the number goes on" {
    var place: Place = try .init();
    defer place.deinit();
    for (0..max_lines + 3) |_| place.record(.{ .kind = .install, .model = "m", .version = "1.0.0" });
    const lines = try place.lines();
    try testing.expectEqual(max_lines, lines.len);
    try testing.expectEqual(4, lines[0].sequence);
    try testing.expectEqual(max_lines + 3, lines[max_lines - 1].sequence);
}

test "the file never grows beyond its bound, whatever the reasons say" {
    var place: Place = try .init();
    defer place.deinit();
    const reason: [512]u8 = @splat(1); // six bytes each, as JSON has it
    for (0..60) |_| place.record(.{ .kind = .fallback, .reason = &reason });
    const lines = try place.lines();
    try testing.expect(size(lines) <= max_file_bytes and lines.len > 30);
    try testing.expectEqual(60, lines[lines.len - 1].sequence);
}

test "what is tried again and again is told once, and again when something else is wrong" {
    var place: Place = try .init();
    defer place.deinit();
    for (0..3) |_| {
        place.record(.{ .kind = .refused, .model = "a", .reason = "why" });
        place.record(.{ .kind = .refused, .model = "b", .reason = "why" });
        place.record(.{ .kind = .start, .version = "1" });
    }
    place.record(.{ .kind = .refused, .model = "a", .reason = "other" });
    place.record(.{ .kind = .rollback, .model = "a" });
    place.record(.{ .kind = .rollback, .model = "a" });
    try testing.expectEqual(6, (try place.lines()).len);
}

test "a file that is torn or garbled is begun anew" {
    var place: Place = try .init();
    defer place.deinit();
    const dir = place.tmp.dir;
    place.record(.{ .kind = .install, .model = "m" });
    place.record(.{ .kind = .rollback, .model = "m" });
    var buffer: [1024]u8 = undefined;
    const whole = try dir.readFile(testing.io, file_name, &buffer);
    for (0..whole.len) |cut| {
        if (cut > 0 and whole[cut - 1] == '\n') continue; // whole lines are no damage
        try dir.writeFile(testing.io, .{ .sub_path = file_name, .data = whole[0..cut] });
        try testing.expectEqual(0, (try place.lines()).len);
    }
    for ([_][]const u8{ "\n", "{}\n", "[]\n", "null\n", "\x00\x00\x00\n", "{\"sequence\":1}\n" }) |bad| {
        try dir.writeFile(testing.io, .{ .sub_path = file_name, .data = bad });
        try testing.expectEqual(0, (try place.lines()).len);
    }
    place.record(.{ .kind = .install });
    const lines = try place.lines();
    try testing.expectEqual(1, lines.len);
    try testing.expectEqual(1, lines[0].sequence);
}

test "many who record at once lose none" {
    var place: Place = try .init();
    defer place.deinit();
    const Work = struct {
        fn run(at: *Place) void {
            for (0..10) |_| at.record(.{ .kind = .install });
        }
    };
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{}, Work.run, .{&place});
    for (threads) |thread| thread.join();
    const lines = try place.lines();
    for (lines, 1..) |line, number| try testing.expectEqual(number, line.sequence);
    try testing.expectEqual(40, lines.len);
}
