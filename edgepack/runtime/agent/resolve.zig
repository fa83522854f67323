//! A host name's addresses: a literal, /etc/hosts, or the name servers of /etc/resolv.conf.
//!
//! The standard library's resolver would bring 130 KB with it, for concurrency that a device which
//! pulls one model does not need. This one asks for A, then AAAA records, one server after another, and
//! knows no search domains. An answer decides only whom we ask for signed things.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const clock = @import("clock.zig");

pub const Address = Io.net.IpAddress;
pub const max_addresses = 8;
const max_file_bytes = 64 << 10;
const max_servers = 3;
const rounds = 2;
const answer_ms = 3_000;
const max_packet = 1232; // fits any path's datagram, and is more than the 512 of RFC 1035

pub const Addresses = struct {
    items: [max_addresses]Address = undefined,
    len: usize = 0,

    fn add(self: *Addresses, address: Address) void {
        if (self.len == max_addresses) return;
        self.items[self.len] = address;
        self.len += 1;
    }

    pub fn slice(self: *const Addresses) []const Address {
        return self.items[0..self.len];
    }
};

/// Empty where the name is not known, or nobody answers.
pub fn resolve(arena: std.mem.Allocator, io: Io, host: []const u8, port: u16) Addresses {
    var found: Addresses = .{};
    const bare = std.mem.trim(u8, host, "[]"); // as an IPv6 literal stands in a URL
    if (Address.parse(bare, port)) |address| {
        found.add(address);
        return found;
    } else |_| {}
    if (readFile(arena, io, "/etc/hosts")) |hosts| searchHosts(&found, hosts, host, port);
    if (found.len == 0 and std.ascii.eqlIgnoreCase(host, "localhost")) {
        found.add(.{ .ip4 = .loopback(port) });
        found.add(.{ .ip6 = .loopback(port) });
    }
    if (found.len == 0) askServers(&found, readFile(arena, io, "/etc/resolv.conf") orelse "", host, port);
    return found;
}

fn readFile(arena: std.mem.Allocator, io: Io, path: []const u8) ?[]const u8 {
    return Io.Dir.cwd().readFileAlloc(io, path, arena, .limited(max_file_bytes)) catch null;
}

/// Lines of an address and names; "#" begins a comment.
fn searchHosts(found: *Addresses, hosts: []const u8, host: []const u8, port: u16) void {
    var lines = std.mem.splitScalar(u8, hosts, '\n');
    while (lines.next()) |line| {
        const text = line[0 .. std.mem.findScalar(u8, line, '#') orelse line.len];
        var words = std.mem.tokenizeAny(u8, text, " \t\r");
        const address = Address.parse(words.next() orelse continue, port) catch continue;
        while (words.next()) |name| {
            if (std.ascii.eqlIgnoreCase(name, host)) found.add(address);
        }
    }
}

fn askServers(found: *Addresses, configuration: []const u8, host: []const u8, port: u16) void {
    var servers: Addresses = .{};
    var lines = std.mem.splitScalar(u8, configuration, '\n');
    while (lines.next()) |line| {
        var words = std.mem.tokenizeAny(u8, line, " \t\r");
        if (!std.mem.eql(u8, words.next() orelse continue, "nameserver")) continue;
        servers.add(Address.parse(words.next() orelse continue, 53) catch continue);
    }
    for (0..rounds) |_| {
        for (servers.slice()[0..@min(servers.len, max_servers)]) |server| {
            for ([_]Record{ .a, .aaaa }) |record| {
                ask(found, server, host, record, port);
                if (found.len > 0) return;
            }
        }
    }
}

const Record = enum(u16) { a = 1, aaaa = 28 };

fn ask(found: *Addresses, server: Address, host: []const u8, record: Record, port: u16) void {
    var id: u16 = undefined;
    _ = linux.getrandom(std.mem.asBytes(&id), @sizeOf(u16), 0);
    var query_buffer: [300]u8 = undefined;
    const query = writeQuery(&query_buffer, id, host, record) orelse return;
    const fd = connectTo(server, linux.SOCK.DGRAM, clock.milliseconds() + answer_ms) orelse return;
    defer _ = linux.close(fd);
    if (linux.errno(linux.sendto(fd, query.ptr, query.len, linux.MSG.NOSIGNAL, null, 0)) != .SUCCESS) return;
    const deadline = clock.milliseconds() + answer_ms;
    while (true) {
        var fds = [_]linux.pollfd{.{ .fd = fd, .events = linux.POLL.IN, .revents = 0 }};
        if (!clock.poll(&fds, deadline)) return;
        var packet: [max_packet]u8 = undefined;
        const count = linux.recvfrom(fd, &packet, packet.len, 0, null, null);
        if (linux.errno(count) != .SUCCESS) return;
        if (count < 12 or std.mem.readInt(u16, packet[0..2], .big) != id) continue; // somebody else's
        return readAnswer(found, packet[0..count], record, port) orelse {};
    }
}

/// RFC 1035 section 4: header, then one question. Null where the name cannot be one.
fn writeQuery(buffer: *[300]u8, id: u16, host: []const u8, record: Record) ?[]const u8 {
    if (host.len == 0 or host.len > 253) return null;
    var writer: Io.Writer = .fixed(buffer);
    const header = [_]u16{ id, 0x0100, 1, 0, 0, 0 }; // recursion desired
    for (header) |word| writer.writeInt(u16, word, .big) catch return null;
    var labels = std.mem.splitScalar(u8, std.mem.trimEnd(u8, host, "."), '.');
    while (labels.next()) |label| {
        if (label.len == 0 or label.len > 63) return null;
        writer.writeByte(@intCast(label.len)) catch return null;
        writer.writeAll(label) catch return null;
    }
    writer.writeByte(0) catch return null;
    for ([_]u16{ @backingInt(record), 1 }) |word| writer.writeInt(u16, word, .big) catch return null;
    return writer.buffered();
}

