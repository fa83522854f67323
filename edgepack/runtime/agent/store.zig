//! The device's store under ROOT: blobs by digest, one state per model, one lock.
//!
//!     ROOT/blobs/sha256/HEX       contents; workers 0555, all others 0444
//!     ROOT/blobs/tmp.HEX          being written; litter whenever the lock is free
//!     ROOT/models/NAME/state.json see state.zig
//!     ROOT/incoming/              uploads; they belong to who uploads, for a day
//!     ROOT/trust/*.pub            see keys.zig
//!     ROOT/config.json            {"target":NAME}
//!     ROOT/serve.json             see settings.zig
//!     ROOT/lock                   held (flock) by whatever changes the store
//!
//! Order that makes an installation survive a power cut at any point: each missing blob is written to
//! tmp.HEX, fsynced, renamed into blobs/sha256; then that directory is fsynced; only then does a state
//! name them (state.zig). Before that point nothing names the new blobs, after it all of them are on
//! the disk. What an interrupted installation leaves is named by nothing, and collect() removes it.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const Blob = @import("blob.zig").Blob;
const chunk_bytes = @import("blob.zig").chunk_bytes;
const disk = @import("disk.zig");
const document = @import("document.zig");
const naming = @import("naming.zig");
const Hex = naming.Hex;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const states = @import("state.zig");
const syncDir = @import("replace.zig").syncDir;
const State = states.State;

const temporary_prefix = "tmp.";
const upload_lifetime_seconds = 24 * 60 * 60;

