//! The canonical tar that packages are: one way only to write a list of files down.
//!
//! Each header is made again from the name and the size that were read from it, and must come out the
//! same in all 512 bytes; padding is zero; two zero blocks end the file, exactly there. So there is
//! nothing here about links, directories, owners, PAX or GNU extensions: a file that has them is no
//! package, and neither is one with a flipped bit between the contents.

const std = @import("std");
const Allocator = std.mem.Allocator;
const File = std.Io.File;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

pub const block_bytes = 512;
pub const max_entries = 1024;
const max_name = 100;
const end_bytes = 2 * block_bytes;

/// A piece of a file: an entry's contents.
pub const Entry = struct {
    name: []const u8,
    offset: u64,
    size: u64, // below 8 GiB, by the eleven octal digits of its field
};

/// All entries of the archive, in order. Contents are not read.
pub fn scan(arena: Allocator, io: std.Io, refusal: *Refusal, file: File) refusals.Error![]Entry {
    const stat = file.stat(io) catch |err| return refusal.because(.package, "cannot read the package: {t}", .{err});
    if (stat.kind != .file) return refusal.because(.package, "the package is not a regular file", .{});
    const length = stat.size;
    var entries: std.ArrayList(Entry) = .empty;
    var position: u64 = 0;
    while (true) {
        var block: [block_bytes]u8 = undefined;
        try readBlock(io, refusal, file, position, &block);
        if (isZero(&block)) break;
        if (entries.items.len == max_entries) return refusal.because(.package, "more than {d} entries", .{max_entries});
        const entry = try parseHeader(arena, &block) orelse
            return refusal.because(.package, "the tar header at byte {d} is not the canonical one", .{position});
        try entries.append(arena, .{ .name = entry.name, .offset = position + block_bytes, .size = entry.size });
        const content_end = position + block_bytes + entry.size;
        const padded_end = std.mem.alignForward(u64, content_end, block_bytes);
        if (padded_end > length) return refusal.because(.package, "truncated within {s}", .{entry.name});
        if (padded_end > content_end) {
            // The block that the contents end in, for the sake of what follows them.
            try readBlock(io, refusal, file, padded_end - block_bytes, &block);
            if (!isZero(block[@intCast(block_bytes - (padded_end - content_end))..])) {
                return refusal.because(.package, "the padding after {s} is not zero", .{entry.name});
            }
        }
        position = padded_end;
    }
    if (length < position + end_bytes) return refusal.because(.package, "truncated before its end", .{});
    if (length > position + end_bytes) return refusal.because(.package, "there are bytes after its end", .{});
    var block: [block_bytes]u8 = undefined;
    try readBlock(io, refusal, file, position + block_bytes, &block);
    if (!isZero(&block)) return refusal.because(.package, "the end of the archive is not zero", .{});
    return entries.items;
}

fn readBlock(io: std.Io, refusal: *Refusal, file: File, offset: u64, block: *[block_bytes]u8) error{Refused}!void {
    const count = file.readPositionalAll(io, block, offset) catch |err|
        return refusal.because(.package, "cannot read the package: {t}", .{err});
    if (count != block_bytes) return refusal.because(.package, "truncated at byte {d}", .{offset + count});
}

fn isZero(bytes: []const u8) bool {
    return std.mem.allEqual(u8, bytes, 0);
}

/// The entry's name and size; null where the block is not what header() makes of them.
fn parseHeader(arena: Allocator, block: *const [block_bytes]u8) error{OutOfMemory}!?struct { name: []const u8, size: u64 } {
    const name = std.mem.sliceTo(block[0..max_name], 0);
    const size = std.fmt.parseInt(u64, block[124..135], 8) catch return null;
    for (name) |byte| if (byte <= 0x20 or byte >= 0x7f) return null;
    if (!std.mem.eql(u8, block, &header(name, size))) return null;
    return .{ .name = try arena.dupe(u8, name), .size = size };
}

