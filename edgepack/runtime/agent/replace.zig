//! A small file replaced whole: temporary file, fsync, rename, fsync of the directory. After a power
//! cut at any point the old contents are there or the new ones.

const std = @import("std");
const Io = std.Io;

/// What a file is called until it takes the place of the old one; an interruption may leave it.
pub const suffix = ".tmp";

/// `dir` was opened with .iterate. When it returns without an error, the new contents are on the disk.
pub fn replace(io: Io, dir: Io.Dir, comptime name: []const u8, bytes: []const u8) !void {
    errdefer dir.deleteFile(io, name ++ suffix) catch {};
    // Anew: in a folder that is another user's, what is called so may be a link to anything.
    dir.deleteFile(io, name ++ suffix) catch {};
    const file = try dir.createFile(io, name ++ suffix, .{ .permissions = .fromMode(0o644), .exclusive = true });
    defer file.close(io);
    try file.writeStreamingAll(io, bytes);
    try file.sync(io);
    try dir.rename(name ++ suffix, dir, name, io);
    try syncDir(io, dir);
}

/// `dir` was opened with .iterate: a descriptor that is only a path cannot be synced.
pub fn syncDir(io: Io, dir: Io.Dir) Io.File.SyncError!void {
    const file: Io.File = .{ .handle = dir.handle, .flags = .{ .nonblocking = false } };
    return file.sync(io);
}

test "what is replaced is there whole" {
    const io = std.testing.io;
    var tmp = std.testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var buffer: [16]u8 = undefined;
    try tmp.dir.writeFile(io, .{ .sub_path = "precious", .data = "whole" });
    try tmp.dir.symLink(io, "precious", "x" ++ suffix, .{});
    for ([_][]const u8{ "longer", "new", "" }) |contents| {
        try replace(io, tmp.dir, "x", contents);
        try std.testing.expectEqualStrings(contents, try tmp.dir.readFile(io, "x", &buffer));
    }
    try std.testing.expectEqualStrings("whole", try tmp.dir.readFile(io, "precious", &buffer));
}
