const std = @import("std");
const testing = std.testing;
const Folder = @import("capture_folder.zig").Folder;
const capture_folder = @import("capture_folder.zig");
const format = @import("capture_format.zig");
const segments = @import("capture_segments.zig");
const Survey = segments.Survey;
const Watch = @import("capture_age.zig").Watch;

const io = testing.io;
const plenty: capture_folder.Limits = .{ .max_bytes = 1 << 20, .max_age_s = null };

/// A record of `bytes` in all.
fn record(buffer: []u8, number: u64, bytes: usize) []const u8 {
    const contents = buffer[format.head_bytes..bytes];
    @memset(contents, 'x');
    const head: format.Head = .{ .json_bytes = 2, .body_bytes = contents.len - 2, .number = number, .crc = format.Crc.hash(contents) };
    buffer[0..format.head_bytes].* = head.encode();
    return buffer[0..bytes];
}

/// Numbers of all records that can be read, in order.
fn numbers(dir: std.Io.Dir, buffer: []u64) []u64 {
    var len: usize = 0;
    var after: u64 = 0;
    while (segments.next(io, dir, after)) |first| : (after = first + 1) {
        var heads = segments.Heads.open(io, dir, first).?;
        defer heads.close();
        while (heads.next()) |head| : (len += 1) buffer[len] = head.number;
    }
    return buffer[0..len];
}

test "numbers go on above all that were reserved, each start in a segment of its own" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var bytes: [100]u8 = undefined;
    var found: [16]u64 = undefined;
    var expected: u64 = 1;
    for (0..3) |start| {
        var opened = try Folder.open(io, tmp.dir, "m");
        try testing.expectEqual(expected, opened.next);
        expected += capture_folder.block;
        try opened.folder.reserve(expected);
        for (0..2) |index| try opened.folder.append(opened.next + index, record(&bytes, opened.next + index, 100), plenty, 0);
        try testing.expectEqual(200 * (start + 1), opened.folder.bytes);
        opened.folder.close();
    }
    const dir = try tmp.dir.openDir(io, "captures/m", .{ .iterate = true });
    defer dir.close(io);
    try testing.expectEqualSlices(u64, &.{ 1, 2, 1025, 1026, 2049, 2050 }, numbers(dir, &found));
    try testing.expectEqual(3, Survey.of(io, dir).count);
    for ([_][]const u8{ "", "x", "-5", "0", "99999999999999999999999999" }) |damage| {
        try dir.writeFile(io, .{ .sub_path = "next", .data = damage });
        var opened = try Folder.open(io, tmp.dir, "m");
        defer opened.folder.close();
        try testing.expectEqual(2050 + capture_folder.max_ahead + 1, opened.next);
    }
}

test "the oldest segments go where a record would not fit, and a record that never fits is refused" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var opened = try Folder.open(io, tmp.dir, "m");
    defer opened.folder.close();
    const limits: capture_folder.Limits = .{ .max_bytes = 4000, .max_age_s = null };
    var bytes: [4001]u8 = undefined;
    for (1..101) |number| {
        try opened.folder.append(number, record(&bytes, number, 200), limits, 0);
        const survey: Survey = .of(io, opened.folder.dir);
        try testing.expectEqual(survey.bytes, opened.folder.bytes);
        try testing.expect(survey.bytes <= limits.max_bytes);
        if (number > 20) try testing.expect(survey.bytes > limits.max_bytes * 3 / 4);
    }
    try testing.expectError(error.TooLarge, opened.folder.append(101, record(&bytes, 101, 4001), limits, 0));
    try opened.folder.append(102, record(&bytes, 102, 4000), limits, 0);
    var found: [4]u64 = undefined;
    try testing.expectEqualSlices(u64, &.{102}, numbers(opened.folder.dir, &found));
}

test "a segment that is deleted is not written to any more" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var opened = try Folder.open(io, tmp.dir, "m");
    defer opened.folder.close();
    var bytes: [100]u8 = undefined;
    try opened.folder.append(1, record(&bytes, 1, 100), plenty, 0);
    try segments.remove(io, opened.folder.dir, 1);
    try opened.folder.append(2, record(&bytes, 2, 100), plenty, 0);
    var found: [4]u64 = undefined;
    try testing.expectEqualSlices(u64, &.{2}, numbers(opened.folder.dir, &found));
    try testing.expectEqual(100, opened.folder.bytes);
}

test "age deletes what is surely older, and a segment does not grow for long" {
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var opened = try Folder.open(io, tmp.dir, "m");
    defer opened.folder.close();
    const limits: capture_folder.Limits = .{ .max_bytes = 1 << 20, .max_age_s = 80 };
    var bytes: [100]u8 = undefined;
    for (1..31) |number| try opened.folder.append(number, record(&bytes, number, 100), limits, number * 1000);
    const survey: Survey = .of(io, opened.folder.dir);
    try testing.expectEqual(3, survey.count); // an eighth of 80 s
    var watch: Watch = .begin(survey.newest.?.written - 1000, 30_000);
    watch.look(survey.newest.?.written + 79_000, 110_000);
    opened.folder.expire(limits, &watch);
    try testing.expectEqual(3, Survey.of(io, opened.folder.dir).count);
    watch.look(survey.newest.?.written + 81_000, 112_000);
    opened.folder.expire(limits, &watch);
    try testing.expectEqual(0, Survey.of(io, opened.folder.dir).count);
}

test "what is to stay free has a least and a greatest size" {
    try testing.expectEqual(8 << 20, capture_folder.floorBytes(32 << 20));
    try testing.expectEqual(50_000_000, capture_folder.floorBytes(1_000_000_000));
    try testing.expectEqual(1 << 30, capture_folder.floorBytes(1 << 40));
}
