//! What the server counts while it serves: for each version of a model, requests, errors by kind, the
//! worker's deaths and restarts, and histograms of waiting and computing. metrics_text.zig writes them
//! in Prometheus's text format.
//!
//! Counters are atomic and live in a table of fixed size, so that counting costs a few additions and the
//! number of series has a bound whatever is installed over the years. A version's counters outlast a
//! reload; only when the table is full does a new version take the place of one that is served no more.

const std = @import("std");
const http = @import("http.zig");
const Mutex = @import("mutex.zig").Mutex;
const Problem = @import("problem.zig").Problem;
const states = @import("state.zig");

pub const Counter = @import("counter.zig").Counter;

/// Every model in two versions while one replaces the other, at the most.
pub const max_versions = 2 * states.max_models;

/// Upper bounds of the buckets in nanoseconds: 50 us to 10 s; a last bucket takes what is above.
pub const bounds_ns = [_]u64{
    50_000,         100_000,    250_000,     500_000,     1_000_000,   2_500_000,     5_000_000,     10_000_000,
    25_000_000,     50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000,
    10_000_000_000,
};

pub const Histogram = struct {
    buckets: [bounds_ns.len + 1]Counter = @splat(.init(0)),
    sum_ns: Counter = .init(0),

    pub fn observe(self: *Histogram, ns: u64) void {
        var index: usize = 0;
        while (index < bounds_ns.len and ns > bounds_ns[index]) index += 1;
        _ = self.buckets[index].fetchAdd(1, .monotonic);
        _ = self.sum_ns.fetchAdd(ns, .monotonic);
    }
};

/// Kinds of failed requests, by what the client was told.
pub const ErrorKind = enum {
    /// The request is malformed or does not fit the model.
    invalid,
    /// It did not come in time.
    timeout,
    /// The model failed, or its worker died or hung.
    failed,
    /// Busy, out of memory, or waiting for a worker that keeps dying.
    unavailable,

    fn of(status: http.Status) ErrorKind {
        return switch (status) {
            .request_timeout => .timeout,
            .service_unavailable => .unavailable,
            else => if (@backingInt(status) < 500) .invalid else .failed,
        };
    }
};

/// Why a request did not get its turn.
pub const TurnedAway = enum {
    /// As many waited already as may.
    full,
    /// Its turn did not come in time.
    late,
};

/// How the captures of requests end that were to be captured.
pub const CaptureOutcome = enum {
    /// On the disk, until the limits take them away.
    written,
    /// The queue was full, or there was no room.
    dropped,
    /// The file system failed.
    failed,
};

/// The counters of one version of a model.
pub const Version = struct {
    requests: Counter = .init(0),
    errors: std.EnumArray(ErrorKind, Counter) = .initFill(.init(0)),
    captures: std.EnumArray(CaptureOutcome, Counter) = .initFill(.init(0)),
    deaths: Counter = .init(0),
    restarts: Counter = .init(0),
    fallbacks: Counter = .init(0),
    turned_away: std.EnumArray(TurnedAway, Counter) = .initFill(.init(0)),
    /// Requests that wait for their turn now.
    waiting: std.atomic.Value(u32) = .init(0),
    queue_wait: Histogram = .{},
    compute: Histogram = .{},
    /// Of the worker, or 0.
    pid: std.atomic.Value(i32) = .init(0),

    name_buffer: [64]u8 = @splat(0),
    name_len: u8 = 0,
    version_buffer: [32]u8 = @splat(0),
    version_len: u8 = 0,
    /// How many ServedModels count here; under the table's lock.
    users: u32 = 0,

    pub fn name(self: *const Version) []const u8 {
        return self.name_buffer[0..self.name_len];
    }

    pub fn version(self: *const Version) []const u8 {
        return self.version_buffer[0..self.version_len];
    }

    /// To be called once for each request, with the problem that it was answered with, if any.
    pub fn countRequest(self: *Version, problem: *const Problem) void {
        _ = self.requests.fetchAdd(1, .monotonic);
        if (problem.reason().len == 0) return;
        _ = self.errors.getPtr(.of(problem.status)).fetchAdd(1, .monotonic);
    }

    fn is(self: *const Version, wanted_name: []const u8, wanted_version: []const u8) bool {
        return std.mem.eql(u8, self.name(), wanted_name) and std.mem.eql(u8, self.version(), wanted_version);
    }
};

/// All versions that this process has served.
pub const Table = struct {
    lock: Mutex = .{},
    versions: [max_versions]Version = @splat(.{}),
    len: usize = 0,

    /// The counters of this version, to be given back. `name` and `version` have passed naming.zig.
    pub fn acquire(self: *Table, name: []const u8, version: []const u8) *Version {
        self.lock.lock();
        defer self.lock.unlock();
        const found = for (self.versions[0..self.len]) |*it| {
            if (it.is(name, version)) break it;
        } else self.add(name, version);
        found.users += 1;
        return found;
    }

    /// Of one that the caller holds, for another who gives it back later.
    pub fn retain(self: *Table, version: *Version) void {
        self.lock.lock();
        defer self.lock.unlock();
        version.users += 1;
    }

    pub fn release(self: *Table, version: *Version) void {
        self.lock.lock();
        defer self.lock.unlock();
        version.users -= 1;
        if (version.users == 0) version.pid.store(0, .monotonic); // the number may become another process's
    }

    fn add(self: *Table, name: []const u8, version: []const u8) *Version {
        const place = if (self.len < self.versions.len) fresh: {
            self.len += 1;
            break :fresh &self.versions[self.len - 1];
        } else for (&self.versions) |*it| {
            if (it.users == 0) break it;
        } else unreachable; // no more are served at once than the table holds
        place.* = .{};
        @memcpy(place.name_buffer[0..name.len], name);
        place.name_len = @intCast(name.len);
        @memcpy(place.version_buffer[0..version.len], version);
        place.version_len = @intCast(version.len);
        return place;
    }
};

/// One for the process, as Prometheus's own libraries have it: whoever counts need not be handed it.
pub var table: Table = .{};

const testing = std.testing;

test "an observation falls into the first bucket that holds it" {
    var histogram: Histogram = .{};
    for ([_]u64{ 0, 50_000, 50_001, 10_000_000_000, 10_000_000_001 }) |ns| histogram.observe(ns);
    try testing.expectEqual(2, histogram.buckets[0].raw);
    try testing.expectEqual(1, histogram.buckets[1].raw);
    try testing.expectEqual(1, histogram.buckets[bounds_ns.len - 1].raw);
    try testing.expectEqual(1, histogram.buckets[bounds_ns.len].raw);
    try testing.expectEqual(20_000_100_002, histogram.sum_ns.raw);
}

test "a version keeps its counters, and a full table gives up one that is not served" {
    const own = try testing.allocator.create(Table);
    defer testing.allocator.destroy(own);
    own.* = .{};
    const first = own.acquire("m", "1.0.0");
    first.countRequest(&.{});
    own.release(first);
    try testing.expectEqual(first, own.acquire("m", "1.0.0"));
    var buffer: [32]u8 = undefined;
    var last: *Version = undefined;
    for (1..max_versions) |number| last = own.acquire("m", try std.fmt.bufPrint(&buffer, "2.0.{d}", .{number}));
    own.release(last);
    try testing.expectEqual(last, own.acquire("n", "1.0.0"));
    try testing.expectEqual(1, first.requests.raw);
    try testing.expectEqual(0, last.requests.raw);
}
