//! What a package, a target, a version and a digest look like; the rules of edgepack/naming.py.
//!
//! Names become file names and URLs here, so nothing that fails isName() ever reaches a path.

const std = @import("std");

/// A SHA-256 digest as it is written everywhere: 64 lower-case hexadecimal digits.
pub const Hex = [64]u8;

pub fn isName(text: []const u8) bool {
    if (text.len == 0 or text.len > 64) return false;
    for (text, 0..) |byte, index| switch (byte) {
        'a'...'z', '0'...'9' => {},
        '.', '_', '-' => if (index == 0) return false,
        else => return false,
    };
    return true;
}

pub fn parseHex(text: []const u8) ?Hex {
    if (text.len != 64) return null;
    for (text) |byte| switch (byte) {
        '0'...'9', 'a'...'f' => {},
        else => return null,
    };
    return text[0..64].*;
}

pub fn sha256Hex(bytes: []const u8) Hex {
    var digest: [32]u8 = undefined;
    std.crypto.hash.sha2.Sha256.hash(bytes, &digest, .{});
    return std.fmt.bytesToHex(digest, .lower);
}

/// MAJOR.MINOR.PATCH, decimal, each below 2^31, without leading zeros: any two compare, one way only.
pub const Version = struct {
    parts: [3]u31,

    pub fn parse(text: []const u8) ?Version {
        var version: Version = .{ .parts = undefined };
        var numbers = std.mem.splitScalar(u8, text, '.');
        for (&version.parts) |*part| part.* = parseNumber(numbers.next() orelse return null) orelse return null;
        return if (numbers.next() == null) version else null;
    }

    pub fn order(a: Version, b: Version) std.math.Order {
        for (a.parts, b.parts) |left, right| {
            if (left != right) return std.math.order(left, right);
        }
        return .eq;
    }
};

fn parseNumber(text: []const u8) ?u31 {
    if (text.len == 0 or text.len > 10 or (text.len > 1 and text[0] == '0')) return null;
    var value: u64 = 0;
    for (text) |byte| switch (byte) {
        '0'...'9' => value = value * 10 + (byte - '0'),
        else => return null,
    };
    return std.math.cast(u31, value);
}

const testing = std.testing;

test "versions compare by their numbers, not by their text" {
    const ordered = [_][]const u8{ "0.0.0", "0.0.2", "0.0.10", "0.1.0", "1.0.0", "1.9.9", "1.10.0", "2.0.0", "10.0.0", "2147483647.0.0" };
    for (ordered, 0..) |a, i| for (ordered, 0..) |b, j| {
        try testing.expectEqual(std.math.order(i, j), Version.order(Version.parse(a).?, Version.parse(b).?));
    };
}

test "what is no version is none" {
    for ([_][]const u8{
        "",      "1",              "1.2",                      "1.2.3.4", "1.2.",   ".1.2",      "01.2.3", "1.02.3", "1.2.-3", "1.2.+3", "1.2.3 ", " 1.2.3", "1.2.3\n",
        "1.2.x", "2147483648.0.0", "0.0.99999999999999999999", "1_0.0.0", "v1.2.3", "1.2.3-rc1", "1..3",
    }) |text| try testing.expectEqual(null, Version.parse(text));
}

test "names hold nothing that a path or a shell could mistake" {
    for ([_][]const u8{ "a", "0", "mobilenet_v2", "a.b-c_d", "x" }) |name| try testing.expect(isName(name));
    const long: [65]u8 = @splat('a');
    try testing.expect(isName(long[0..64]));
    for ([_][]const u8{ "", ".", "..", ".a", "-a", "_a", "A", "a/b", "a\x00", "a b", "ä", &long }) |name| try testing.expect(!isName(name));
    const hex: Hex = @splat('a');
    try testing.expect(parseHex(&hex) != null);
    try testing.expect(parseHex("A" ++ hex[1..]) == null);
    try testing.expect(parseHex(hex[1..]) == null);
}