pub const Store = struct {
    io: Io,
    refusal: *Refusal,
    /// As it was given.
    path: []const u8,
    root: Io.Dir,
    blobs: Io.Dir, // ROOT/blobs
    contents: Io.Dir, // ROOT/blobs/sha256
    models: Io.Dir,

    /// Makes the directories where they are missing.
    pub fn open(io: Io, refusal: *Refusal, path: []const u8) error{Refused}!Store {
        return openDirs(io, refusal, path) catch |err|
            refusal.because(.state, "cannot open the store {s}: {t}", .{ path, err });
    }

    fn openDirs(io: Io, refusal: *Refusal, path: []const u8) !Store {
        const root = try makeDir(io, .cwd(), path);
        inline for (.{ "trust", "run", "incoming" }) |name| (try makeDir(io, root, name)).close(io);
        const blobs = try makeDir(io, root, "blobs");
        return .{
            .io = io,
            .refusal = refusal,
            .path = path,
            .root = root,
            .blobs = blobs,
            .contents = try makeDir(io, blobs, "sha256"),
            .models = try makeDir(io, root, "models"),
        };
    }

    /// Waits until no other process changes the store, then clears what an interrupted one left. The
    /// lock goes with the process, however it ends.
    pub fn lock(self: *Store, arena: Allocator) refusals.Error!void {
        _ = self.root.createFile(self.io, "lock", .{ .lock = .exclusive, .truncate = false, .permissions = .fromMode(0o644) }) catch |err|
            return self.refusal.because(.state, "cannot lock the store: {t}", .{err});
        try self.collect(arena);
    }

    /// The same, where that is so already, until the file is closed; null where another changes the store.
    /// What an interrupted one left stays for now.
    pub fn tryLock(self: *Store) ?Io.File {
        return self.root.createFile(self.io, "lock", .{
            .lock = .exclusive,
            .lock_nonblocking = true,
            .truncate = false,
            .permissions = .fromMode(0o644),
        }) catch null;
    }

    /// The target that this device was set up as.
    pub fn target(self: *Store, arena: Allocator) refusals.Error![]const u8 {
        const bytes = self.root.readFileAlloc(self.io, "config.json", arena, .limited(document.max_bytes)) catch |err|
            return self.refusal.because(.state, "cannot read config.json, which names the device's target: {t}", .{err});
        const doc: document.Document = .{ .refusal = self.refusal, .check = .state, .title = "config.json" };
        const name = try doc.string(try doc.parse(arena, bytes), "target", 64);
        return if (naming.isName(name)) name else doc.malformed("bad target", .{});
    }

    /// A blob that is there and has this size, to be read and so checked; null where there is none.
    pub fn find(self: *Store, hex: Hex, size: ?u64) error{Refused}!?Blob {
        const file = self.contents.openFile(self.io, &hex, .{}) catch |err| switch (err) {
            error.FileNotFound => return null,
            else => return self.refusal.because(.disk, "cannot open blob {s}: {t}", .{ hex[0..16], err }),
        };
        errdefer file.close(self.io);
        const length = file.length(self.io) catch |err|
            return self.refusal.because(.disk, "cannot read blob {s}: {t}", .{ hex[0..16], err });
        if (size != null and size.? != length) {
            return self.refusal.because(.digest, "the stored blob {s} has {d} bytes, not {d}", .{ hex[0..16], length, size.? });
        }
        return .{ .hex = hex, .size = length, .from = .{ .file = .{ .file = file, .offset = 0, .owned = true } } };
    }

    /// Whether the blob is there, whole. A damaged one is removed, so that it can be brought again.
    pub fn holds(self: *Store, hex: Hex, size: ?u64) error{Refused}!bool {
        self.check(hex, size) catch {
            if (self.refusal.check != .digest) return error.Refused;
            self.contents.deleteFile(self.io, &hex) catch {};
            return false;
        };
        return self.exists(hex);
    }

    fn exists(self: *Store, hex: Hex) bool {
        self.contents.access(self.io, &hex, .{}) catch return false;
        return true;
    }

    /// Refuses a damaged blob; an absent one passes, see holds().
    fn check(self: *Store, hex: Hex, size: ?u64) error{Refused}!void {
        var blob = try self.find(hex, size) orelse return;
        defer blob.close(self.io);
        try blob.check(self.io, self.refusal);
    }

    /// Copies a blob in. On return it is in place with the right contents; its name is safe on the
    /// disk after syncContents().
    pub fn add(self: *Store, blob: *Blob, executable: bool) error{Refused}!void {
        var name: [temporary_prefix.len + 64]u8 = (temporary_prefix ++ @as(Hex, undefined)).*;
        name[temporary_prefix.len..].* = blob.hex;
        const mode: Io.File.Permissions = .fromMode(if (executable) 0o555 else 0o444);
        errdefer self.blobs.deleteFile(self.io, &name) catch {};
        const file = self.blobs.createFile(self.io, &name, .{ .permissions = mode }) catch |err| return self.failed(blob.hex, err);
        defer file.close(self.io);
        var buffer: [chunk_bytes]u8 = undefined;
        while (true) {
            const chunk = try blob.next(self.io, self.refusal, &buffer);
            if (chunk.len == 0) break;
            file.writeStreamingAll(self.io, chunk) catch |err| return self.failed(blob.hex, err);
        }
        file.setPermissions(self.io, mode) catch |err| return self.failed(blob.hex, err); // whatever the umask is
        file.sync(self.io) catch |err| return self.failed(blob.hex, err);
        self.blobs.rename(&name, self.contents, &blob.hex, self.io) catch |err| return self.failed(blob.hex, err);
    }

    pub fn syncContents(self: *Store) error{Refused}!void {
        syncDir(self.io, self.contents) catch |err|
            return self.refusal.because(.disk, "cannot sync blobs/: {t}", .{err});
    }

    fn failed(self: *Store, hex: Hex, err: anyerror) error{Refused} {
        return switch (err) {
            error.NoSpaceLeft, error.DiskQuota => self.refusal.because(.disk, "no space left for blob {s}", .{hex[0..16]}),
            else => self.refusal.because(.disk, "cannot write blob {s}: {t}", .{ hex[0..16], err }),
        };
    }

    pub fn freeBytes(self: *Store) error{Refused}!u64 {
        return disk.freeBytes(self.root.handle) orelse self.refusal.because(.disk, "cannot tell how much space is free", .{});
    }

    pub fn load(self: *Store, arena: Allocator, name: []const u8) refusals.Error!?State {
        return State.load(arena, self.io, self.refusal, self.models, name);
    }

    pub fn modelNames(self: *Store, arena: Allocator) refusals.Error![]const []const u8 {
        return states.names(arena, self.io, self.refusal, self.models);
    }

    /// Digests of all blobs that are in place, sorted.
    pub fn list(self: *Store, arena: Allocator) refusals.Error![]const Hex {
        var found: std.ArrayList(Hex) = .empty;
        var entries = self.contents.iterate();
        while (entries.next(self.io) catch |err| return self.refusal.because(.state, "cannot list blobs/: {t}", .{err})) |entry| {
            try found.append(arena, naming.parseHex(entry.name) orelse continue);
        }
        std.sort.heap(Hex, found.items, {}, lessHex);
        return found.items;
    }

    /// Removes what no state names: unfinished files, blobs of refused, interrupted and superseded
    /// installations, uploads that nobody came back for. If a state cannot be read, nothing goes.
    pub fn collect(self: *Store, arena: Allocator) refusals.Error!void {
        var named: std.AutoHashMapUnmanaged(Hex, void) = .empty;
        for (try self.modelNames(arena)) |name| {
            const state = try self.load(arena, name) orelse {
                states.removeLeftovers(self.io, self.models, name);
                continue;
            };
            states.removeLeftovers(self.io, self.models, name);
            for ([_]?states.Installed{ state.current, state.previous }) |installed| {
                const it = installed orelse continue;
                for (it.digests.values) |hex| try named.put(arena, hex, {});
            }
        }
        for (try self.list(arena)) |hex| {
            if (!named.contains(hex)) self.contents.deleteFile(self.io, &hex) catch {};
        }
        try self.removeOld(arena, "blobs", temporary_prefix, 0);
        try self.removeOld(arena, "incoming", "", upload_lifetime_seconds);
    }

    /// Files of a directory that begin so and were last written `seconds` ago or earlier.
    fn removeOld(self: *Store, arena: Allocator, name: []const u8, prefix: []const u8, seconds: i64) refusals.Error!void {
        const dir = self.root.openDir(self.io, name, .{ .iterate = true }) catch return;
        defer dir.close(self.io);
        const now = Io.Clock.real.now(self.io).toSeconds();
        var doomed: std.ArrayList([]const u8) = .empty;
        var entries = dir.iterate();
        while (entries.next(self.io) catch return) |entry| {
            if (entry.kind == .directory or !std.mem.startsWith(u8, entry.name, prefix)) continue;
            const stat = dir.statFile(self.io, entry.name, .{ .follow_symlinks = false }) catch continue;
            // A device without a clock may find files from the future; they stay until its clock is right.
            if (seconds > 0 and now - stat.mtime.toSeconds() < seconds) continue;
            try doomed.append(arena, try arena.dupe(u8, entry.name));
        }
        for (doomed.items) |file| dir.deleteFile(self.io, file) catch {};
    }
};

/// Opened so that it can be listed and synced.
fn makeDir(io: Io, parent: Io.Dir, name: []const u8) !Io.Dir {
    parent.createDir(io, name, .fromMode(0o755)) catch |err| switch (err) {
        error.PathAlreadyExists => {},
        else => return err,
    };
    return parent.openDir(io, name, .{ .iterate = true });
}

fn lessHex(_: void, a: Hex, b: Hex) bool {
    return std.mem.order(u8, &a, &b) == .lt;
}
