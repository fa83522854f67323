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

test "a region is read and written where it lies, and not when its file has shrunk" {
    var file: File = undefined;
    try file.create(4096);
    defer file.remove();
    const me = linux.getuid();
    var problem: Problem = .{};
    var regions: Regions = .{};
    try regions.register(me, .{ .name = "r", .key = file.key(), .offset = 1000, .bytes = 3000 }, &problem);
    const region = try regions.acquire(me, "r", &problem);
    try region.write(10, "hello", &problem);
    var bytes: [5]u8 = undefined;
    try testing.expectEqual(5, linux.pread(file.fd, &bytes, 5, 1010));
    try testing.expectEqualStrings("hello", &bytes);
    try region.read(11, bytes[0..4], &problem);
    try testing.expectEqualStrings("ello", bytes[0..4]);

    // The last bytes, and one too many.
    try region.write(2995, "12345", &problem);
    for ([_]u64{ 2996, 3000, 1 << 60 }) |offset| {
        try testing.expectError(error.Problem, region.read(offset, &bytes, &problem));
        try testing.expectError(error.Problem, region.write(offset, &bytes, &problem));
    }
    try file.resize(1012);
    try testing.expectError(error.Problem, region.read(10, &bytes, &problem));
    try testing.expectEqualStrings("region r is shorter than when it was registered", problem.reason());
    try testing.expectError(error.Problem, region.write(10, "hello", &problem));
    try testing.expectEqual(2, linux.pread(file.fd, &bytes, 5, 1010)); // not made longer again

    // Unregistered, it is gone for the next request and still there for this one.
    regions.unregister(me, null);
    try testing.expectError(error.Problem, regions.acquire(me, "r", &problem));
    try file.resize(4096);
    try region.write(0, "x", &problem);
    regions.release(region);
    for (&regions.slots) |slot| try testing.expectEqual(null, slot);
}

test "names belong to their user, and both they and their number are bounded" {
    var file: File = undefined;
    try file.create(4096);
    defer file.remove();
    const me = linux.getuid();
    var problem: Problem = .{};
    var regions: Regions = .{};
    const wish: Regions.Wish = .{ .name = "r", .key = file.key(), .offset = 0, .bytes = 4096 };
    try regions.register(me, wish, &problem);
    try testing.expectError(error.Problem, regions.register(me, wish, &problem));
    try testing.expectEqualStrings("region r is registered already", problem.reason());
    // Another user neither sees the region, nor takes it away, nor gets at the file.
    try testing.expectError(error.Problem, regions.acquire(me + 1, "r", &problem));
    regions.unregister(me + 1, null);
    try testing.expectError(error.Problem, regions.register(me + 1, wish, &problem));
    try testing.expectEqual(.forbidden, problem.status);
    var count: usize = 1;
    var name: [4]u8 = undefined;
    while (count < 100) : (count += 1) {
        const more: Regions.Wish = .{ .name = try std.fmt.bufPrint(&name, "r{d}", .{count}), .key = file.key(), .offset = 0, .bytes = 1 };
        regions.register(me, more, &problem) catch break;
    }
    try testing.expectEqual(16, count);
    regions.unregister(me, "r");
    try testing.expectError(error.Problem, regions.acquire(me, "r", &problem));
    try regions.register(me, wish, &problem);
    regions.unregister(me, null);
}

test "what is no shared memory of that size is refused" {
    var file: File = undefined;
    try file.create(100);
    defer file.remove();
    const key = file.key();
    var problem: Problem = .{};
    var regions: Regions = .{};
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
        try testing.expectError(error.Problem, regions.register(linux.getuid(), wish, &problem));
    }
    for (&regions.slots) |slot| try testing.expectEqual(null, slot);
}
