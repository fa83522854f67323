//! ROOT/captures/.device: by what name this device's captures are told from another's.
//!
//! 32 hexadecimal digits that the device makes up when it is first asked. They go with the folder: where
//! all captures are lost, numbers begin anew, and so does the name.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const syncDir = @import("replace.zig").syncDir;

pub const Id = [32]u8;
pub const file_name = ".device";

/// `captures` was opened with .iterate. When it returns one that is new, it is on the disk.
pub fn get(io: Io, captures: Io.Dir) !Id {
    if (read(io, captures)) |id| return id;
    // Locked, so that two who ask first are told the same.
    const file = try captures.createFile(io, file_name, .{ .lock = .exclusive, .truncate = false, .permissions = .fromMode(0o644) });
    defer file.close(io);
    if (read(io, captures)) |id| return id;
    var random: [16]u8 = undefined;
    if (linux.getrandom(&random, random.len, 0) != random.len) return error.NoEntropy;
    const id: Id = std.fmt.bytesToHex(random, .lower);
    if (linux.errno(linux.pwrite(file.handle, &id, id.len, 0)) != .SUCCESS) return error.WriteFailed;
    try file.sync(io);
    try syncDir(io, captures);
    return id;
}

/// Null where it is missing, or what a power cut left of one that nobody was told.
fn read(io: Io, captures: Io.Dir) ?Id {
    var buffer: [@sizeOf(Id) + 1]u8 = undefined;
    const text = captures.readFile(io, file_name, &buffer) catch return null;
    if (text.len != @sizeOf(Id)) return null;
    for (text) |byte| switch (byte) {
        '0'...'9', 'a'...'f' => {},
        else => return null,
    };
    return text[0..@sizeOf(Id)].*;
}

const testing = std.testing;

test "an id stays, and what is none is made one" {
    const io = testing.io;
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    const id = try get(io, tmp.dir);
    try testing.expectEqual(id, try get(io, tmp.dir));
    for ([_][]const u8{ "", id[0..31], "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" }) |damaged| {
        try tmp.dir.writeFile(io, .{ .sub_path = file_name, .data = damaged });
        const fresh = try get(io, tmp.dir);
        try testing.expect(!std.mem.eql(u8, &fresh, &id));
        try testing.expectEqual(fresh, try get(io, tmp.dir));
    }
}
