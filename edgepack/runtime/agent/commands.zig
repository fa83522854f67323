//! The agent's commands, from the parsed command line to what is printed. `serve` is in serve.zig.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const answer = @import("answer.zig");
const arguments = @import("arguments.zig");
const events = @import("events.zig");
const installs = @import("install.zig");
const Outcome = installs.Outcome;
const Session = installs.Session;
const keys = @import("keys.zig");
const last_install = @import("last_install.zig");
const notify = @import("notify.zig");
const Package = @import("package.zig").Package;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Source = @import("source.zig").Source;
const Status = @import("status.zig").Status;
const Store = @import("store.zig").Store;
const verify = @import("verify.zig");

pub const Error = refusals.Error || Io.Writer.Error;

/// Takes the lock: from here on this process alone changes the store.
fn begin(arena: Allocator, io: Io, refusal: *Refusal, store: *Store) refusals.Error!Session {
    const target = try store.target(arena);
    const trusted = try keys.load(arena, io, refusal, store.root);
    try store.lock(arena);
    return .{ .arena = arena, .io = io, .refusal = refusal, .store = store, .keys = trusted, .target = target };
}

pub fn install(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, path: []const u8, out: *Io.Writer) Error!void {
    var store: Store = try .open(io, refusal, root);
    const session = try begin(arena, io, refusal, &store);
    var attempt: last_install.Attempt = .{};
    const outcome = installFile(session, path, &attempt) catch |err| {
        if (err == error.Refused) attempt.record(arena, &store, refusal);
        return err;
    };
    attempt.record(arena, &store, null);
    try answer.one(out, outcome);
}

fn installFile(session: Session, path: []const u8, attempt: *last_install.Attempt) refusals.Error!Outcome {
    const package: Package = try .open(session.arena, session.io, session.refusal, path);
    defer package.close(session.io);
    attempt.digest = try package.unsignedDigest(session.arena);
    attempt.model = package.index.name;
    const verified = try verify.package(session.arena, session.io, session.refusal, session.keys, session.target, &package, session.store);
    attempt.version = verified.statement.version_text;
    return installs.install(session, &verified, .{ .package = &package });
}

pub fn pull(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, where: []const u8, requested: []const []const u8, out: *Io.Writer) Error!void {
    const source: Source = try .open(arena, io, refusal, where);
    var store: Store = try .open(io, refusal, root);
    var session = try begin(arena, io, refusal, &store);
    session.unasked = requested.len == 0;
    const offered = if (requested.len > 0) requested else try namesToPull(session, source);
    if (offered.len == 0) return refusal.because(.usage, "nothing is installed yet: name the models to pull", .{});
    var outcomes: std.ArrayList(Outcome) = .empty;
    for (offered) |name| {
        var attempt: last_install.Attempt = .{ .model = name };
        const outcome = pullOne(session, source, name, &attempt) catch |err| switch (err) {
            error.OutOfMemory => return error.OutOfMemory,
            error.Refused => {
                // A stick may carry models for other devices; only who asks for one by name wants it here.
                if (requested.len == 0 and refusal.check == .target) continue;
                attempt.record(arena, &store, refusal);
                return error.Refused;
            },
        };
        // Nothing was tried where nothing is new; a device that asks every minute spares its flash.
        if (outcome.changed) attempt.record(arena, &store, null);
        try outcomes.append(arena, outcome);
    }
    try answer.many(out, outcomes.items);
}

fn pullOne(session: Session, source: Source, name: []const u8, attempt: *last_install.Attempt) refusals.Error!Outcome {
    const bytes = try source.pointer(session.arena, session.io, session.refusal, name);
    const verified = try verify.pointer(session.arena, session.refusal, session.keys, session.target, bytes);
    if (!std.mem.eql(u8, verified.statement.name, name)) {
        return session.refusal.because(.statement, "what is offered as {s} was signed as {s}", .{ name, verified.statement.name });
    }
    attempt.digest = verified.statement.package;
    attempt.version = verified.statement.version_text;
    return installs.install(session, &verified, source);
}

/// What is installed, and all that a directory lists; a directory need not have what is installed.
fn namesToPull(session: Session, source: Source) refusals.Error![]const []const u8 {
    const listed = try source.models(session.arena, session.io, session.refusal);
    return if (source == .directory) listed else session.store.modelNames(session.arena);
}

pub fn rollback(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, requested: ?[]const u8, out: *Io.Writer) Error!void {
    var store: Store = try .open(io, refusal, root);
    const session = try begin(arena, io, refusal, &store);
    const installed = try store.modelNames(arena);
    const name = requested orelse switch (installed.len) {
        0 => return refusal.because(.state, "no model is installed", .{}),
        1 => installed[0],
        else => return refusal.because(.usage, "{d} models are installed; name the one to roll back", .{installed.len}),
    };
    const outcome = try installs.rollback(session, name);
    events.record(io, store.root, .{ .kind = .rollback, .model = name, .version = outcome.version });
    try answer.one(out, outcome);
}

pub fn status(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, version: []const u8, out: *Io.Writer) Error!void {
    var store: Store = try .open(io, refusal, root);
    if (notify.deviceStatus(arena, io, root)) |served| return out.print("{s}\n", .{served});
    const it: Status = try .gather(arena, &store, version, notify.isServing(arena, io, root));
    try it.write(out, null);
    try out.writeByte('\n');
}

pub fn listEvents(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, out: *Io.Writer) Error!void {
    const store: Store = try .open(io, refusal, root);
    try events.render(out, try events.read(arena, io, store.root));
    try out.writeByte('\n');
}

pub fn blobs(arena: Allocator, io: Io, refusal: *Refusal, root: []const u8, out: *Io.Writer) Error!void {
    var store: Store = try .open(io, refusal, root);
    try answer.blobs(out, try store.list(arena));
}
