//! Tests of shared_memory.zig, on files in /dev/shm.

const std = @import("std");
const linux = std.os.linux;
const testing = std.testing;
const Problem = @import("problem.zig").Problem;
const shared_memory = @import("shared_memory.zig");
const Regions = shared_memory.Regions;

const File = struct {
    path_buffer: [64]u8,
    path: [:0]const u8,
    fd: linux.fd_t,

    fn create(self: *File, bytes: usize) !void {
        self.path = try std.fmt.bufPrintSentinel(&self.path_buffer, "/dev/shm/edgepack-test.{d}", .{linux.getpid()}, 0);
        const opened = linux.open(self.path, .{ .ACCMODE = .RDWR, .CREAT = true, .EXCL = true, .CLOEXEC = true }, 0o600);
        if (linux.errno(opened) != .SUCCESS) return error.SkipZigTest; // no /dev/shm here
        self.fd = @intCast(opened);
        try self.resize(bytes);
    }

    fn resize(self: *File, bytes: usize) !void {
        try testing.expectEqual(.SUCCESS, linux.errno(linux.ftruncate(self.fd, @intCast(bytes))));
    }

    fn key(self: *File) []const u8 {
        return self.path["/dev/shm".len..];
    }

    fn remove(self: *File) void {
        _ = linux.unlink(self.path);
        _ = linux.close(self.fd);
    }
};

/// No regions yet, and a file that this user may register.
const Registry = struct {
    file: File = undefined,
    regions: Regions = .{},
    problem: Problem = .{},
};

fn me() linux.uid_t {
    return linux.getuid();
}

test "a region is read and written where it lies, and not when its file has shrunk" {
    var at: Registry = .{};
    try at.file.create(4096);
    defer at.file.remove();
    try at.regions.register(me(), .{ .name = "r", .key = at.file.key(), .offset = 1000, .bytes = 3000 }, &at.problem);
    const region = try at.regions.acquire(me(), "r", &at.problem);
    try region.write(10, "hello", &at.problem);
    var bytes: [5]u8 = undefined;
    try testing.expectEqual(5, linux.pread(at.file.fd, &bytes, 5, 1010));
    try testing.expectEqualStrings("hello", &bytes);
    try region.read(11, bytes[0..4], &at.problem);
    try testing.expectEqualStrings("ello", bytes[0..4]);

    // The last bytes, and one too many.
    try region.write(2995, "12345", &at.problem);
    for ([_]u64{ 2996, 3000, 1 << 60 }) |offset| {
        try testing.expectError(error.Problem, region.read(offset, &bytes, &at.problem));
        try testing.expectError(error.Problem, region.write(offset, &bytes, &at.problem));
    }
    try at.file.resize(1012);
    try testing.expectError(error.Problem, region.read(10, &bytes, &at.problem));
    try testing.expectEqualStrings("region r is shorter than when it was registered", at.problem.reason());
    try testing.expectError(error.Problem, region.write(10, "hello", &at.problem));
    try testing.expectEqual(2, linux.pread(at.file.fd, &bytes, 5, 1010)); // not made longer again

    // Unregistered, it is gone for the next request and still there for this one.
    at.regions.unregister(me(), null);
    try testing.expectError(error.Problem, at.regions.acquire(me(), "r", &at.problem));
    try at.file.resize(4096);
    try region.write(0, "x", &at.problem);
    at.regions.release(region);
    for (&at.regions.slots) |slot| try testing.expectEqual(null, slot);
}

test "names belong to their user, and both they and their number are bounded" {
    var at: Registry = .{};
    try at.file.create(4096);
    defer at.file.remove();
    const wish: Regions.Wish = .{ .name = "r", .key = at.file.key(), .offset = 0, .bytes = 4096 };
    try at.regions.register(me(), wish, &at.problem);
    try testing.expectError(error.Problem, at.regions.register(me(), wish, &at.problem));
    try testing.expectEqualStrings("region r is registered already", at.problem.reason());
    // Another user neither sees the region, nor takes it away, nor gets at the file.
    try testing.expectError(error.Problem, at.regions.acquire(me() + 1, "r", &at.problem));
    at.regions.unregister(me() + 1, null);
    try testing.expectError(error.Problem, at.regions.register(me() + 1, wish, &at.problem));
    try testing.expectEqual(.forbidden, at.problem.status);
    var count: usize = 1;
    var name: [4]u8 = undefined;
    while (count < 100) : (count += 1) {
        const more: Regions.Wish = .{ .name = try std.fmt.bufPrint(&name, "r{d}", .{count}), .key = at.file.key(), .offset = 0, .bytes = 1 };
        at.regions.register(me(), more, &at.problem) catch break;
    }
    try testing.expectEqual(16, count);
    at.regions.unregister(me(), "r");
    try testing.expectError(error.Problem, at.regions.acquire(me(), "r", &at.problem));
    try at.regions.register(me(), wish, &at.problem);
    at.regions.unregister(me(), null);
}

test "what is no shared memory of that size is refused" {
    var at: Registry = .{};
    try at.file.create(100);
    defer at.file.remove();
    const key = at.file.key();
    for ([_]Regions.Wish{
        .{ .name = "", .key = key, .offset = 0, .bytes = 1 },         .{ .name = "a/b", .key = key, .offset = 0, .bytes = 1 },
        .{ .name = "r", .key = key, .offset = 0, .bytes = 0 },        .{ .name = "r", .key = key, .offset = 0, .bytes = 101 },
        .{ .name = "r", .key = key, .offset = 1, .bytes = 100 },      .{ .name = "r", .key = key, .offset = 1 << 60, .bytes = 1 },
        .{ .name = "r", .key = key, .offset = 0, .bytes = 1 << 60 },  .{ .name = "r", .key = "/..", .offset = 0, .bytes = 1 },
        .{ .name = "r", .key = "/", .offset = 0, .bytes = 1 },        .{ .name = "r", .key = "", .offset = 0, .bytes = 1 },
        .{ .name = "r", .key = "/a/../b", .offset = 0, .bytes = 1 },  .{ .name = "r", .key = "//b", .offset = 0, .bytes = 1 },
        .{ .name = "r", .key = "/x\x00y", .offset = 0, .bytes = 1 },  .{ .name = "r", .key = "/" ++ &@as([128]u8, @splat('k')), .offset = 0, .bytes = 1 },
        .{ .name = "r", .key = "/no-such", .offset = 0, .bytes = 1 },
    }) |wish| {
        try testing.expectError(error.Problem, at.regions.register(me(), wish, &at.problem));
    }
    for (&at.regions.slots) |slot| try testing.expectEqual(null, slot);
}
