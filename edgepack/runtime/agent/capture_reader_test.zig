//! Tests of capture_reader.zig: what a reader gives out of folders that are damaged, grow and shrink.

const std = @import("std");
const Io = std.Io;
const format = @import("capture_format.zig");
const Reader = @import("capture_reader.zig").Reader;
const segments = @import("capture_segments.zig");
const testing = std.testing;

const contents = "{}abcdefgh";
const each = format.head_bytes + contents.len;

/// A segment of these records; its bytes.
fn write(dir: Io.Dir, numbers: []const u64, buffer: []u8) ![]u8 {
    var out: Io.Writer = .fixed(buffer);
    for (numbers) |number| {
        const head: format.Head = .{ .json_bytes = 2, .body_bytes = contents.len - 2, .number = number, .crc = format.Crc.hash(contents) };
        try out.writeAll(&head.encode());
        try out.writeAll(contents);
    }
    try put(dir, numbers[0], out.buffered());
    return out.buffered();
}

fn put(dir: Io.Dir, first: u64, bytes: []const u8) !void {
    try dir.writeFile(testing.io, .{ .sub_path = &format.segmentName(first), .data = bytes });
}

/// What comes, in runs of at most `max_bytes`; every byte of it is part of a whole record.
fn expect(dir: Io.Dir, after: u64, max_bytes: u64, wanted: []const u64) !void {
    var reader: Reader = .{ .io = testing.io, .dir = dir, .after = after };
    defer reader.close();
    var found: usize = 0;
    while (reader.next(max_bytes)) |run| {
        try testing.expect(run.bytes <= @max(max_bytes, each));
        var buffer: [1024]u8 = undefined;
        var out: Io.Writer = .fixed(&buffer);
        try run.copyTo(testing.io, &out);
        try testing.expectEqual(run.records * each, out.end);
        for (0..@intCast(run.records)) |index| {
            const head = format.Head.decode(buffer[index * each ..][0..format.head_bytes]).?;
            try testing.expectEqualStrings(contents, buffer[index * each ..][format.head_bytes..each]);
            try testing.expect(found < wanted.len);
            try testing.expectEqual(wanted[found], head.number);
            if (index == 0) try testing.expectEqual(run.first, head.number);
            found += 1;
        }
        try testing.expectEqual(run.last, wanted[found - 1]);
    }
    try testing.expectEqual(wanted.len, found);
}

test "records come in order from any number on, in runs of any size" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var buffer: [1024]u8 = undefined;
    try expect(tmp.dir, 0, 1 << 20, &.{});
    _ = try write(tmp.dir, &.{ 1025, 1026 }, &buffer);
    _ = try write(tmp.dir, &.{ 1, 2, 4 }, &buffer);
    _ = try write(tmp.dir, &.{5}, &buffer);
    const all = [_]u64{ 1, 2, 4, 5, 1025, 1026 };
    for ([_]u64{ 0, 1, each, 2 * each, 3 * each - 1, 1 << 20 }) |max_bytes| {
        for ([_]u64{ 0, 1, 2, 3, 4, 5, 6, 1024, 1025, 1026, 9999, std.math.maxInt(u64) }) |after| {
            var skip: usize = 0;
            while (skip < all.len and all[skip] <= after) skip += 1;
            try expect(tmp.dir, after, max_bytes, all[skip..]);
        }
    }
}

test "a segment that is cut anywhere ends there, and the next one follows" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var later: [256]u8 = undefined;
    _ = try write(tmp.dir, &.{9}, &later);
    var buffer: [1024]u8 = undefined;
    const bytes = try write(tmp.dir, &.{ 1, 2, 3 }, &buffer);
    const all = [_]u64{ 1, 2, 3 };
    for (0..bytes.len + 1) |length| {
        try put(tmp.dir, 1, bytes[0..length]);
        var wanted: [4]u64 = undefined;
        const whole = length / each;
        @memcpy(wanted[0..whole], all[0..whole]);
        wanted[whole] = 9;
        try expect(tmp.dir, 0, 1 << 20, wanted[0 .. whole + 1]);
    }
}

test "a record with any bit changed is not given out" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var buffer: [1024]u8 = undefined;
    const bytes = try write(tmp.dir, &.{ 1, 2, 3 }, &buffer);
    for (each..2 * each) |index| for (0..8) |bit| {
        bytes[index] ^= @as(u8, 1) << @intCast(bit);
        try put(tmp.dir, 1, bytes);
        // Behind a head that is none, nobody knows where the next one is.
        const in_head = index < each + format.head_bytes;
        try expect(tmp.dir, 0, 1 << 20, if (in_head) &.{1} else &.{ 1, 3 });
        bytes[index] ^= @as(u8, 1) << @intCast(bit);
    };
}

test "numbers that do not rise are passed over, and what is no segment is no segment" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var buffer: [1024]u8 = undefined;
    _ = try write(tmp.dir, &.{ 3, 7, 7, 1, 8 }, &buffer);
    _ = try write(tmp.dir, &.{ 5, 6, 9 }, &buffer);
    try put(tmp.dir, 10, "");
    try tmp.dir.createDir(testing.io, &format.segmentName(11), .fromMode(0o755));
    try tmp.dir.writeFile(testing.io, .{ .sub_path = "next", .data = "12" });
    try expect(tmp.dir, 0, 1 << 20, &.{ 3, 7, 8, 9 });
}

test "what went before it could be read is told, and what was never there is not" {
    const io = testing.io;
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var buffer: [1024]u8 = undefined;
    for ([_][]const u64{ &.{ 1, 2 }, &.{ 1025, 1026 }, &.{2049}, &.{3073} }) |numbers| _ = try write(tmp.dir, numbers, &buffer);
    var reader: Reader = .{ .io = io, .dir = tmp.dir, .after = 1 };
    defer reader.close();
    try testing.expectEqual(2, reader.next(0).?.last);
    try testing.expectEqual(null, reader.gone);
    try testing.expectEqual(1025, reader.next(0).?.last);
    try testing.expectEqual(null, reader.gone); // the segment that held 2 is there: nothing was behind it
    for ([_]u64{ 1, 1025, 2049 }) |first| try segments.remove(io, tmp.dir, first);
    try testing.expectEqual(1026, reader.next(0).?.last); // of the segment that is open
    try testing.expectEqual(null, reader.gone);
    try testing.expectEqual(3073, reader.next(0).?.last);
    try testing.expectEqual(.{ 1027, 3072 }, .{ reader.gone.?.first, reader.gone.?.last });
    var late: Reader = .{ .io = io, .dir = tmp.dir, .after = 2 };
    defer late.close();
    try testing.expectEqual(3073, late.next(0).?.last);
    try testing.expectEqual(.{ 3, 3072 }, .{ late.gone.?.first, late.gone.?.last });
    try testing.expectEqual(null, late.next(0));
}
