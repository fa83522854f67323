//! How captured requests lie on the disk; docs/capture.md describes it for readers in other languages.
//!
//! ROOT/captures/NAME/ holds the captures of one model in segments. A segment is a file to which records
//! are only added, named by the number of its first one: 16 lower-case hexadecimal digits and ".seg". A
//! new one begins with each start of the agent, with each version of the model, and when one is full.
//!
//! A record is a head of 32 bytes, its JSON, and its tensors: inputs in order, then outputs in order,
//! each as it lies in memory (little-endian, row-major), nothing between them. All numbers of the head
//! are little-endian:
//!
//!     0   4  magic "EPC1"
//!     4   4  json_bytes, 1 to 65536
//!     8   8  body_bytes, at most 2^30
//!     16  8  number; they rise within a model's folder, with gaps, and none is ever used twice
//!     24  4  CRC-32 (IEEE 802.3, as in zlib and PNG) of JSON and tensors
//!     28  4  CRC-32 of bytes 0 to 27
//!
//! The JSON:
//!
//!     {"model":NAME,"version":V,"manifest":HEX,"time":MS,"boot":ID,"boot_ms":MS,"reason":REASON,
//!      "caller":OBJECT|null,"inputs":[{"name":N,"datatype":D,"shape":[...],"bytes":N},...],"outputs":[...]}
//!
//! A reader stops at the first record of a segment that is not whole: behind it is what a power cut or a
//! full disk left. Nothing is ever added behind such a one, since each start begins a new segment.

const std = @import("std");
const Writer = std.Io.Writer;
const boot = @import("boot.zig");
const model_info = @import("model_info.zig");
const Tensor = model_info.Tensor;
const tensor_json = @import("tensor_json.zig");

/// Below ROOT.
pub const folder = "captures";
pub const head_bytes = 32;
pub const max_json_bytes = 64 << 10;
pub const max_body_bytes = model_info.max_io_bytes;
/// Of what the caller adds.
pub const max_caller_bytes = 4 << 10;

const magic = "EPC1";
const segment_suffix = ".seg";
const digits = 16;

pub const Crc = std.hash.Crc32;

/// Why a request was captured.
pub const Reason = enum { always, every, rate, below, above, nan, asked };

pub const Head = struct {
    json_bytes: u32,
    body_bytes: u64,
    number: u64,
    /// Of JSON and tensors.
    crc: u32,

    /// Of the whole record.
    pub fn recordBytes(self: Head) u64 {
        return head_bytes + self.json_bytes + self.body_bytes;
    }

    pub fn encode(self: Head) [head_bytes]u8 {
        var bytes: [head_bytes]u8 = undefined;
        bytes[0..4].* = magic.*;
        std.mem.writeInt(u32, bytes[4..8], self.json_bytes, .little);
        std.mem.writeInt(u64, bytes[8..16], self.body_bytes, .little);
        std.mem.writeInt(u64, bytes[16..24], self.number, .little);
        std.mem.writeInt(u32, bytes[24..28], self.crc, .little);
        std.mem.writeInt(u32, bytes[28..32], Crc.hash(bytes[0..28]), .little);
        return bytes;
    }

    /// Null where no record begins here. What it says of the contents is still to be held against `crc`.
    pub fn decode(bytes: *const [head_bytes]u8) ?Head {
        if (!std.mem.eql(u8, bytes[0..4], magic)) return null;
        if (std.mem.readInt(u32, bytes[28..32], .little) != Crc.hash(bytes[0..28])) return null;
        const self: Head = .{
            .json_bytes = std.mem.readInt(u32, bytes[4..8], .little),
            .body_bytes = std.mem.readInt(u64, bytes[8..16], .little),
            .number = std.mem.readInt(u64, bytes[16..24], .little),
            .crc = std.mem.readInt(u32, bytes[24..28], .little),
        };
        if (self.json_bytes == 0 or self.json_bytes > max_json_bytes or self.body_bytes > max_body_bytes) return null;
        return self;
    }
};

pub const SegmentName = [digits + segment_suffix.len]u8;

/// `first` is the number of its first record.
pub fn segmentName(first: u64) SegmentName {
    var name: SegmentName = undefined;
    _ = std.fmt.bufPrint(&name, "{x:0>16}" ++ segment_suffix, .{first}) catch unreachable; // as long as it is
    return name;
}

/// Null for a file that is no segment.
pub fn parseSegmentName(name: []const u8) ?u64 {
    if (name.len != digits + segment_suffix.len or !std.mem.endsWith(u8, name, segment_suffix)) return null;
    for (name[0..digits]) |byte| switch (byte) {
        '0'...'9', 'a'...'f' => {},
        else => return null,
    };
    return std.fmt.parseInt(u64, name[0..digits], 16) catch null;
}

