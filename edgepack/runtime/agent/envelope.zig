//! The DSSE envelope around a package's statement, and its signatures.
//!
//!     {"payload":BASE64,"payloadType":"application/vnd.in-toto+json",
//!      "signatures":[{"keyid":HEX,"sig":BASE64},...]}
//!
//! https://github.com/secure-systems-lab/dsse (protocol v1.0). It is read in canonical form only: an
//! envelope is written again from what was understood of it and must come out the same.

const std = @import("std");
const Allocator = std.mem.Allocator;
const document = @import("document.zig");
const naming = @import("naming.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const PublicKey = @import("keys.zig").PublicKey;

const base64 = std.base64.standard;

pub const payload_type = "application/vnd.in-toto+json";
pub const max_signatures = 16;
const max_signature_bytes = 256;

pub const Signature = struct { keyid: naming.Hex, bytes: []const u8 };

pub const Envelope = struct {
    payload: []const u8,
    signatures: []const Signature,

    pub fn parse(arena: Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!Envelope {
        const doc: document.Document = .{ .refusal = refusal, .check = .signature, .title = "the envelope" };
        const root = try doc.parse(arena, bytes);
        try doc.onlyFields(root, &.{ "payload", "payloadType", "signatures" });
        try doc.exactly(root, "payloadType", payload_type);
        const listed = try doc.array(root, "signatures", max_signatures);
        if (listed.len == 0) return doc.malformed("no signature", .{});
        const signatures = try arena.alloc(Signature, listed.len);
        for (listed, signatures) |value, *signature| {
            const object = try doc.asObject(value, "a signature");
            try doc.onlyFields(object, &.{ "keyid", "sig" });
            signature.* = .{
                .keyid = naming.parseHex(try doc.string(object, "keyid", 64)) orelse
                    return doc.malformed("keyid is not 64 hexadecimal digits", .{}),
                .bytes = try decode(arena, doc, try doc.string(object, "sig", 2 * max_signature_bytes)),
            };
        }
        const payload = try decode(arena, doc, try doc.string(root, "payload", document.max_bytes));
        const envelope: Envelope = .{ .payload = payload, .signatures = signatures };
        if (!std.mem.eql(u8, bytes, try envelope.render(arena))) return doc.malformed("not in canonical form", .{});
        return envelope;
    }

    fn render(self: Envelope, arena: Allocator) error{OutOfMemory}![]const u8 {
        var out: std.Io.Writer.Allocating = .init(arena);
        self.write(&out.writer) catch return error.OutOfMemory;
        return out.written();
    }

    fn write(self: Envelope, out: *std.Io.Writer) std.Io.Writer.Error!void {
        try out.writeAll("{\"payload\":\"");
        try base64.Encoder.encodeWriter(out, self.payload);
        try out.writeAll("\",\"payloadType\":\"" ++ payload_type ++ "\",\"signatures\":[");
        for (self.signatures, 0..) |signature, index| {
            if (index > 0) try out.writeByte(',');
            try out.print("{{\"keyid\":\"{s}\",\"sig\":\"", .{&signature.keyid});
            try base64.Encoder.encodeWriter(out, signature.bytes);
            try out.writeAll("\"}");
        }
        try out.writeAll("]}");
    }

    /// At least one signature is by a trusted key. Signatures by other keys are not looked at; one
    /// that names a trusted key and does not verify condemns the whole.
    pub fn verify(self: Envelope, arena: Allocator, refusal: *Refusal, keys: []const PublicKey) refusals.Error!void {
        if (keys.len == 0) return refusal.because(.key, "this device trusts no key yet (trust/*.pub)", .{});
        const message = try preAuthEncoding(arena, payload_type, self.payload);
        var trusted: usize = 0;
        for (self.signatures) |signature| {
            for (keys) |key| {
                if (!std.mem.eql(u8, &key.id, &signature.keyid)) continue;
                if (!key.verifies(message, signature.bytes)) {
                    return refusal.because(.signature, "the signature by key {s} is not valid", .{key.id[0..16]});
                }
                trusted += 1;
            }
        }
        if (trusted == 0) {
            return refusal.because(.key, "signed by {s}, which this device does not trust", .{self.signatures[0].keyid[0..16]});
        }
    }
};

fn decode(arena: Allocator, doc: document.Document, text: []const u8) refusals.Error![]const u8 {
    const size = base64.Decoder.calcSizeForSlice(text) catch return doc.malformed("bad base64", .{});
    const bytes = try arena.alloc(u8, size);
    base64.Decoder.decode(bytes, text) catch return doc.malformed("bad base64", .{});
    return bytes;
}

/// DSSE's PAE: what is signed.
fn preAuthEncoding(arena: Allocator, kind: []const u8, body: []const u8) error{OutOfMemory}![]const u8 {
    return std.fmt.allocPrint(arena, "DSSEv1 {d} {s} {d} {s}", .{ kind.len, kind, body.len, body });
}

const testing = std.testing;

test "PAE as the DSSE specification's example has it" {
    const encoded = try preAuthEncoding(testing.allocator, "http://example.com/HelloWorld", "hello world");
    defer testing.allocator.free(encoded);
    try testing.expectEqualStrings("DSSEv1 29 http://example.com/HelloWorld 11 hello world", encoded);
}

fn testParse(bytes: []const u8) refusals.Error!usize {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    return (try Envelope.parse(arena.allocator(), &refusal, bytes)).signatures.len;
}

const test_keyid: naming.Hex = @splat('a');
const test_signature = "{\"keyid\":\"" ++ test_keyid ++ "\",\"sig\":\"AAA=\"}";
const test_head = "{\"payload\":\"e30=\",\"payloadType\":\"application/vnd.in-toto+json\",\"signatures\":[";

test "an envelope is read in canonical form only" {
    try testing.expectEqual(1, try testParse(test_head ++ test_signature ++ "]}"));
    try testing.expectEqual(2, try testParse(test_head ++ test_signature ++ "," ++ test_signature ++ "]}"));
    inline for (.{
        "",
        "{}",
        test_head ++ "]}",
        test_head ++ test_signature ++ "]} ",
        " " ++ test_head ++ test_signature ++ "]}",
        test_head ++ test_signature ++ "],\"x\":1}",
        test_head ++ "{\"keyid\":\"" ++ test_keyid ++ "\",\"sig\":\"AAB=\"}]}", // bits after the end
        test_head ++ "{\"keyid\":\"" ++ test_keyid ++ "\",\"sig\":\"AAA\"}]}",
        test_head ++ "{\"keyid\":\"" ++ test_keyid ++ "\",\"sig\":\"A-A=\"}]}",
        test_head ++ "{\"keyid\":\"aa\",\"sig\":\"AAA=\"}]}",
        test_head ++ "{\"sig\":\"AAA=\",\"keyid\":\"" ++ test_keyid ++ "\"}]}",
        test_head ++ "{\"keyid\":\"" ++ test_keyid ++ "\",\"sig\":\"AAA=\",\"x\":1}]}",
        "{\"payload\":\"e30=\",\"payloadType\":\"text/plain\",\"signatures\":[" ++ test_signature ++ "]}",
    }) |bad| try testing.expectError(error.Refused, testParse(bad));
    const seventeen: [17 * (test_signature.len + 1)]u8 = @bitCast(@as([17][test_signature.len + 1]u8, @splat((test_signature ++ ",").*)));
    try testing.expectError(error.Refused, testParse(test_head ++ seventeen[0 .. seventeen.len - 1] ++ "]}"));
}
