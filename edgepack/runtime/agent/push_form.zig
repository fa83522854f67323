//! A batch of captures in the form that browsers upload files with (multipart/form-data, RFC 7578), which is
//! what S3 takes with a presigned POST policy: one signature, made elsewhere, for every object below a prefix.
//!
//! The field `key` names the object; `${filename}` in it becomes DEVICE/MODEL/FIRST-LAST.epc. S3 itself
//! would put only the last part of that there, so the agent does it.

const std = @import("std");
const Allocator = std.mem.Allocator;
const linux = std.os.linux;
const Field = @import("push_config.zig").Header;

pub const key_field = "key";
pub const file_name_mark = "${filename}";

/// What goes before and behind the records, and the boundary that both have.
pub const Envelope = struct {
    boundary: [32]u8,
    before: []const u8,
    after: []const u8,
};

/// `path` is what stands for the mark; neither it nor the fields hold quotes or control characters.
pub fn envelope(arena: Allocator, fields: []const Field, path: []const u8, content_type: []const u8) error{OutOfMemory}!Envelope {
    var random: [16]u8 = @splat(0);
    _ = linux.getrandom(&random, random.len, 0);
    const boundary = std.fmt.bytesToHex(random, .lower);
    var out: std.ArrayList(u8) = .empty;
    for (fields) |field| {
        const value = if (std.mem.eql(u8, field.name, key_field)) try withPath(arena, field.value, path) else field.value;
        for ([_][]const u8{ "--", &boundary, "\r\nContent-Disposition: form-data; name=\"", field.name, "\"\r\n\r\n", value, "\r\n" }) |part| {
            try out.appendSlice(arena, part);
        }
    }
    const last = std.fs.path.basenamePosix(path);
    for ([_][]const u8{ "--", &boundary, "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"", last, "\"\r\nContent-Type: ", content_type, "\r\n\r\n" }) |part| {
        try out.appendSlice(arena, part);
    }
    const after = try std.mem.concat(arena, u8, &.{ "\r\n--", &boundary, "--\r\n" });
    return .{ .boundary = boundary, .before = out.items, .after = after };
}

/// The configuration has made sure that the mark is there once.
fn withPath(arena: Allocator, value: []const u8, path: []const u8) error{OutOfMemory}![]const u8 {
    const at = std.mem.find(u8, value, file_name_mark) orelse return value;
    return std.mem.concat(arena, u8, &.{ value[0..at], path, value[at + file_name_mark.len ..] });
}

test "the file comes last, under the key with its path" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const fields = [_]Field{ .{ .name = "key", .value = "in/${filename}" }, .{ .name = "policy", .value = "e30=" } };
    const made = try envelope(arena.allocator(), &fields, "d/m/1-2.epc", "a/b");
    const expected = try std.mem.replaceOwned(u8, arena.allocator(), "--B\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nin/d/m/1-2.epc\r\n" ++
        "--B\r\nContent-Disposition: form-data; name=\"policy\"\r\n\r\ne30=\r\n" ++
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"1-2.epc\"\r\nContent-Type: a/b\r\n\r\n", "B", &made.boundary);
    try std.testing.expectEqualStrings(expected, made.before);
    try std.testing.expect(std.mem.startsWith(u8, made.after, "\r\n--") and std.mem.endsWith(u8, made.after, "--\r\n"));
}
