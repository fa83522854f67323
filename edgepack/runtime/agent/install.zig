//! What happens between "a trusted key signed this" and "this is what runs now".
//!
//!     version allowed → the model is for this device → room on the disk → missing blobs written →
//!     every blob's digest → golden vectors through the real worker → state.json → the running server
//!
//! Whatever fails before state.json leaves the old version as it was, serving; what had been written
//! until then is collected. If the running server cannot load the new version, the old state comes back.

const std = @import("std");
const builtin = @import("builtin");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const Blob = @import("blob.zig").Blob;
const capture_yield = @import("capture_yield.zig");
const document = @import("document.zig");
const golden = @import("golden.zig");
const PublicKey = @import("keys.zig").PublicKey;
const ModelInfo = @import("model_info.zig").ModelInfo;
const naming = @import("naming.zig");
const notify = @import("notify.zig");
const oci = @import("oci.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Source = @import("source.zig").Source;
const states = @import("state.zig");
const Installed = states.Installed;
const State = states.State;
const Part = @import("statement.zig").Part;
const Store = @import("store.zig").Store;
const Verified = @import("verify.zig").Verified;

/// Left free on the disk beside what is to be written: states, directories, the rest of the system.
const reserve_bytes = 1 << 20;

/// One command's hold on the device: the store is locked, the keys are read.
pub const Session = struct {
    arena: Allocator,
    io: Io,
    refusal: *Refusal,
    store: *Store,
    keys: []const PublicKey,
    target: []const u8,
    /// What comes unasked, by a device that pulls whatever is there, brings no version back that was rolled
    /// back from: one that failed at work would come again and again.
    unasked: bool = false,
};

/// What a command answers with.
pub const Outcome = struct {
    model: []const u8,
    version: []const u8,
    previous: ?[]const u8,
    changed: bool,
};

pub fn install(session: Session, verified: *const Verified, source: Source) refusals.Error!Outcome {
    const name = verified.statement.name;
    const old = try session.store.load(session.arena, name);
    const new: Installed = .{ .version = verified.statement.version_text, .digests = keptDigests(verified) };
    const decision = try decide(session.refusal, old, new, session.unasked);
    const metadata = try readMetadata(session, verified, source);
    const info: ModelInfo = try .parse(session.arena, session.refusal, metadata);
    try checkInfo(session, verified, &info);

    errdefer collect(session);
    try bring(session, verified, source, metadata);
    if (decision == .unchanged) return outcome(name, old.?, false);
    try tryOut(session, new, &info);
    const state: State = .{
        .current = new,
        .previous = if (old) |it| it.current else null,
        .floor = if (old) |it| higher(it.floor, new.version) else new.version,
    };
    try switchTo(session, name, old, state);
    collect(session);
    return outcome(name, state, true);
}

/// Back to the version before, which is tried out like a new one. The floor stays: what was rolled
/// back may come again, what is older may not.
pub fn rollback(session: Session, name: []const u8) refusals.Error!Outcome {
    const old = try session.store.load(session.arena, name) orelse
        return session.refusal.because(.state, "no model {s} is installed", .{name});
    const back = old.previous orelse
        return session.refusal.because(.state, "there is no version of {s} before {s}", .{ name, if (old.current) |it| it.version else "none" });
    for (back.digests.values) |hex| {
        if (!try session.store.holds(hex, null)) {
            return session.refusal.because(.digest, "blob {s} of {s} {s} is damaged or missing; install that version again", .{ hex[0..16], name, back.version });
        }
    }
    var blob = (try session.store.find(back.digests.get(.metadata), null)).?;
    defer blob.close(session.io);
    if (blob.size > document.max_bytes) return session.refusal.because(.package, "model.json is too large", .{});
    const info: ModelInfo = try .parse(session.arena, session.refusal, try blob.readAll(session.arena, session.io, session.refusal));
    try tryOut(session, back, &info);
    const state: State = .{ .current = back, .previous = old.current, .floor = old.floor };
    try switchTo(session, name, old, state);
    return outcome(name, state, true);
}

/// Litter is no reason to fail, and no reason to forget why something else did.
fn collect(session: Session) void {
    const reason = session.refusal.*;
    session.store.collect(session.arena) catch {};
    session.refusal.* = reason;
}

fn outcome(name: []const u8, state: State, changed: bool) Outcome {
    return .{
        .model = name,
        .version = state.current.?.version,
        .previous = if (state.previous) |it| it.version else null,
        .changed = changed,
    };
}

fn keptDigests(verified: *const Verified) std.EnumArray(states.Kept, naming.Hex) {
    const digests = &verified.target.digests;
    return .init(.{
        .manifest = digests.get(.manifest),
        .worker = digests.get(.worker),
        .weights = digests.get(.weights),
        .metadata = digests.get(.metadata),
        .golden = digests.get(.golden),
        .envelope = verified.envelope_digest,
    });
}

const Decision = enum { unchanged, install };

/// The version rules: never below the floor, never other contents under a version that is known.
fn decide(refusal: *Refusal, state: ?State, new: Installed, unasked: bool) error{Refused}!Decision {
    const old = state orelse return .install;
    const version = new.parsedVersion();
    if (old.current) |current| {
        if (version.order(current.parsedVersion()) == .eq) {
            if (current.sameManifest(new)) return .unchanged;
            return refusal.because(.version, "version {s} is installed already, with other contents; give the new one a higher version", .{new.version});
        }
    }
    switch (version.order(naming.Version.parse(old.floor).?)) {
        .lt => return refusal.because(.version, "version {s} is lower than {s}, which was installed before", .{ new.version, old.floor }),
        .gt => return .install,
        .eq => {},
    }
    // The floor itself, rolled back from: it may come again as it was, to whoever asks for it.
    if (old.previous) |previous| {
        if (previous.parsedVersion().order(version) == .eq and previous.sameManifest(new)) return if (unasked) .unchanged else .install;
    }
    return refusal.because(.version, "version {s} was installed before, with other contents; give the new one a higher version", .{new.version});
}

fn higher(a: []const u8, b: []const u8) []const u8 {
    return if (naming.Version.parse(a).?.order(naming.Version.parse(b).?) == .lt) b else a;
}

fn readMetadata(session: Session, verified: *const Verified, source: Source) refusals.Error![]const u8 {
    const hex = verified.target.digests.get(.metadata);
    const size = verified.target.sizes.get(.metadata);
    if (size > document.max_bytes) return session.refusal.because(.package, "model.json is too large", .{});
    var blob = try findAnywhere(session, source, hex, size) orelse return missing(session, .metadata, hex);
    defer blob.close(session.io);
    return blob.readAll(session.arena, session.io, session.refusal);
}

/// The store's, where it is whole; else the source's.
fn findAnywhere(session: Session, source: Source, hex: naming.Hex, size: u64) error{Refused}!?Blob {
    if (try session.store.holds(hex, size)) return session.store.find(hex, size);
    return source.blob(session.io, session.refusal, hex, size);
}

fn missing(session: Session, part: states.Kept, hex: naming.Hex) error{Refused} {
    return session.refusal.because(.package, "{t} (blob {s}) is neither offered nor on this device", .{ part, &hex });
}

/// model.json is signed, but says things of its own that must fit the rest, and this device.
fn checkInfo(session: Session, verified: *const Verified, info: *const ModelInfo) error{Refused}!void {
    const refusal = session.refusal;
    const arch = @tagName(builtin.cpu.arch);
    if (!std.mem.eql(u8, info.target, session.target)) {
        return refusal.because(.target, "the model is compiled for {s}; this device is {s}", .{ info.target, session.target });
    }
    if (!std.mem.eql(u8, info.arch, arch)) {
        return refusal.because(.target, "the model is compiled for {s} ({s}); this device is {s} ({s})", .{ info.target, info.arch, session.target, arch });
    }
    const same = std.mem.eql(u8, info.name, verified.statement.name) and
        std.mem.eql(u8, info.version, verified.statement.version_text) and
        info.weights_bytes == verified.target.sizes.get(.weights);
    if (!same) return refusal.because(.statement, "model.json names another model, version or size of weights than was signed", .{});
}

/// Every blob that the new version needs is in the store afterwards, whole and safe on the disk.
fn bring(session: Session, verified: *const Verified, source: Source, metadata: []const u8) refusals.Error!void {
    const store = session.store;
    var parts: std.EnumSet(states.Kept) = .empty;
    var needed: u64 = 0;
    for (std.enums.values(states.Kept)) |kept| {
        const want = wanted(verified, kept);
        if (try store.holds(want.hex, want.size)) continue;
        parts.insert(kept);
        needed += want.size;
    }
    if (parts.count() == 0) return;
    capture_yield.makeRoom(session.arena, store, needed + reserve_bytes);
    const free = try store.freeBytes();
    if (needed + reserve_bytes > free) {
        return session.refusal.because(.disk, "{d} bytes are needed and {d} are free", .{ needed + reserve_bytes, free });
    }
    var missing_parts = parts.iterator();
    while (missing_parts.next()) |kept| {
        const want = wanted(verified, kept);
        var blob: Blob = switch (kept) {
            .envelope => .ofMemory(want.hex, verified.envelope),
            .metadata => .ofMemory(want.hex, metadata),
            .manifest => .ofMemory(want.hex, try oci.targetManifest(session.arena, verified.target)),
            .worker, .weights, .golden => try source.blob(session.io, session.refusal, want.hex, want.size) orelse
                return missing(session, kept, want.hex),
        };
        defer blob.close(session.io);
        try store.add(&blob, kept == .worker);
    }
    try store.syncContents();
}

const Wanted = struct { hex: naming.Hex, size: u64 };

fn wanted(verified: *const Verified, kept: states.Kept) Wanted {
    const part: Part = switch (kept) {
        .envelope => return .{ .hex = verified.envelope_digest, .size = verified.envelope.len },
        .manifest => .manifest,
        .worker => .worker,
        .weights => .weights,
        .metadata => .metadata,
        .golden => .golden,
    };
    return .{ .hex = verified.target.digests.get(part), .size = verified.target.sizes.get(part) };
}

/// The golden vectors, by the worker and the weights as they lie in the store.
fn tryOut(session: Session, installed: Installed, info: *const ModelInfo) refusals.Error!void {
    const store = session.store;
    for (installed.digests.values) |hex| {
        if (!try store.holds(hex, null)) return session.refusal.because(.digest, "blob {s} did not reach the disk as it was written", .{hex[0..16]});
    }
    var worker = (try store.find(installed.digests.get(.worker), null)).?;
    defer worker.close(session.io);
    var weights = (try store.find(installed.digests.get(.weights), null)).?;
    defer weights.close(session.io);
    var vectors = (try store.find(installed.digests.get(.golden), null)).?;
    defer vectors.close(session.io);
    try golden.run(session.arena, session.io, session.refusal, .of(&worker, &weights), info, &vectors);
}

fn switchTo(session: Session, name: []const u8, old: ?State, new: State) refusals.Error!void {
    const store = session.store;
    errdefer restore(session, name, old);
    try new.save(session.arena, session.io, session.refusal, store.models, name);
    try notify.load(session.arena, session.io, session.refusal, store.path, name);
}

/// Puts the old state back, and the server onto it, without losing the reason why.
fn restore(session: Session, name: []const u8, old: ?State) void {
    const store = session.store;
    var ignored: Refusal = .{};
    if (old) |state| {
        state.save(session.arena, session.io, &ignored, store.models, name) catch {};
    } else {
        states.remove(session.io, &ignored, store.models, name) catch {};
    }
    notify.load(session.arena, session.io, &ignored, store.path, name) catch {};
}

const testing = std.testing;

fn testInstalled(version: []const u8, digit: u8) Installed {
    return .{ .version = version, .digests = .initFill(@splat(digit)) };
}

test "versions go up; the same one comes only with the same contents" {
    var refusal: Refusal = .{};
    const v1 = testInstalled("1.0.0", 'a');
    const v2 = testInstalled("1.10.0", 'b');
    const up: State = .{ .current = v2, .previous = v1, .floor = "1.10.0" };
    try testing.expectEqual(.install, decide(&refusal, null, v1, true));
    try testing.expectEqual(.unchanged, decide(&refusal, up, v2, false));
    try testing.expectEqual(.install, decide(&refusal, up, testInstalled("1.10.1", 'c'), false));
    for ([_]Installed{ v1, testInstalled("1.9.0", 'c'), testInstalled("1.10.0", 'c') }) |bad| {
        try testing.expectError(error.Refused, decide(&refusal, up, bad, false));
        try testing.expectEqual(.version, refusal.check);
    }
}

test "after a rollback the version rolled back from may come again, as it was" {
    var refusal: Refusal = .{};
    const v1 = testInstalled("1.0.0", 'a');
    const v2 = testInstalled("2.0.0", 'b');
    const back: State = .{ .current = v1, .previous = v2, .floor = "2.0.0" };
    try testing.expectEqual(.unchanged, decide(&refusal, back, v1, false));
    try testing.expectEqual(.install, decide(&refusal, back, v2, false));
    try testing.expectEqual(.unchanged, decide(&refusal, back, v2, true));
    try testing.expectEqual(.install, decide(&refusal, back, testInstalled("2.0.1", 'c'), true));
    for ([_]Installed{ testInstalled("1.0.0", 'c'), testInstalled("1.5.0", 'c'), testInstalled("2.0.0", 'c') }) |bad| {
        try testing.expectError(error.Refused, decide(&refusal, back, bad, false));
    }
    try testing.expectEqualStrings("2.0.0", higher(back.floor, "1.0.0"));
}