/// POSIX.1-1988 ustar, a regular file, mode 0644, all else zero; `name` at most 100 bytes.
pub fn header(name: []const u8, size: u64) [block_bytes]u8 {
    var block: [block_bytes]u8 = @splat(0);
    @memcpy(block[0..name.len], name);
    @memcpy(block[100..107], "0000644");
    @memcpy(block[108..115], "0000000"); // uid
    @memcpy(block[116..123], "0000000"); // gid
    _ = std.fmt.bufPrint(block[124..135], "{o:0>11}", .{size}) catch unreachable; // parsed from 11 digits
    @memcpy(block[136..147], "00000000000"); // mtime
    @memcpy(block[148..156], "        "); // the checksum counts itself as blanks
    block[156] = '0';
    @memcpy(block[257..265], "ustar\x0000");
    var sum: u32 = 0;
    for (block) |byte| sum += byte;
    _ = std.fmt.bufPrint(block[148..156], "{o:0>6}\x00 ", .{sum}) catch unreachable; // at most 512 * 255
    return block;
}

const testing = std.testing;

/// oci-layout with 30 bytes, and an empty blob.
fn testArchive() [4 * block_bytes + end_bytes]u8 {
    var bytes: [4 * block_bytes + end_bytes]u8 = @splat(0);
    bytes[0..block_bytes].* = header("oci-layout", 30);
    @memset(bytes[block_bytes..][0..30], 'x');
    bytes[2 * block_bytes ..][0..block_bytes].* = header("blobs/sha256/00", block_bytes);
    @memset(bytes[3 * block_bytes ..][0..block_bytes], 'y');
    return bytes;
}

fn testScan(bytes: []const u8) !usize {
    const io = testing.io;
    var dir = testing.tmpDir(.{});
    defer dir.cleanup();
    try dir.dir.writeFile(io, .{ .sub_path = "t.tar", .data = bytes });
    const file = try dir.dir.openFile(io, "t.tar", .{});
    defer file.close(io);
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    const entries = scan(arena.allocator(), io, &refusal, file) catch |err| {
        try testing.expectEqual(.package, refusal.check);
        return err;
    };
    for (entries) |entry| try testing.expect(entry.offset % block_bytes == 0);
    return entries.len;
}

test "a canonical archive is read" {
    try testing.expectEqual(2, try testScan(&testArchive()));
    const empty: [end_bytes]u8 = @splat(0);
    try testing.expectEqual(0, try testScan(&empty));
}

test "every flipped byte outside of contents is refused" {
    const good = testArchive();
    for (0..good.len) |position| {
        if (position >= block_bytes and position < block_bytes + 30) continue;
        if (position >= 3 * block_bytes and position < 4 * block_bytes) continue;
        for ([_]u8{ 0x01, 0x20, 0xff }) |flip| {
            var bad = good;
            bad[position] ^= flip;
            try testing.expectError(error.Refused, testScan(&bad));
        }
    }
}

test "every truncation and anything after the end is refused" {
    const good = testArchive();
    for (0..good.len) |len| try testing.expectError(error.Refused, testScan(good[0..len]));
    try testing.expectError(error.Refused, testScan(&good ++ "\x00"));
    try testing.expectError(error.Refused, testScan(&good ++ &good));
}

test "links, directories, odd sizes and odd names are refused" {
    const Change = struct { at: usize, to: []const u8 };
    for ([_]Change{
        .{ .at = 156, .to = "1" },           .{ .at = 156, .to = "2" },           .{ .at = 156, .to = "5" },           .{ .at = 156, .to = "x" },
        .{ .at = 156, .to = "L" },           .{ .at = 156, .to = "g" },           .{ .at = 124, .to = "\x80" },        .{ .at = 124, .to = "77777777777" },
        .{ .at = 124, .to = "-0000000001" }, .{ .at = 124, .to = "+0000000036" }, .{ .at = 124, .to = "0_000000036" }, .{ .at = 0, .to = "\x00" },
        .{ .at = 0, .to = "a b" },           .{ .at = 0, .to = "\xc3\xa4" },      .{ .at = 100, .to = "0000755" },     .{ .at = 345, .to = "prefix" },
    }) |change| {
        var bad = testArchive();
        @memcpy(bad[change.at..][0..change.to.len], change.to);
        // With a right checksum, so that it is not the checksum that saves us.
        @memcpy(bad[148..156], "        ");
        var sum: u32 = 0;
        for (bad[0..block_bytes]) |byte| sum += byte;
        _ = std.fmt.bufPrint(bad[148..156], "{o:0>6}\x00 ", .{sum}) catch unreachable;
        try testing.expectError(error.Refused, testScan(&bad));
    }
}
