//! The segments in a folder of captures: how many there are, which is the oldest, what is in them, and
//! taking the oldest away. The folder itself is the only list, so that whoever deletes a segment, by hand
//! too, has nothing else to tell.

const std = @import("std");
const Io = std.Io;
const format = @import("capture_format.zig");

pub const Segment = struct {
    /// Number of its first record.
    first: u64,
    bytes: u64,
    /// When it was last written to, in milliseconds since 1970.
    written: u64,
};

pub const Survey = struct {
    count: u64 = 0,
    bytes: u64 = 0,
    oldest: ?Segment = null,
    newest: ?Segment = null,

    /// `dir` was opened with .iterate, and nobody else lists it at the same time.
    pub fn of(io: Io, dir: Io.Dir) Survey {
        var self: Survey = .{};
        var entries = dir.iterate();
        while (entries.next(io) catch return self) |entry| {
            const first = format.parseSegmentName(entry.name) orelse continue;
            const stat = dir.statFile(io, entry.name, .{ .follow_symlinks = false }) catch continue; // went meanwhile
            const segment: Segment = .{ .first = first, .bytes = stat.size, .written = @intCast(@max(0, stat.mtime.toMilliseconds())) };
            self.count += 1;
            self.bytes +|= segment.bytes;
            if (self.oldest == null or first < self.oldest.?.first) self.oldest = segment;
            if (self.newest == null or first > self.newest.?.first) self.newest = segment;
        }
        return self;
    }
};

pub fn remove(io: Io, dir: Io.Dir, first: u64) Io.Dir.DeleteFileError!void {
    dir.deleteFile(io, &format.segmentName(first)) catch |err| if (err != error.FileNotFound) return err;
}

/// The segment that begins at `after` or later; null behind the last.
pub fn next(io: Io, dir: Io.Dir, after: u64) ?u64 {
    var found: ?u64 = null;
    var entries = dir.iterate();
    while (entries.next(io) catch return found) |entry| {
        const first = format.parseSegmentName(entry.name) orelse continue;
        if (first >= after and (found == null or first < found.?)) found = first;
    }
    return found;
}

/// The heads of one segment's records, in order, up to the first that is not whole. Contents are not
/// read: a record whose end is there counts.
pub const Heads = struct {
    io: Io,
    file: Io.File,
    length: u64,
    offset: u64 = 0,

    /// Null where it cannot be read, or is not there any more.
    pub fn open(io: Io, dir: Io.Dir, first: u64) ?Heads {
        const file = dir.openFile(io, &format.segmentName(first), .{}) catch return null;
        const length = file.length(io) catch {
            file.close(io);
            return null;
        };
        return .{ .io = io, .file = file, .length = length };
    }

    pub fn close(self: Heads) void {
        self.file.close(self.io);
    }

    /// `offset` lies behind this record then.
    pub fn next(self: *Heads) ?format.Head {
        var bytes: [format.head_bytes]u8 = undefined;
        const count = self.file.readPositionalAll(self.io, &bytes, self.offset) catch return null;
        if (count < bytes.len) return null;
        const head = format.Head.decode(&bytes) orelse return null;
        if (head.recordBytes() > self.length - self.offset) return null;
        self.offset += head.recordBytes();
        return head;
    }
};

const testing = std.testing;

fn writeSegment(dir: Io.Dir, numbers: []const u64, cut: usize) !void {
    const io = testing.io;
    var buffer: [512]u8 = undefined;
    var out: Io.Writer = .fixed(&buffer);
    for (numbers) |number| {
        const head: format.Head = .{ .json_bytes = 2, .body_bytes = 3, .number = number, .crc = format.Crc.hash("{}abc") };
        try out.writeAll(&head.encode());
        try out.writeAll("{}abc");
    }
    try dir.writeFile(io, .{ .sub_path = &format.segmentName(numbers[0]), .data = out.buffered()[0 .. out.end - cut] });
}

test "segments are found by their names, oldest and newest by number" {
    const io = testing.io;
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    try testing.expectEqual(Survey{}, Survey.of(io, tmp.dir));
    try writeSegment(tmp.dir, &.{ 1025, 1026 }, 0);
    try writeSegment(tmp.dir, &.{7}, 0);
    try writeSegment(tmp.dir, &.{ 16, 17 }, 1);
    try tmp.dir.writeFile(io, .{ .sub_path = "next", .data = "2048" });
    const survey: Survey = .of(io, tmp.dir);
    try testing.expectEqual(.{ 3, 184 }, .{ survey.count, survey.bytes });
    try testing.expectEqual(.{ 7, 1025 }, .{ survey.oldest.?.first, survey.newest.?.first });
    try testing.expectEqual(16, next(io, tmp.dir, 8).?);
    try testing.expectEqual(null, next(io, tmp.dir, 1026));
    try remove(io, tmp.dir, 7);
    try remove(io, tmp.dir, 7);
    try testing.expectEqual(16, Survey.of(io, tmp.dir).oldest.?.first);
}

test "heads end at the first record that is cut, wherever it is" {
    const io = testing.io;
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    const each = format.head_bytes + 5;
    for (0..3 * each) |cut| {
        try writeSegment(tmp.dir, &.{ 1, 2, 9 }, cut);
        var heads = Heads.open(io, tmp.dir, 1).?;
        defer heads.close();
        var whole: usize = 0;
        while (heads.next()) |head| : (whole += 1) try testing.expectEqual(([_]u64{ 1, 2, 9 })[whole], head.number);
        try testing.expectEqual((3 * each - cut) / each, whole);
        try testing.expectEqual(whole * each, heads.offset);
    }
}
