//! ROOT/models/NAME/state.json: which version of a model is current and which one came before.
//!
//!     {"format":1,"current":{"version":V,"manifest":HEX,"worker":HEX,"weights":HEX,"metadata":HEX,
//!      "golden":HEX,"envelope":HEX}|null,"previous":same|null,"floor":V}
//!
//! It is the only truth about what runs: a blob that no state names is litter, and replacing this one
//! file is the switch. `floor` is the highest version ever switched to; nothing lower is installed.
//!
//! The replacement survives a power cut by the order in replace.zig; for a new model, the directory above
//! is fsynced too.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const document = @import("document.zig");
const naming = @import("naming.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const replacing = @import("replace.zig");
const syncDir = replacing.syncDir;

pub const max_models = 256;
const file_name = "state.json";
const temporary_name = file_name ++ replacing.suffix;
const max_file_bytes = 16 << 10;

/// The blobs of an installed version that the device keeps.
pub const Kept = enum { manifest, worker, weights, metadata, golden, envelope };

pub const Installed = struct {
    version: []const u8,
    digests: std.EnumArray(Kept, naming.Hex),

    pub fn parsedVersion(self: Installed) naming.Version {
        return naming.Version.parse(self.version).?; // checked when it was read, and when it was made
    }

    pub fn eql(self: Installed, other: Installed) bool {
        for (self.digests.values, other.digests.values) |a, b| if (!std.mem.eql(u8, &a, &b)) return false;
        return std.mem.eql(u8, self.version, other.version);
    }

    pub fn sameManifest(self: Installed, other: Installed) bool {
        return std.mem.eql(u8, &self.digests.get(.manifest), &other.digests.get(.manifest));
    }
};

pub const State = struct {
    current: ?Installed = null,
    previous: ?Installed = null,
    floor: []const u8,

    /// ROOT/models/`name`; null where it holds no state. What the result points to lives in `arena`.
    pub fn load(arena: Allocator, io: Io, refusal: *Refusal, models: Io.Dir, name: []const u8) refusals.Error!?State {
        const dir = models.openDir(io, name, .{}) catch |err| switch (err) {
            error.FileNotFound => return null,
            else => return refusal.because(.state, "cannot read models/{s}: {t}", .{ name, err }),
        };
        defer dir.close(io);
        const bytes = dir.readFileAlloc(io, file_name, arena, .limited(max_file_bytes)) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.FileNotFound => return null,
            else => return refusal.because(.state, "cannot read models/{s}/" ++ file_name ++ ": {t}", .{ name, err }),
        };
        return try parse(arena, refusal, bytes);
    }

    pub fn parse(arena: Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!State {
        const doc: document.Document = .{ .refusal = refusal, .check = .state, .title = file_name };
        const root = try doc.parse(arena, bytes);
        try doc.onlyFields(root, &.{ "format", "current", "previous", "floor" });
        if (try doc.integer(root, "format", 1 << 30) != 1) return doc.malformed("of another format than 1", .{});
        return .{
            .current = try parseInstalled(doc, root, "current"),
            .previous = try parseInstalled(doc, root, "previous"),
            .floor = try version(doc, root, "floor"),
        };
    }

    pub fn render(self: State, arena: Allocator) error{OutOfMemory}![]const u8 {
        var out: Io.Writer.Allocating = .init(arena);
        self.write(&out.writer) catch return error.OutOfMemory;
        return out.written();
    }

    fn write(self: State, out: *Io.Writer) Io.Writer.Error!void {
        try out.writeAll("{\"format\":1,\"current\":");
        try writeInstalled(out, self.current);
        try out.writeAll(",\"previous\":");
        try writeInstalled(out, self.previous);
        try out.print(",\"floor\":\"{s}\"}}", .{self.floor});
    }

    /// Replaces the model's state.json. When it returns, the new one is on the disk; when it fails, or
    /// the power does, the old one still is.
    pub fn save(self: State, arena: Allocator, io: Io, refusal: *Refusal, models: Io.Dir, name: []const u8) refusals.Error!void {
        const bytes = try self.render(arena);
        replaceIn(io, models, name, bytes) catch |err|
            return refusal.because(.disk, "cannot write models/{s}/" ++ file_name ++ ": {t}", .{ name, err });
    }
};

/// Takes the model's state away; for an installation that is undone where there was none before.
pub fn remove(io: Io, refusal: *Refusal, models: Io.Dir, name: []const u8) error{Refused}!void {
    const dir = models.openDir(io, name, .{ .iterate = true }) catch |err|
        return refusal.because(.disk, "cannot open models/{s}: {t}", .{ name, err });
    defer dir.close(io);
    dir.deleteFile(io, file_name) catch |err| return refusal.because(.disk, "cannot undo models/{s}: {t}", .{ name, err });
    syncDir(io, dir) catch |err| return refusal.because(.disk, "cannot undo models/{s}: {t}", .{ name, err });
}

/// What an interrupted save() may have left.
pub fn removeLeftovers(io: Io, models: Io.Dir, name: []const u8) void {
    const dir = models.openDir(io, name, .{}) catch return;
    defer dir.close(io);
    dir.deleteFile(io, temporary_name) catch {};
    models.deleteDir(io, name) catch {}; // succeeds only if it is empty
}

/// Names of all models in ROOT/models, sorted; whether they have a state is not looked at.
pub fn names(arena: Allocator, io: Io, refusal: *Refusal, models: Io.Dir) refusals.Error![]const []const u8 {
    var found: std.ArrayList([]const u8) = .empty;
    var entries = models.iterate();
    while (entries.next(io) catch |err| return refusal.because(.state, "cannot list models/: {t}", .{err})) |entry| {
        if (!naming.isName(entry.name)) continue;
        if (found.items.len == max_models) return refusal.because(.state, "more than {d} models", .{max_models});
        try found.append(arena, try arena.dupe(u8, entry.name));
    }
    std.sort.heap([]const u8, found.items, {}, lessText);
    return found.items;
}

fn replaceIn(io: Io, models: Io.Dir, name: []const u8, bytes: []const u8) !void {
    if (models.createDir(io, name, .fromMode(0o755))) {
        try syncDir(io, models);
    } else |err| switch (err) {
        error.PathAlreadyExists => {},
        else => return err,
    }
    const dir = try models.openDir(io, name, .{ .iterate = true });
    defer dir.close(io);
    try replacing.replace(io, dir, file_name, bytes);
}

fn parseInstalled(doc: document.Document, root: document.Object, field: []const u8) refusals.Error!?Installed {
    if (try doc.get(root, field) == .null) return null;
    const object = try doc.objectField(root, field);
    var installed: Installed = .{ .version = try version(doc, object, "version"), .digests = undefined };
    for (std.enums.values(Kept)) |kept| {
        const text = try doc.string(object, @tagName(kept), 64);
        installed.digests.set(kept, naming.parseHex(text) orelse return doc.malformed("{t} is no digest", .{kept}));
    }
    return installed;
}

fn version(doc: document.Document, object: document.Object, field: []const u8) refusals.Error![]const u8 {
    const text = try doc.string(object, field, 32);
    if (naming.Version.parse(text) == null) return doc.malformed("{s} is no version", .{field});
    return text;
}

fn writeInstalled(out: *Io.Writer, installed: ?Installed) Io.Writer.Error!void {
    const it = installed orelse return out.writeAll("null");
    try out.print("{{\"version\":\"{s}\"", .{it.version});
    for (std.enums.values(Kept)) |kept| try out.print(",\"{t}\":\"{s}\"", .{ kept, &it.digests.get(kept) });
    try out.writeByte('}');
}

fn lessText(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.order(u8, a, b) == .lt;
}

const testing = std.testing;

test "a state is read back as it was saved, and a damaged one is refused" {
    const io = testing.io;
    var tmp = testing.tmpDir(.{ .iterate = true });
    defer tmp.cleanup();
    var arena_state: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();
    var refusal: Refusal = .{};
    try testing.expectEqual(null, try State.load(arena, io, &refusal, tmp.dir, "m"));
    const one: Installed = .{ .version = "1.0.0", .digests = .initFill(@splat('a')) };
    const two: Installed = .{ .version = "1.1.0", .digests = .initFill(@splat('b')) };
    try (State{ .current = one, .floor = "1.0.0" }).save(arena, io, &refusal, tmp.dir, "m");
    try (State{ .current = two, .previous = one, .floor = "1.1.0" }).save(arena, io, &refusal, tmp.dir, "m");
    const loaded = (try State.load(arena, io, &refusal, tmp.dir, "m")).?;
    try testing.expectEqualStrings("1.1.0", loaded.current.?.version);
    try testing.expect(loaded.previous.?.sameManifest(one));
    try testing.expect(!loaded.previous.?.sameManifest(two));
    const bytes = try loaded.render(arena);
    for (0..bytes.len) |len| try testing.expectError(error.Refused, State.parse(arena, &refusal, bytes[0..len]));
    try testing.expectEqual(1, (try names(arena, io, &refusal, tmp.dir)).len);
    try remove(io, &refusal, tmp.dir, "m");
    removeLeftovers(io, tmp.dir, "m");
    try testing.expectEqual(0, (try names(arena, io, &refusal, tmp.dir)).len);
}
