//! What a service manager is told, by the protocol of sd_notify(3): datagrams of NAME=VALUE lines to the
//! Unix socket that NOTIFY_SOCKET names. And its watchdog: where WATCHDOG_USEC is set, the server is
//! killed and started again unless it says in time that it lives.
//!
//! It says so from the thread that accepts connections, after that thread held the lock of the models:
//! a server that hangs in either of the two falls silent.

const std = @import("std");
const linux = std.os.linux;
const clock = @import("clock.zig");
const Models = @import("models.zig").Models;

pub const ServiceManager = struct {
    fd: linux.fd_t = -1,
    address: linux.sockaddr.un = .{ .path = @splat(0) },
    address_len: linux.socklen_t = 0,
    /// Between two signs of life; 0 where nobody waits for them.
    period_ms: u64 = 0,
    next_at: u64 = 0,

    /// Of the process that was started, not of one that it detached: that one nobody watches.
    pub fn fromEnvironment(environ: std.process.Environ) ServiceManager {
        var self: ServiceManager = .{};
        if (!self.connect(environ.getPosix("NOTIFY_SOCKET") orelse return self)) return .{};
        const pid = environ.getPosix("WATCHDOG_PID");
        const is_for_us = pid == null or linux.getpid() == std.fmt.parseInt(linux.pid_t, pid.?, 10) catch 0;
        if (is_for_us) self.period_ms = periodOf(environ.getPosix("WATCHDOG_USEC") orelse "");
        self.next_at = clock.milliseconds();
        return self;
    }

    /// A path, or '@' and the name of an abstract socket.
    fn connect(self: *ServiceManager, name: []const u8) bool {
        if (name.len < 2 or name.len > self.address.path.len or (name[0] != '/' and name[0] != '@')) return false;
        @memcpy(self.address.path[0..name.len], name);
        if (name[0] == '@') self.address.path[0] = 0;
        self.address_len = @intCast(@offsetOf(linux.sockaddr.un, "path") + name.len);
        // Nothing waits for whoever should listen there.
        const fd = linux.socket(linux.AF.UNIX, linux.SOCK.DGRAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK, 0);
        if (linux.errno(fd) != .SUCCESS) return false;
        self.fd = @intCast(fd);
        return true;
    }

    fn send(self: *const ServiceManager, text: []const u8) void {
        if (self.fd < 0) return;
        _ = linux.sendto(self.fd, text.ptr, text.len, linux.MSG.NOSIGNAL, @ptrCast(&self.address), self.address_len);
    }

    pub fn ready(self: *const ServiceManager, models: *Models) void {
        self.tell("READY=1", models);
    }

    pub fn stopping(self: *const ServiceManager) void {
        self.send("STOPPING=1\nSTATUS=ending the requests in progress");
    }

    /// How long the accepting thread may sleep.
    pub fn patience(self: *const ServiceManager, longest_ms: u64) u64 {
        return if (self.period_ms == 0) longest_ms else @min(longest_ms, self.next_at -| clock.milliseconds());
    }

    /// A sign of life, where one is due.
    pub fn keepAlive(self: *ServiceManager, models: *Models) void {
        const now = clock.milliseconds();
        if (self.period_ms == 0 or now < self.next_at) return;
        self.tell("WATCHDOG=1", models);
        self.next_at = now + self.period_ms;
    }

    fn tell(self: *const ServiceManager, what: []const u8, models: *Models) void {
        if (self.fd < 0) return;
        const count = models.count(); // takes the lock
        var buffer: [128]u8 = undefined;
        self.send(std.fmt.bufPrint(&buffer, "{s}\nSTATUS={d} models, {d} of them served", .{ what, count.installed, count.served }) catch return);
    }
};

/// Half the time after which it would be too late; sooner than once a millisecond is never.
fn periodOf(microseconds: []const u8) u64 {
    const given = std.fmt.parseInt(u64, microseconds, 10) catch return 0;
    return if (given == 0) 0 else @max(1, given / 2 / std.time.us_per_ms);
}

test "signs of life come twice as often as they must" {
    for ([_]struct { []const u8, u64 }{ .{ "30000000", 15_000 }, .{ "1", 1 }, .{ "0", 0 }, .{ "", 0 }, .{ "x", 0 }, .{ "-5", 0 } }) |case| {
        try std.testing.expectEqual(case[1], periodOf(case[0]));
    }
}

test "what is no socket is nobody" {
    const long: [109]u8 = @splat('/');
    for ([_][]const u8{ "", "/", "@", "relative", "vsock:2:1234", &long }) |name| {
        var manager: ServiceManager = .{};
        try std.testing.expect(!manager.connect(name));
    }
}