/// Null where the packet is not well-formed; what was found until then is kept.
fn readAnswer(found: *Addresses, packet: []const u8, record: Record, port: u16) ?void {
    const questions = readWord(packet, 4) orelse return null;
    const answers = readWord(packet, 6) orelse return null;
    var at: usize = 12;
    for (0..questions) |_| at = (skipName(packet, at) orelse return null) + 4;
    for (0..answers) |_| {
        at = skipName(packet, at) orelse return null;
        const kind = readWord(packet, at) orelse return null;
        const length = readWord(packet, at + 8) orelse return null;
        const data_at = at + 10;
        if (data_at + length > packet.len) return null;
        const data = packet[data_at..][0..length];
        at = data_at + length;
        if (kind != @backingInt(record)) continue; // a CNAME on the way
        if (record == .a and length == 4) found.add(.{ .ip4 = .{ .bytes = data[0..4].*, .port = port } });
        if (record == .aaaa and length == 16) found.add(.{ .ip6 = .{ .bytes = data[0..16].*, .port = port } });
    }
}

fn readWord(packet: []const u8, at: usize) ?u16 {
    if (at + 2 > packet.len) return null;
    return std.mem.readInt(u16, packet[at..][0..2], .big);
}

/// Past a name: labels up to an empty one, or up to a pointer, which is not followed.
fn skipName(packet: []const u8, start: usize) ?usize {
    var at = start;
    while (at < packet.len) {
        const length = packet[at];
        if (length == 0) return at + 1;
        if (length >= 0xc0) return at + 2;
        at += 1 + @as(usize, length);
    }
    return null;
}

/// A connected, non-blocking socket; null where there is none by the deadline.
pub fn connectTo(address: Address, kind: u32, deadline: u64) ?linux.fd_t {
    const family: u32 = if (address == .ip4) linux.AF.INET else linux.AF.INET6;
    const made = linux.socket(family, kind | linux.SOCK.CLOEXEC | linux.SOCK.NONBLOCK, 0);
    if (linux.errno(made) != .SUCCESS) return null;
    const fd: linux.fd_t = @intCast(made);
    if (connectSocket(fd, address, deadline)) return fd;
    _ = linux.close(fd);
    return null;
}

fn connectSocket(fd: linux.fd_t, address: Address, deadline: u64) bool {
    const result = switch (address) {
        .ip4 => |ip| result: {
            const name: linux.sockaddr.in = .{ .port = std.mem.nativeToBig(u16, ip.port), .addr = @bitCast(ip.bytes) };
            break :result linux.connect(fd, @ptrCast(&name), @sizeOf(@TypeOf(name)));
        },
        .ip6 => |ip| result: {
            const name: linux.sockaddr.in6 = .{ .port = std.mem.nativeToBig(u16, ip.port), .flowinfo = 0, .addr = ip.bytes, .scope_id = 0 };
            break :result linux.connect(fd, @ptrCast(&name), @sizeOf(@TypeOf(name)));
        },
    };
    switch (linux.errno(result)) {
        .SUCCESS => return true,
        .INPROGRESS, .INTR => {},
        else => return false,
    }
    var fds = [_]linux.pollfd{.{ .fd = fd, .events = linux.POLL.OUT, .revents = 0 }};
    return clock.poll(&fds, deadline) and fds[0].revents & (linux.POLL.ERR | linux.POLL.HUP) == 0;
}

const testing = std.testing;

test "names are found in a hosts file" {
    var found: Addresses = .{};
    searchHosts(&found, "127.0.0.1 localhost\n# 10.0.0.1 depot\n10.0.0.2\tdepot.example depot # x\n::1 depot\nbad depot", "DEPOT", 80);
    try testing.expectEqual(2, found.len);
    try testing.expectEqual(.{ 10, 0, 0, 2 }, found.items[0].ip4.bytes);
}

test "an answer is read, and no cut or twisted one is read beyond its end" {
    var buffer: [300]u8 = undefined;
    const query = writeQuery(&buffer, 7, "depot.example.", .a).?;
    const tail = "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x02\xc0\x0c" ++ // a CNAME
        "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x03";
    var packet: [128]u8 = undefined;
    @memcpy(packet[0..query.len], query);
    @memcpy(packet[query.len..][0..tail.len], tail);
    packet[7] = 2; // answers
    const whole = packet[0 .. query.len + tail.len];
    var found: Addresses = .{};
    try testing.expect(readAnswer(&found, whole, .a, 80) != null);
    try testing.expectEqual(1, found.len);
    try testing.expectEqual(.{ 10, 0, 0, 3 }, found.items[0].ip4.bytes);
    for (0..whole.len) |len| try testing.expectEqual(null, readAnswer(&found, whole[0..len], .a, 80));
    for (0..whole.len) |at| for (0..256) |byte| {
        var twisted = packet;
        twisted[at] = @intCast(byte);
        var ignored: Addresses = .{};
        _ = readAnswer(&ignored, twisted[0..whole.len], .a, 80);
    };
    try testing.expectEqual(null, writeQuery(&buffer, 7, "a..b", .a));
}
