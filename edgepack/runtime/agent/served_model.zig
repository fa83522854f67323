//! One version of a model with its worker, while it is served.
//!
//! Requests hold a reference; one that was replaced stops its worker when its last request is done.
//! Runs take turns, first come, first served (queue.zig). A worker that died is started again by the next request that comes
//! to its turn; one that dies again and again is given longer and longer pauses.

const std = @import("std");
const Io = std.Io;
const Blob = @import("blob.zig").Blob;
const clock = @import("clock.zig");
const Counter = @import("counter.zig").Counter;
const Drift = @import("drift.zig").Drift;
const log = @import("log.zig");
const metrics = @import("metrics.zig");
const ModelInfo = @import("model_info.zig").ModelInfo;
const Problem = @import("problem.zig").Problem;
const Queue = @import("queue.zig").Queue;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const Settings = @import("settings.zig").Settings;
const states = @import("state.zig");
const Installed = states.Installed;
const Store = @import("store.zig").Store;
const WorkerProcess = @import("worker_process.zig").WorkerProcess;

const start_deadline_ms = 30_000;
const max_model_json = 4 << 20;
const first_pause_ms = 100;
const longest_pause_ms = 30_000;

/// Of versions that were started.
var serials: Counter = .init(0);

/// Requests that wait for a model, whichever, or for their turn.
var in_progress: std.atomic.Value(u32) = .init(0);

