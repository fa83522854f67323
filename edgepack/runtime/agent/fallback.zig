//! Back to the version before, where the one that is served fails again and again.
//!
//! A version that ServedModel.noteDeath() gave up is replaced once, after the request that met its last
//! failure has its answer, by the thread of that request. It is a rollback in the store, so that the next
//! start of the device does not try the bad version again; only while somebody else changes the store it
//! holds until the server ends. It goes to a lower version only: never back to one that was rolled back
//! from, so that two bad versions do not take turns.

const std = @import("std");
const Io = std.Io;
const clock = @import("clock.zig");
const events = @import("events.zig");
const log = @import("log.zig");
const Models = @import("models.zig").Models;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const ServedModel = @import("served_model.zig").ServedModel;
const states = @import("state.zig");
const State = states.State;
const Store = @import("store.zig").Store;

const lock_patience_ms = 2_000;

/// `failing` is the caller's to release. Nothing happens unless it was given up and is served still.
pub fn fallBack(models: *Models, failing: *ServedModel) void {
    const failure = failing.takeFailure() orelse return;
    var refusal: Refusal = .{};
    var store = models.store;
    store.refusal = &refusal;
    // First the store's lock, then `loading`, as an installation has it.
    const lock = waitForLock(&store);
    defer if (lock) |it| it.close(store.io);
    models.loading.lock();
    defer models.loading.unlock();
    if (!models.serves(failing)) return; // loaded anew or unloaded meanwhile
    goBack(models, &store, failing, failure, lock != null) catch |err| {
        if (err == error.OutOfMemory) _ = refusal.because(.worker, "out of memory", .{}) catch {};
        var reason: Refusal = .{};
        _ = reason.because(.worker, "{s}; {s}", .{ failure.reason(), refusal.reason() }) catch {};
        log.line("{s} {s} is given up: {s}", .{ failing.info.name, failing.info.version, reason.reason() });
        events.record(store.io, store.root, .{ .kind = .failing, .model = failing.info.name, .version = failing.info.version, .reason = reason.reason() });
    };
}

/// Null where the store is being changed by somebody else, for longer than this can wait.
fn waitForLock(store: *Store) ?Io.File {
    const deadline = clock.milliseconds() + lock_patience_ms;
    while (true) {
        if (store.tryLock()) |file| return file;
        if (clock.milliseconds() >= deadline) return null;
        _ = clock.poll(&.{}, clock.milliseconds() + 50);
    }
}

fn goBack(models: *Models, store: *Store, failing: *ServedModel, failure: *const Refusal, is_locked: bool) refusals.Error!void {
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const name = failing.info.name;
    const state = try store.load(arena.allocator(), name) orelse return store.refusal.because(.state, "its state is gone", .{});
    const previous = versionBefore(state, failing.installed) orelse
        return store.refusal.because(.state, "there is no version before it to fall back to", .{});
    const served = ServedModel.start(store, models.settings, store.refusal, previous) catch |err| {
        if (err == error.OutOfMemory) return err;
        const why = store.refusal.*;
        return store.refusal.because(.worker, "nor does the one before it, {s}, start: {s}", .{ previous.version, why.reason() });
    };
    const is_kept = is_locked and keep(arena.allocator(), store, name, state);
    var trouble: Refusal = .{};
    _ = trouble.because(.worker, "version {s} failed {d} times in a row: {s}; the previous one, {s}, is served{s}", .{
        failing.info.version,                          models.settings.failures.value, failure.reason(), previous.version,
        if (is_kept) "" else " until the server ends",
    }) catch {};
    models.replace(name, served, trouble);
    _ = failing.counters.fallbacks.fetchAdd(1, .monotonic);
    log.line("{s}: {s}", .{ name, trouble.reason() });
    events.record(store.io, store.root, .{ .kind = .fallback, .model = name, .version = failing.info.version, .reason = trouble.reason() });
}

/// Null where the version that fails is not the installed one, or came by a rollback.
fn versionBefore(state: State, failing: states.Installed) ?states.Installed {
    const current = state.current orelse return null;
    const previous = state.previous orelse return null;
    if (!current.eql(failing)) return null;
    return if (previous.parsedVersion().order(current.parsedVersion()) == .lt) previous else null;
}

/// False where the disk does not take it; then the old state is still there.
fn keep(arena: std.mem.Allocator, store: *Store, name: []const u8, old: State) bool {
    const state: State = .{ .current = old.previous, .previous = old.current, .floor = old.floor };
    state.save(arena, store.io, store.refusal, store.models, name) catch return false;
    return true;
}

const testing = std.testing;

test "only the version below the installed one that fails is fallen back to" {
    const one: states.Installed = .{ .version = "1.9.0", .digests = .initFill(@splat('a')) };
    const two: states.Installed = .{ .version = "1.10.0", .digests = .initFill(@splat('b')) };
    const other: states.Installed = .{ .version = "1.10.0", .digests = .initFill(@splat('c')) };
    const up: State = .{ .current = two, .previous = one, .floor = "1.10.0" };
    try testing.expectEqualStrings("1.9.0", versionBefore(up, two).?.version);
    try testing.expectEqual(null, versionBefore(up, other));
    try testing.expectEqual(null, versionBefore(up, one));
    const back: State = .{ .current = one, .previous = two, .floor = "1.10.0" };
    try testing.expectEqual(null, versionBefore(back, one));
    try testing.expectEqual(null, versionBefore(.{ .current = one, .floor = "1.9.0" }, one));
}
