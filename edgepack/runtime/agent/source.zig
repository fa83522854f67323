//! Where blobs come from: a package, a directory, a web server or bucket, or nowhere but the store.
//!
//! A directory and a web root have the same layout: `blobs/sha256/HEX`, and `models/NAME.json`, the
//! signed pointer (a DSSE envelope). Nothing in either is believed before its signature or its digest.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const Blob = @import("blob.zig").Blob;
const document = @import("document.zig");
const naming = @import("naming.zig");
const Hex = naming.Hex;
const Package = @import("package.zig").Package;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Web = @import("web.zig").Web;

pub const max_listed = 256;
const model_suffix = ".json";

pub const Source = union(enum) {
    package: *const Package,
    directory: Io.Dir,
    web: *Web,
    /// Only what the store holds already.
    nothing,

    /// `where` is a directory or an http URL; for `pull`.
    pub fn open(arena: Allocator, io: Io, refusal: *Refusal, where: []const u8) refusals.Error!Source {
        if (std.mem.find(u8, where, "://") != null) {
            const web = try arena.create(Web);
            web.* = try Web.init(arena, io, refusal, where);
            return .{ .web = web };
        }
        const dir = Io.Dir.cwd().openDir(io, where, .{ .iterate = true }) catch |err|
            return refusal.because(.source, "cannot open {s}: {t}", .{ where, err });
        return .{ .directory = dir };
    }

    /// A blob, to be read once and closed; null where the source has none of it.
    pub fn blob(self: Source, io: Io, refusal: *Refusal, hex: Hex, size: u64) error{Refused}!?Blob {
        switch (self) {
            .package => |package| return package.find(hex),
            .directory => |dir| return try openFile(dir, io, refusal, hex, size),
            .web => |web| {
                var path_buffer: [96]u8 = undefined;
                const path = std.fmt.bufPrint(&path_buffer, "blobs/sha256/{s}", .{&hex}) catch unreachable; // 77 bytes
                if (!try web.get(path, size)) return null;
                return .{ .hex = hex, .size = size, .from = .{ .web = web } };
            },
            .nothing => return null,
        }
    }

    /// The envelope of a model's newest version.
    pub fn pointer(self: Source, arena: Allocator, io: Io, refusal: *Refusal, name: []const u8) refusals.Error![]const u8 {
        const path = try std.fmt.allocPrint(arena, "models/{s}" ++ model_suffix, .{name});
        switch (self) {
            .directory => |dir| return dir.readFileAlloc(io, path, arena, .limited(document.max_bytes)) catch |err| switch (err) {
                error.OutOfMemory => return error.OutOfMemory,
                error.FileNotFound => return refusal.because(.source, "there is no {s}", .{path}),
                else => return refusal.because(.source, "cannot read {s}: {t}", .{ path, err }),
            },
            .web => |web| {
                if (!try web.get(path, null)) return refusal.because(.source, "there is no {s}", .{path});
                return web.body.interface.allocRemaining(arena, .limited(document.max_bytes)) catch |err| switch (err) {
                    error.OutOfMemory => return error.OutOfMemory,
                    error.StreamTooLong => return refusal.because(.source, "{s} is longer than {d} bytes", .{ path, document.max_bytes }),
                    error.ReadFailed => return refusal.because(.source, "the connection broke while reading {s}", .{path}),
                };
            },
            .package, .nothing => unreachable, // only what open() gives has pointers
        }
    }

    /// Models that the source lists; a web server lists none.
    pub fn models(self: Source, arena: Allocator, io: Io, refusal: *Refusal) refusals.Error![]const []const u8 {
        if (self != .directory) return &.{};
        const dir = self.directory.openDir(io, "models", .{ .iterate = true }) catch |err|
            return refusal.because(.source, "cannot read models/: {t}", .{err});
        defer dir.close(io);
        var found: std.ArrayList([]const u8) = .empty;
        var entries = dir.iterate();
        while (entries.next(io) catch |err| return refusal.because(.source, "cannot list models/: {t}", .{err})) |entry| {
            if (!std.mem.endsWith(u8, entry.name, model_suffix)) continue;
            const name = entry.name[0 .. entry.name.len - model_suffix.len];
            if (!naming.isName(name)) continue;
            if (found.items.len == max_listed) return refusal.because(.source, "more than {d} models", .{max_listed});
            try found.append(arena, try arena.dupe(u8, name));
        }
        return found.items;
    }
};

fn openFile(dir: Io.Dir, io: Io, refusal: *Refusal, hex: Hex, size: u64) error{Refused}!?Blob {
    const blobs = dir.openDir(io, "blobs/sha256", .{}) catch |err|
        return refusal.because(.source, "cannot read blobs/sha256/: {t}", .{err});
    defer blobs.close(io);
    const file = blobs.openFile(io, &hex, .{ .allow_directory = false }) catch |err| switch (err) {
        error.FileNotFound => return null,
        else => return refusal.because(.source, "cannot open blob {s}: {t}", .{ hex[0..16], err }),
    };
    errdefer file.close(io);
    const length = file.length(io) catch |err|
        return refusal.because(.source, "cannot read blob {s}: {t}", .{ hex[0..16], err });
    if (length != size) return refusal.because(.digest, "blob {s} has {d} bytes, signed were {d}", .{ hex[0..16], length, size });
    return .{ .hex = hex, .size = size, .from = .{ .file = .{ .file = file, .offset = 0, .owned = true } } };
}
