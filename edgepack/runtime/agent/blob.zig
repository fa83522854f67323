//! A blob that is being read: a piece of a file, or the body of an HTTP response. Whoever reads it
//! hashes it; nothing is believed for where it came from.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const naming = @import("naming.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Web = @import("web.zig").Web;
const Sha256 = std.crypto.hash.sha2.Sha256;

/// The only buffer that contents pass through, whatever their size.
pub const chunk_bytes = 64 << 10;

pub const Blob = struct {
    hex: naming.Hex,
    /// As it is signed, or as the tar header says; exactly this much is read.
    size: u64,
    from: union(enum) {
        file: struct { file: Io.File, offset: u64, owned: bool },
        /// The response's body that is being received; whose it is, outlives this.
        web: *Web,
        memory: []const u8,
    },
    position: u64 = 0,
    hasher: Sha256 = .init(.{}),

    /// The next bytes; an empty slice at the end. At the end, and before any byte beyond it is looked
    /// at, the digest is compared.
    pub fn next(self: *Blob, io: Io, refusal: *Refusal, buffer: []u8) error{Refused}![]const u8 {
        const wanted: usize = @intCast(@min(buffer.len, self.size - self.position));
        if (wanted == 0) {
            try self.checkDigest(refusal);
            return buffer[0..0];
        }
        const count = switch (self.from) {
            .file => |it| it.file.readPositionalAll(io, buffer[0..wanted], it.offset + self.position) catch |err|
                return refusal.because(.package, "cannot read blob {s}: {t}", .{ self.hex[0..16], err }),
            .memory => |bytes| copied: {
                @memcpy(buffer[0..wanted], bytes[@intCast(self.position)..][0..wanted]);
                break :copied wanted;
            },
            .web => |web| web.read(buffer[0..wanted]) catch
                return refusal.because(.source, "the connection broke at byte {d} of blob {s}", .{ self.position, self.hex[0..16] }),
        };
        if (count != wanted) return refusal.because(.digest, "blob {s} ends at byte {d} of {d}", .{ self.hex[0..16], self.position + count, self.size });
        self.position += count;
        self.hasher.update(buffer[0..count]);
        return buffer[0..count];
    }

    fn checkDigest(self: *Blob, refusal: *Refusal) error{Refused}!void {
        const found = std.fmt.bytesToHex(self.hasher.peek(), .lower);
        if (!std.mem.eql(u8, &found, &self.hex)) {
            return refusal.because(.digest, "the contents of blob {s} have another digest: {s}", .{ &self.hex, &found });
        }
    }

    pub fn ofMemory(hex: naming.Hex, bytes: []const u8) Blob {
        return .{ .hex = hex, .size = bytes.len, .from = .{ .memory = bytes } };
    }

    /// Reads it through for its digest alone.
    pub fn check(self: *Blob, io: Io, refusal: *Refusal) error{Refused}!void {
        var buffer: [chunk_bytes]u8 = undefined;
        while ((try self.next(io, refusal, &buffer)).len > 0) {}
    }

    /// The whole of a small one; the caller has bounded the size.
    pub fn readAll(self: *Blob, arena: Allocator, io: Io, refusal: *Refusal) refusals.Error![]const u8 {
        const bytes = try arena.alloc(u8, @intCast(self.size));
        while ((try self.next(io, refusal, bytes[@intCast(self.position)..])).len > 0) {}
        return bytes;
    }

    pub fn close(self: *Blob, io: Io) void {
        switch (self.from) {
            .file => |it| if (it.owned) it.file.close(io),
            .web, .memory => {},
        }
    }
};
