//! The server's end of a TCP socket on loopback, for clients that cannot speak over a Unix socket.
//!
//! It has no file whose mode says who may connect: every process of the machine may, and with it every
//! web page in a browser there. What a page sends is told by its Origin, or by a Host that its own name
//! server resolved to loopback; see Head.webTrouble() in http.zig.

const std = @import("std");
const linux = std.os.linux;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

const backlog = 64;

pub const Address = struct {
    family: enum { ip4, ip6 },
    /// 0 for one that is free; the log says which it became.
    port: u16,

    /// PORT, 127.0.0.1:PORT or [::1]:PORT.
    pub fn parse(refusal: *Refusal, text: []const u8) error{Refused}!Address {
        const colon = std.mem.findScalarLast(u8, text, ':');
        const host = text[0 .. colon orelse 0];
        const port = text[if (colon) |index| index + 1 else 0..];
        const is_ip6 = std.mem.eql(u8, host, "[::1]");
        if (colon != null and !is_ip6 and !std.mem.eql(u8, host, "127.0.0.1")) {
            return refusal.because(.usage, "--tcp takes PORT, 127.0.0.1:PORT or [::1]:PORT, not {s}: only this machine may connect", .{text});
        }
        for (port) |byte| if (!std.ascii.isDigit(byte)) return refusal.because(.usage, "--tcp: {s} is no port", .{port});
        return .{
            .family = if (is_ip6) .ip6 else .ip4,
            .port = std.fmt.parseInt(u16, port, 10) catch return refusal.because(.usage, "--tcp: \"{s}\" is no port", .{port}),
        };
    }

    pub fn format(self: Address, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        try writer.print("{s}:{d}", .{ if (self.family == .ip6) "[::1]" else "127.0.0.1", self.port });
    }
};

const Socket = extern union {
    ip4: linux.sockaddr.in,
    ip6: linux.sockaddr.in6,

    fn of(address: Address) Socket {
        const port = std.mem.nativeToBig(u16, address.port);
        return switch (address.family) {
            .ip4 => .{ .ip4 = .{ .port = port, .addr = std.mem.nativeToBig(u32, 0x7f000001) } },
            .ip6 => .{ .ip6 = .{ .port = port, .flowinfo = 0, .addr = @as([15]u8, @splat(0)) ++ .{1}, .scope_id = 0 } },
        };
    }
};

/// Listens, non-blocking; `address` comes to hold the port that was taken.
pub fn listen(refusal: *Refusal, address: *Address) error{Refused}!linux.fd_t {
    const family: u32 = if (address.family == .ip6) linux.AF.INET6 else linux.AF.INET;
    const opened = linux.socket(family, linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK, 0);
    if (linux.errno(opened) != .SUCCESS) return refusal.because(.state, "no socket for {f}: {t}", .{ address.*, linux.errno(opened) });
    const fd: linux.fd_t = @intCast(opened);
    errdefer _ = linux.close(fd);
    setOption(fd, linux.SOL.SOCKET, linux.SO.REUSEADDR); // or a restart would find its own last connections in the way
    var socket: Socket = .of(address.*);
    var len: linux.socklen_t = if (address.family == .ip6) @sizeOf(linux.sockaddr.in6) else @sizeOf(linux.sockaddr.in);
    const bound = linux.bind(fd, @ptrCast(&socket), len);
    if (linux.errno(bound) != .SUCCESS) return refusal.because(.state, "cannot listen at {f}: {t}", .{ address.*, linux.errno(bound) });
    const listening = linux.listen(fd, backlog);
    if (linux.errno(listening) != .SUCCESS) return refusal.because(.state, "cannot listen at {f}: {t}", .{ address.*, linux.errno(listening) });
    const named = linux.getsockname(fd, @ptrCast(&socket), &len);
    if (linux.errno(named) == .SUCCESS) address.port = std.mem.bigToNative(u16, socket.ip4.port); // it lies where ip6 has it
    return fd;
}

/// An answer's last bytes must not wait for the acknowledgement of its first.
pub fn sendAtOnce(fd: linux.fd_t) void {
    setOption(fd, linux.IPPROTO.TCP, linux.TCP.NODELAY);
}

fn setOption(fd: linux.fd_t, level: i32, option: u32) void {
    const on: u32 = 1;
    _ = linux.setsockopt(fd, level, option, std.mem.asBytes(&on), @sizeOf(u32));
}

test "loopback is all that is listened on" {
    const testing = std.testing;
    var refusal: Refusal = .{};
    try testing.expectEqual(Address{ .family = .ip4, .port = 8000 }, try Address.parse(&refusal, "8000"));
    try testing.expectEqual(Address{ .family = .ip4, .port = 1 }, try Address.parse(&refusal, "127.0.0.1:1"));
    try testing.expectEqual(Address{ .family = .ip6, .port = 65535 }, try Address.parse(&refusal, "[::1]:65535"));
    for ([_][]const u8{
        "",       "65536",        "-1",         "+1",      "1_0",           ":8000",          "0.0.0.0:8000", "192.168.0.1:8000",
        "[::]:1", "localhost:80", "127.0.0.1:", "::1:800", "127.0.0.1.x:1", "127.0.0.1:80:1", "8000 ",
    }) |bad| {
        try testing.expectError(error.Refused, Address.parse(&refusal, bad));
        try testing.expectEqual(.usage, refusal.check);
    }
}
