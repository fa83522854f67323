//! The device's trusted public keys: PEM files with a SubjectPublicKeyInfo, as `edgepack keys new`
//! writes them to NAME.pub.
//!
//! An SPKI of the two algorithms there are is a fixed prefix and the raw key (RFC 5480 section 2,
//! RFC 8410 section 4), so there is no ASN.1 parser here: bytes that do not start with one of the two
//! prefixes are no key.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const naming = @import("naming.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

const Ed25519 = std.crypto.sign.Ed25519;
const Ecdsa = std.crypto.sign.ecdsa.EcdsaP256Sha256;

pub const max_keys = 64;
const max_file_bytes = 4096;

// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING } up to the point.
const p256_prefix = "\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
// SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING } up to the key.
const ed25519_prefix = "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const p256_point_bytes = 65; // 0x04, x, y

pub const PublicKey = struct {
    /// Lower-case hexadecimal SHA-256 of the SPKI.
    id: naming.Hex,
    key: union(enum) { p256: Ecdsa.PublicKey, ed25519: Ed25519.PublicKey },

    pub fn fromSpki(der: []const u8) ?PublicKey {
        const id = naming.sha256Hex(der);
        if (std.mem.startsWith(u8, der, p256_prefix)) {
            const point = der[p256_prefix.len..];
            if (point.len != p256_point_bytes or point[0] != 4) return null;
            return .{ .id = id, .key = .{ .p256 = Ecdsa.PublicKey.fromSec1(point) catch return null } };
        }
        if (std.mem.startsWith(u8, der, ed25519_prefix)) {
            const raw = der[ed25519_prefix.len..];
            if (raw.len != Ed25519.PublicKey.encoded_length) return null;
            return .{ .id = id, .key = .{ .ed25519 = Ed25519.PublicKey.fromBytes(raw[0..32].*) catch return null } };
        }
        return null;
    }

    /// RFC 7468: one PUBLIC KEY block; white space around it and inside the base64 is skipped.
    pub fn fromPem(pem: []const u8) ?PublicKey {
        const white = " \t\r\n";
        const begin = "-----BEGIN PUBLIC KEY-----";
        const end = "-----END PUBLIC KEY-----";
        const text = std.mem.trim(u8, pem, white);
        if (!std.mem.startsWith(u8, text, begin) or !std.mem.endsWith(u8, text, end)) return null;
        if (text.len < begin.len + end.len) return null;
        var buffer: [256]u8 = undefined;
        const decoder = std.base64.standard.decoderWithIgnore(white);
        const len = decoder.decode(&buffer, text[begin.len .. text.len - end.len]) catch return null;
        return fromSpki(buffer[0..len]);
    }

    /// `signature` is DER for P-256 (over SHA-256), 64 raw bytes for Ed25519.
    pub fn verifies(self: PublicKey, message: []const u8, signature: []const u8) bool {
        switch (self.key) {
            .p256 => |key| {
                const parsed = Ecdsa.Signature.fromDer(signature) catch return false;
                parsed.verify(message, key) catch return false;
            },
            .ed25519 => |key| {
                if (signature.len != Ed25519.Signature.encoded_length) return false;
                Ed25519.Signature.fromBytes(signature[0..64].*).verify(message, key) catch return false;
            },
        }
        return true;
    }
};

/// All of ROOT/trust/*.pub. A file that is no key is an error: it is there because someone meant to
/// trust it, and a device that silently trusts fewer keys than it was told to is hard to debug.
pub fn load(arena: Allocator, io: Io, refusal: *Refusal, root: Io.Dir) refusals.Error![]const PublicKey {
    var found: std.ArrayList(PublicKey) = .empty;
    const dir = root.openDir(io, "trust", .{ .iterate = true }) catch |err| switch (err) {
        error.FileNotFound => return &.{},
        else => return refusal.because(.state, "cannot read trust/: {t}", .{err}),
    };
    defer dir.close(io);
    var entries = dir.iterate();
    while (entries.next(io) catch |err| return refusal.because(.state, "cannot read trust/: {t}", .{err})) |entry| {
        if (!std.mem.endsWith(u8, entry.name, ".pub")) continue;
        if (found.items.len == max_keys) return refusal.because(.state, "trust/ holds more than {d} keys", .{max_keys});
        var buffer: [max_file_bytes]u8 = undefined;
        const pem = dir.readFile(io, entry.name, &buffer) catch |err|
            return refusal.because(.state, "cannot read trust/{s}: {t}", .{ entry.name, err });
        const key = PublicKey.fromPem(pem) orelse
            return refusal.because(.state, "trust/{s} is no ECDSA P-256 or Ed25519 public key in PEM", .{entry.name});
        try found.append(arena, key);
    }
    std.sort.heap(PublicKey, found.items, {}, lessById); // directory order is no order
    return found.items;
}

fn lessById(_: void, a: PublicKey, b: PublicKey) bool {
    return std.mem.order(u8, &a.id, &b.id) == .lt;
}

const testing = std.testing;

// Made and signed by Python's cryptography 50 over the bytes "hello": another implementation.
const test_p256 = @import("keys_test_data.zig").p256;
const test_ed25519 = @import("keys_test_data.zig").ed25519;

test "keys and signatures of another implementation are understood" {
    inline for (.{ test_p256, test_ed25519 }) |vector| {
        const key = PublicKey.fromPem(vector.pem).?;
        try testing.expectEqualStrings(vector.id, &key.id);
        var buffer: [80]u8 = undefined;
        const signature = try std.fmt.hexToBytes(&buffer, vector.signature);
        try testing.expect(key.verifies("hello", signature));
        try testing.expect(!key.verifies("hellp", signature));
        try testing.expect(!key.verifies("hello", signature[0 .. signature.len - 1]));
        try testing.expect(!key.verifies("hello", ""));
        for (0..signature.len * 8) |bit| {
            signature[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
            try testing.expect(!key.verifies("hello", signature));
            signature[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
        }
    }
}

test "one signed by the other kind of key is refused" {
    var buffer: [80]u8 = undefined;
    const signature = try std.fmt.hexToBytes(&buffer, test_ed25519.signature);
    try testing.expect(!PublicKey.fromPem(test_p256.pem).?.verifies("hello", signature));
    const other = try std.fmt.hexToBytes(&buffer, test_p256.signature);
    try testing.expect(!PublicKey.fromPem(test_ed25519.pem).?.verifies("hello", other));
}

test "an all-zero ECDSA signature is refused" {
    const zero = "\x30\x06\x02\x01\x00\x02\x01\x00";
    try testing.expect(!PublicKey.fromPem(test_p256.pem).?.verifies("hello", zero));
}

test "files that are no public key are none" {
    const pem = test_p256.pem;
    for ([_][]const u8{
        "",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nMEECAQAwEw==\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
        pem ++ pem,
        pem[0 .. pem.len / 2],
        "x" ++ pem,
    }) |bad| try testing.expectEqual(null, PublicKey.fromPem(bad));
    try testing.expectEqual(null, PublicKey.fromSpki(p256_prefix ++ "\x04" ++ @as([64]u8, @splat(1)))); // not on the curve
    try testing.expectEqual(null, PublicKey.fromSpki(p256_prefix ++ "\x02" ++ @as([32]u8, @splat(1))));
    try testing.expectEqual(null, PublicKey.fromSpki(ed25519_prefix ++ @as([31]u8, @splat(1))));
    try testing.expect(PublicKey.fromPem("\r\n " ++ pem ++ " \n") != null);
}
