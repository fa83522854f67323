//! What is said of a model's captures, by the server and, where none runs, by the command.
//!
//!     {"model":NAME,"rules":{...}|null,"trouble":TEXT|null,"first":N|null,"next":N,"count":N,"bytes":N,
//!      "segments":N,"oldest_time":MS|null,"newest_time":MS|null,"queued":N,"written":N,"dropped":N,
//!      "failed":N,"last_failure":TEXT|null}
//!
//! `first` to `bytes` are what lies on the disk; `next` is the number that is given next, or, where no
//! server runs, may be. The counts behind them are the server's, since its start. The times are the
//! device's clock's: of the oldest record, and of the last write.

const std = @import("std");
const Io = std.Io;
const Writer = Io.Writer;
const Allocator = std.mem.Allocator;
const capture_folder = @import("capture_folder.zig");
const capture_rules = @import("capture_rules.zig");
const document = @import("document.zig");
const format = @import("capture_format.zig");
const Refusal = @import("refusal.zig").Refusal;
const segments = @import("capture_segments.zig");

/// What only the server knows.
pub const Live = struct {
    next: u64,
    queued: u64,
    written: u64,
    dropped: u64,
    failed: u64,
    last_failure: ?[]const u8,
    trouble: ?[]const u8,
};

/// What lies on the disk.
pub const Stored = struct {
    first: ?u64 = null,
    next: u64 = 1,
    count: u64 = 0,
    survey: segments.Survey = .{},
    oldest_time: ?u64 = null,
    /// The file as it is, in one line.
    rules: ?[]const u8 = null,
    trouble: ?[]const u8 = null,

    /// Of the model whose captures are in ROOT/captures/`name`. The result lives in `arena`.
    pub fn read(arena: Allocator, io: Io, root: Io.Dir, name: []const u8) error{OutOfMemory}!Stored {
        var self: Stored = .{};
        const path = try std.fmt.allocPrint(arena, format.folder ++ "/{s}", .{name});
        const dir = root.openDir(io, path, .{ .iterate = true }) catch return self;
        defer dir.close(io);
        self.survey = .of(io, dir);
        self.next = capture_folder.readNext(io, dir) orelse 1;
        if (self.survey.oldest) |oldest| {
            self.first = oldest.first;
            self.oldest_time = firstTime(arena, io, dir, oldest.first);
        }
        var after: u64 = 0;
        while (segments.next(io, dir, after)) |first| : (after = first + 1) {
            var heads = segments.Heads.open(io, dir, first) orelse continue;
            defer heads.close();
            while (heads.next() != null) self.count += 1;
        }
        try self.readRules(arena, io, dir);
        return self;
    }

    fn readRules(self: *Stored, arena: Allocator, io: Io, dir: Io.Dir) error{OutOfMemory}!void {
        const text = dir.readFileAlloc(io, capture_rules.file_name, arena, .limited(capture_rules.max_file_bytes)) catch |err| {
            if (err != error.FileNotFound) self.trouble = "rules.json cannot be read: nothing is captured";
            return;
        };
        var refusal: Refusal = .{};
        _ = capture_rules.Rules.parse(arena, &refusal, text) catch |err| {
            if (err == error.OutOfMemory) return error.OutOfMemory;
            self.trouble = "rules.json cannot be followed: nothing is captured";
            return;
        };
        for (text) |*byte| if (byte.* == '\n' or byte.* == '\r') {
            byte.* = ' '; // between values only: strings have none as it is
        };
        self.rules = text;
    }

    pub fn write(self: *const Stored, out: *Writer, name: []const u8, live: ?Live) Writer.Error!void {
        try out.print("{{\"model\":\"{s}\",\"rules\":{s},\"trouble\":", .{ name, self.rules orelse "null" });
        try string(out, self.trouble orelse if (live) |it| it.trouble else null);
        try out.writeAll(",\"first\":");
        try number(out, self.first);
        try out.print(",\"next\":{d},\"count\":{d},\"bytes\":{d},\"segments\":{d},\"oldest_time\":", .{
            if (live) |it| it.next else self.next, self.count, self.survey.bytes, self.survey.count,
        });
        try number(out, self.oldest_time);
        try out.writeAll(",\"newest_time\":");
        try number(out, if (self.survey.newest) |it| it.written else null);
        const counts = live orelse std.mem.zeroes(Live);
        try out.print(",\"queued\":{d},\"written\":{d},\"dropped\":{d},\"failed\":{d},\"last_failure\":", .{ counts.queued, counts.written, counts.dropped, counts.failed });
        try string(out, counts.last_failure);
        try out.writeByte('}');
    }
};

/// Whether the record of this number is there. Its contents are not read.
pub fn holds(io: Io, dir: Io.Dir, wanted: u64) bool {
    var found: ?u64 = null;
    var entries = dir.iterate();
    while (entries.next(io) catch null) |entry| {
        const first = format.parseSegmentName(entry.name) orelse continue;
        if (first <= wanted and (found == null or first > found.?)) found = first;
    }
    var heads = segments.Heads.open(io, dir, found orelse return false) orelse return false;
    defer heads.close();
    while (heads.next()) |head| if (head.number >= wanted) return head.number == wanted;
    return false;
}

fn firstTime(arena: Allocator, io: Io, dir: Io.Dir, first: u64) ?u64 {
    var heads = segments.Heads.open(io, dir, first) orelse return null;
    defer heads.close();
    const head = heads.next() orelse return null;
    const json = arena.alloc(u8, head.json_bytes) catch return null;
    const count = heads.file.readPositionalAll(io, json, format.head_bytes) catch return null;
    if (count < json.len) return null;
    var ignored: Refusal = .{};
    const doc: document.Document = .{ .refusal = &ignored, .check = .state, .title = "a capture" };
    const root = doc.parse(arena, json) catch return null;
    return doc.integer(root, "time", std.math.maxInt(i64)) catch null;
}

fn number(out: *Writer, it: ?u64) Writer.Error!void {
    if (it) |known| try out.print("{d}", .{known}) else try out.writeAll("null");
}

fn string(out: *Writer, it: ?[]const u8) Writer.Error!void {
    const known = it orelse return out.writeAll("null");
    try std.json.Stringify.encodeJsonString(known, .{}, out);
}
