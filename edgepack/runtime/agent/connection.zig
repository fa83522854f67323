//! A connected socket as std.Io reader and writer, with one deadline for both.
//!
//! The socket is non-blocking; every wait is a poll() that ends at `deadline`, so a peer that stops
//! sending or stops reading holds a thread for a bounded time only.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const clock = @import("clock.zig");

pub const Connection = struct {
    fd: linux.fd_t,
    /// Becomes readable, and stays so, when the server is to stop.
    stop: linux.fd_t,
    /// Any process of the machine, and any web page in a browser there, may be at the other end.
    over_tcp: bool = false,
    /// Whose process is at the other end, where that is known.
    user: ?linux.uid_t = null,
    /// In clock.milliseconds(); reads and writes fail after it.
    deadline: u64 = 0,
    timed_out: bool = false,
    /// The server is to stop, as the last waitForBytes() saw it.
    stopping: bool = false,
    reader: Io.Reader,
    writer: Io.Writer,

    pub fn init(fd: linux.fd_t, stop: linux.fd_t, read_buffer: []u8, write_buffer: []u8) Connection {
        return .{
            .fd = fd,
            .stop = stop,
            .reader = .{ .vtable = &.{ .stream = stream }, .buffer = read_buffer, .seek = 0, .end = 0 },
            .writer = .{ .vtable = &.{ .drain = drain }, .buffer = write_buffer },
        };
    }

    pub const Next = enum { bytes, closed, idle, stopping };

    /// Waits for the first byte of the next request. Bytes that are there already go before stopping.
    pub fn waitForBytes(self: *Connection, idle_ms: u64) Next {
        if (self.reader.bufferedLen() > 0) {
            self.stopping = self.stopping or self.isStopping();
            return .bytes;
        }
        self.reader.seek = 0; // room for a whole request, not for its beginning
        self.reader.end = 0;
        const deadline = clock.milliseconds() + idle_ms;
        var fds = [_]linux.pollfd{
            .{ .fd = self.fd, .events = linux.POLL.IN, .revents = 0 },
            .{ .fd = self.stop, .events = linux.POLL.IN, .revents = 0 },
        };
        if (!clock.poll(&fds, deadline)) return .idle;
        self.stopping = fds[1].revents != 0;
        if (fds[0].revents & linux.POLL.IN != 0) return .bytes;
        return if (fds[0].revents != 0) .closed else .stopping;
    }

    fn isStopping(self: *const Connection) bool {
        var fds = [_]linux.pollfd{.{ .fd = self.stop, .events = linux.POLL.IN, .revents = 0 }};
        return clock.poll(&fds, 0);
    }

    /// Ends our side, and reads what the peer still sends so that it comes to read our last answer
    /// instead of failing to write; for a bounded time.
    pub fn linger(self: *Connection, milliseconds: u64) void {
        _ = linux.shutdown(self.fd, linux.SHUT.WR);
        self.deadline = clock.milliseconds() + milliseconds;
        var scratch: [4096]u8 = undefined;
        while (true) {
            const count = self.receive(&scratch) catch return;
            if (count == 0) return;
        }
    }

    fn receive(self: *Connection, into: []u8) error{ReadFailed}!usize {
        while (true) {
            const count = linux.read(self.fd, into.ptr, into.len);
            switch (linux.errno(count)) {
                .SUCCESS => return count,
                .INTR => {},
                .AGAIN => if (!self.wait(linux.POLL.IN)) return error.ReadFailed,
                else => return error.ReadFailed,
            }
        }
    }

    fn wait(self: *Connection, events: i16) bool {
        var fds = [_]linux.pollfd{.{ .fd = self.fd, .events = events, .revents = 0 }};
        if (clock.poll(&fds, self.deadline)) return true;
        self.timed_out = true;
        return false;
    }

    fn stream(reader: *Io.Reader, writer: *Io.Writer, limit: Io.Limit) Io.Reader.StreamError!usize {
        const self: *Connection = @alignCast(@fieldParentPtr("reader", reader));
        const into = limit.slice(try writer.writableSliceGreedy(1));
        const count = try self.receive(into);
        if (count == 0) return error.EndOfStream;
        writer.advance(count);
        return count;
    }

    fn drain(writer: *Io.Writer, data: []const []const u8, splat: usize) Io.Writer.Error!usize {
        const self: *Connection = @alignCast(@fieldParentPtr("writer", writer));
        if (data.len == 1 and splat == 0) {
            try self.send(writer.buffered(), "");
            writer.end = 0;
            return 0;
        }
        // With the first of what does not fit: a head and its body are one message, not two.
        try self.send(writer.buffered(), data[0]);
        writer.end = 0;
        return data[0].len;
    }

    fn send(self: *Connection, first: []const u8, second: []const u8) error{WriteFailed}!void {
        var parts = [_]std.posix.iovec_const{ .{ .base = first.ptr, .len = first.len }, .{ .base = second.ptr, .len = second.len } };
        const message: linux.msghdr_const = .{ .name = null, .namelen = 0, .iov = &parts, .iovlen = parts.len, .control = null, .controllen = 0, .flags = 0 };
        while (parts[0].len + parts[1].len > 0) {
            const count = linux.sendmsg(self.fd, &message, linux.MSG.NOSIGNAL);
            switch (linux.errno(count)) {
                .SUCCESS => {
                    const of_first = @min(count, parts[0].len);
                    for (&parts, [_]usize{ of_first, count - of_first }) |*part, sent| {
                        part.base += sent;
                        part.len -= sent;
                    }
                },
                .INTR => {},
                .AGAIN => if (!self.wait(linux.POLL.OUT)) return error.WriteFailed,
                else => return error.WriteFailed,
            }
        }
    }
};

/// A connected pair, for tests.
pub fn pair() ![2]linux.fd_t {
    var fds: [2]linux.fd_t = undefined;
    const result = linux.socketpair(linux.AF.UNIX, linux.SOCK.STREAM | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK, 0, &fds);
    if (linux.errno(result) != .SUCCESS) return error.SkipZigTest;
    return fds;
}

test "a peer that sends nothing or reads nothing costs no more than the deadline" {
    const fds = try pair();
    defer for (fds) |fd| {
        _ = linux.close(fd);
    };
    var read_buffer: [64]u8 = undefined;
    var write_buffer: [64]u8 = undefined;
    var connection: Connection = .init(fds[0], fds[0], &read_buffer, &write_buffer);
    connection.deadline = clock.milliseconds() + 20;
    try std.testing.expectError(error.ReadFailed, connection.reader.takeByte());
    try std.testing.expect(connection.timed_out);
    const plenty: [1 << 16]u8 = @splat('x');
    const outcome = for (0..1000) |_| {
        connection.writer.writeAll(&plenty) catch |err| break err;
    } else unreachable;
    try std.testing.expectEqual(error.WriteFailed, outcome);
    try std.testing.expectEqual(.idle, connection.waitForBytes(1));
    try std.testing.expect(clock.milliseconds() < connection.deadline + 5000);
}