/// What a record says beside its tensors.
pub const Description = struct {
    model: []const u8,
    version: []const u8,
    manifest: []const u8,
    /// Milliseconds since 1970 by the clock as it was set.
    time: u64,
    boot: boot.Id,
    boot_ms: u64,
    reason: Reason,
    /// One JSON object.
    caller: ?[]const u8,
    inputs: []const Tensor,
    outputs: []const Tensor,

    pub fn write(self: *const Description, out: *Writer) Writer.Error!void {
        try out.print("{{\"model\":\"{s}\",\"version\":\"{s}\",\"manifest\":\"{s}\",\"time\":{d},\"boot\":\"{s}\",\"boot_ms\":{d},\"reason\":\"{t}\",\"caller\":{s},\"inputs\":", .{
            self.model, self.version, self.manifest, self.time, &self.boot, self.boot_ms, self.reason, self.caller orelse "null",
        });
        try writeTensors(out, self.inputs);
        try out.writeAll(",\"outputs\":");
        try writeTensors(out, self.outputs);
        try out.writeByte('}');
    }

    pub fn bodyBytes(self: *const Description) u64 {
        var total: u64 = 0;
        for ([_][]const Tensor{ self.inputs, self.outputs }) |tensors| {
            for (tensors) |tensor| total += tensor.nbytes;
        }
        return total;
    }
};

fn writeTensors(out: *Writer, tensors: []const Tensor) Writer.Error!void {
    for (tensors, 0..) |*tensor, index| {
        try out.writeAll(if (index == 0) "[{\"name\":" else ",{\"name\":");
        try std.json.Stringify.encodeJsonString(tensor.name, .{}, out);
        try out.print(",\"datatype\":\"{s}\",\"shape\":{f},\"bytes\":{d}}}", .{
            tensor_json.datatype(tensor.dtype), tensor_json.Shape{ .extents = tensor.shape }, tensor.nbytes,
        });
    }
    try out.writeByte(']');
}

const testing = std.testing;

test "a head is read back as it was written, and not with any bit another" {
    const head: Head = .{ .json_bytes = 300, .body_bytes = 1 << 30, .number = 0x0102030405060708, .crc = 0xdeadbeef };
    const bytes = head.encode();
    try testing.expectEqual(head, Head.decode(&bytes).?);
    try testing.expectEqual(32 + 300 + (1 << 30), head.recordBytes());
    for (0..bytes.len * 8) |bit| {
        var damaged = bytes;
        damaged[bit / 8] ^= @as(u8, 1) << @intCast(bit % 8);
        try testing.expectEqual(null, Head.decode(&damaged));
    }
}

test "a head's bytes are these" {
    const head: Head = .{ .json_bytes = 2, .body_bytes = 4, .number = 1025, .crc = Crc.hash("{}abcd") };
    // python: struct.pack("<4sIQQI", b"EPC1", 2, 4, 1025, zlib.crc32(b"{}abcd")), and its own crc32
    try testing.expectEqualSlices(u8, &(.{ 'E', 'P', 'C', '1', 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0 } ++ .{ 0xd2, 0x6a, 0xa3, 0x1d, 0x4b, 0xee, 0x1e, 0xfe }), &head.encode());
}

test "lengths that no record has are refused though the checksum is right" {
    for ([_]Head{
        .{ .json_bytes = 0, .body_bytes = 1, .number = 1, .crc = 0 },
        .{ .json_bytes = max_json_bytes + 1, .body_bytes = 1, .number = 1, .crc = 0 },
        .{ .json_bytes = 1, .body_bytes = max_body_bytes + 1, .number = 1, .crc = 0 },
    }) |head| try testing.expectEqual(null, Head.decode(&head.encode()));
}

test "segments are named by a number, and nothing else is a segment" {
    for ([_]u64{ 0, 1, 1025, std.math.maxInt(u64) }) |number| try testing.expectEqual(number, parseSegmentName(&segmentName(number)).?);
    try testing.expectEqualStrings("0000000000000401.seg", &segmentName(1025));
    for ([_][]const u8{ "", "next", "rules.json", "401.seg", "000000000000040A.seg", "+000000000000401.seg", "0000000000000401.tmp", "00000000000000401.seg" }) |name| {
        try testing.expectEqual(null, parseSegmentName(name));
    }
}

test "a description is one JSON object" {
    const description: Description = .{
        .model = "m",
        .version = "1.0.0",
        .manifest = "ab",
        .time = 5,
        .boot = @splat('0'),
        .boot_ms = 6,
        .reason = .below,
        .caller = "{\"a\":1}",
        .inputs = &.{.{ .name = "x\"", .dtype = .float32, .shape = &.{ 2, 2 }, .nbytes = 16, .offset = 0 }},
        .outputs = &.{ .{ .name = "y", .dtype = .int8, .shape = &.{}, .nbytes = 1, .offset = 64 }, .{ .name = "z", .dtype = .bool, .shape = &.{3}, .nbytes = 3, .offset = 128 } },
    };
    var buffer: [1024]u8 = undefined;
    var out: Writer = .fixed(&buffer);
    try description.write(&out);
    try testing.expectEqualStrings("{\"model\":\"m\",\"version\":\"1.0.0\",\"manifest\":\"ab\",\"time\":5,\"boot\":\"000000000000000000000000000000000000\",\"boot_ms\":6," ++
        "\"reason\":\"below\",\"caller\":{\"a\":1},\"inputs\":[{\"name\":\"x\\\"\",\"datatype\":\"FP32\",\"shape\":[2,2],\"bytes\":16}]," ++
        "\"outputs\":[{\"name\":\"y\",\"datatype\":\"INT8\",\"shape\":[],\"bytes\":1},{\"name\":\"z\",\"datatype\":\"BOOL\",\"shape\":[3],\"bytes\":3}]}", out.buffered());
    try testing.expectEqual(20, description.bodyBytes());
}