pub const ServedModel = struct {
    /// No other has had this one.
    serial: u64,
    io: Io,
    store: Store,
    settings: *const Settings,
    arena: std.heap.ArenaAllocator,
    installed: Installed,
    info: ModelInfo,
    counters: *metrics.Version,
    /// Of what was answered; it has a lock of its own.
    drift: Drift,
    references: std.atomic.Value(u32) = .init(1),
    turns: Queue = .{},
    // All below: for whoever has the turn.
    process: WorkerProcess,
    deaths: u32 = 0, // since the last run that succeeded
    retry_at: u64 = 0,
    /// Goes up once: after so many deaths in a row it is given up, and somebody is to see to that.
    given_up: std.atomic.Value(enum(u8) { no, untold, told }) = .init(.no),
    /// Of the last of those deaths; written once, before `given_up` says so.
    failure: Refusal = .{},

    /// Re-hashes what is about to run, starts it, and waits until it is ready.
    pub fn start(store: *const Store, settings: *const Settings, refusal: *Refusal, installed: Installed) refusals.Error!*ServedModel {
        const self = try std.heap.page_allocator.create(ServedModel);
        errdefer std.heap.page_allocator.destroy(self);
        self.* = .{
            .serial = serials.fetchAdd(1, .monotonic) + 1,
            .io = store.io,
            .store = store.*,
            .settings = settings,
            .arena = .init(std.heap.page_allocator),
            .installed = installed,
            .info = undefined,
            .counters = undefined,
            .drift = undefined,
            .process = undefined,
        };
        errdefer self.arena.deinit();
        const arena = self.arena.allocator();
        self.installed.version = try arena.dupe(u8, installed.version);
        self.store.refusal = refusal;
        self.info = try self.readInfo(arena, refusal);
        self.drift = try .init(arena, &self.info);
        self.process = try self.startWorker(refusal);
        self.counters = metrics.table.acquire(self.info.name, self.info.version);
        self.counters.pid.store(self.process.pid, .monotonic);
        return self;
    }

    fn readInfo(self: *ServedModel, arena: std.mem.Allocator, refusal: *Refusal) refusals.Error!ModelInfo {
        const hex = self.installed.digests.get(.metadata);
        var blob = try self.store.find(hex, null) orelse return refusal.because(.state, "blob {s} is missing", .{hex[0..16]});
        defer blob.close(self.io);
        if (blob.size > max_model_json) return refusal.because(.state, "model.json of more than {d} bytes", .{max_model_json});
        return ModelInfo.parse(arena, refusal, try blob.readAll(arena, self.io, refusal));
    }

    fn startWorker(self: *ServedModel, refusal: *Refusal) refusals.Error!WorkerProcess {
        var store = self.store;
        store.refusal = refusal;
        var worker = try self.openChecked(&store, .worker);
        defer worker.close(self.io);
        var weights = try self.openChecked(&store, .weights);
        defer weights.close(self.io);
        return WorkerProcess.start(refusal, .of(&worker, &weights), &self.info, start_deadline_ms);
    }

    fn openChecked(self: *ServedModel, store: *Store, kept: states.Kept) error{Refused}!Blob {
        const hex = self.installed.digests.get(kept);
        var blob = try store.find(hex, null) orelse return store.refusal.because(.state, "blob {s} is missing", .{hex[0..16]});
        errdefer blob.close(self.io);
        try blob.check(self.io, store.refusal);
        return blob;
    }

    pub fn acquire(self: *ServedModel) void {
        _ = self.references.fetchAdd(1, .monotonic);
    }

    /// Whoever gives back the last reference stops the worker.
    pub fn release(self: *ServedModel) void {
        if (self.references.fetchSub(1, .acq_rel) != 1) return;
        self.process.stop();
        metrics.table.release(self.counters);
        self.arena.deinit();
        std.heap.page_allocator.destroy(self);
    }

    /// Runs the inputs in `staging` and leaves the outputs there; both lie as in shared memory.
    pub fn run(self: *ServedModel, staging: []u8, problem: *Problem) error{Problem}!void {
        _ = in_progress.fetchAdd(1, .monotonic);
        defer _ = in_progress.fetchSub(1, .monotonic);
        try self.takeTurn(problem);
        defer self.turns.leave();
        if (!self.process.checkAlive()) try self.restart(problem);
        const outputs_at = self.info.outputs[0].offset;
        @memcpy(self.process.shm[0..outputs_at], staging[0..outputs_at]);
        var refusal: Refusal = .{};
        const took = self.process.run(&refusal, self.settings.run_ms.value, &in_progress) catch {
            if (!self.process.alive) self.noteDeath(&refusal);
            return problem.because(.internal_server_error, "{s}", .{refusal.reason()});
        };
        self.deaths = 0;
        self.counters.compute.observe(took);
        @memcpy(staging[outputs_at..], self.process.shm[outputs_at..staging.len]);
    }

    /// Requests for other models do not wait behind this one; how many may stand here is bounded, so that
    /// a model that hangs leaves connections to the others.
    fn takeTurn(self: *ServedModel, problem: *Problem) error{Problem}!void {
        const settings = self.settings;
        const asked_at = clock.nanoseconds();
        {
            _ = self.counters.waiting.fetchAdd(1, .monotonic);
            defer _ = self.counters.waiting.fetchSub(1, .monotonic);
            self.turns.enter(settings.queue.value, settings.queue_ms.value) catch |err| {
                const why: metrics.TurnedAway = switch (err) {
                    error.Full => .full,
                    error.Late => .late,
                };
                _ = self.counters.turned_away.getPtr(why).fetchAdd(1, .monotonic);
                problem.retry_after_s = 1;
                return switch (why) {
                    .full => problem.because(.service_unavailable, "{d} requests for this model wait already", .{settings.queue.value}),
                    .late => problem.because(.service_unavailable, "the model was busy for {d} ms", .{settings.queue_ms.value}),
                };
            };
        }
        self.counters.queue_wait.observe(clock.nanoseconds() - asked_at);
    }

    fn restart(self: *ServedModel, problem: *Problem) error{Problem}!void {
        const now = clock.milliseconds();
        if (now < self.retry_at) {
            problem.retry_after_s = @intCast(std.math.divCeil(u64, self.retry_at - now, std.time.ms_per_s) catch unreachable);
            return problem.because(.service_unavailable, "the worker died {d} times; it is started again in {d} ms", .{ self.deaths, self.retry_at - now });
        }
        var refusal: Refusal = .{};
        const process = self.startWorker(&refusal) catch |err| {
            if (err == error.OutOfMemory) _ = refusal.because(.worker, "out of memory", .{}) catch {};
            self.noteDeath(&refusal);
            return problem.because(.service_unavailable, "{s}", .{refusal.reason()});
        };
        self.process.stop();
        self.process = process;
        self.counters.pid.store(process.pid, .monotonic);
        _ = self.counters.restarts.fetchAdd(1, .monotonic);
        log.line("{s} {s}: worker started again, process {d}", .{ self.info.name, self.info.version, process.pid });
    }

    /// No pause after the first death in a row, then 100 ms, doubled each time, 30 s at most.
    fn noteDeath(self: *ServedModel, refusal: *const Refusal) void {
        const pause: u64 = if (self.deaths == 0) 0 else @min(longest_pause_ms, @as(u64, first_pause_ms) << @min(self.deaths - 1, 16));
        self.deaths +|= 1;
        _ = self.counters.deaths.fetchAdd(1, .monotonic);
        self.retry_at = clock.milliseconds() + pause;
        log.line("{s} {s}: {s}", .{ self.info.name, self.info.version, refusal.reason() });
        const bound = self.settings.failures.value;
        if (bound == 0 or self.deaths < bound or self.given_up.load(.monotonic) != .no) return;
        self.failure = refusal.*;
        self.given_up.store(.untold, .release);
    }

    /// Why it was given up; to the first who asks.
    pub fn takeFailure(self: *ServedModel) ?*const Refusal {
        return if (self.given_up.cmpxchgStrong(.untold, .told, .acquire, .monotonic) == null) &self.failure else null;
    }
};
