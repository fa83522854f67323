//! How what a model is asked and answers differs from the baseline that its package carries.
//!
//! Statistics of each tensor are kept since the version was loaded, and of a window: the current half
//! and the one before. A half ends after an hour, but not before it has seen enough to tell something,
//! so that a window is of the last hour or two where requests are many, and of the last thousand
//! elements or so where they are few. Below that there is no index: small samples look like drift.

const std = @import("std");
const Allocator = std.mem.Allocator;
const baseline = @import("baseline.zig");
const Baseline = baseline.Baseline;
const clock = @import("clock.zig");
const model_info = @import("model_info.zig");
const Mutex = @import("mutex.zig").Mutex;
const statistics = @import("statistics.zig");
const Summary = statistics.Summary;

const half_ms = 3_600_000;
const enough_elements = 1000;
/// The elements of one request are seldom independent of each other.
const enough_requests = 30;
/// Looked at for each request, of one tensor and of all; see statistics.zig.
const most_of_tensor = 1024;
const most_of_request = 8192;

pub const Half = struct {
    summary: Summary = .{},
    requests: u64 = 0,
    began: u64 = 0,

    fn isEnough(self: *const Half) bool {
        return self.requests >= enough_requests and self.summary.count() >= enough_elements;
    }
};

/// One tensor and its statistics.
pub const Tracked = struct {
    tensor: *const model_info.Tensor,
    normal: ?*const Baseline,
    total: Summary = .{},
    current: Half = .{},
    before: Half = .{},

    /// Takes in what one request brought; `now` is in milliseconds of a clock that never jumps.
    pub fn add(self: *Tracked, part: *const Summary, now: u64) void {
        if (self.current.isEnough() and now - self.current.began >= half_ms) {
            self.before = self.current;
            self.current = .{};
        }
        if (self.current.requests == 0) self.current.began = now;
        self.current.requests += 1;
        self.current.summary.merge(part);
        self.total.merge(part);
    }

    pub fn window(self: *const Tracked) Half {
        var both = self.current;
        if (self.before.requests == 0) return both;
        both.summary.merge(&self.before.summary);
        both.requests += self.before.requests;
        both.began = self.before.began;
        return both;
    }

    /// Null without a baseline that has bins, and until the window holds enough.
    pub fn stabilityIndex(self: *const Tracked) ?f64 {
        const seen = self.window();
        if (!seen.isEnough()) return null;
        return statistics.stabilityIndex(self.normal orelse return null, &seen.summary);
    }
};

/// Of one version of a model while it is served.
pub const Drift = struct {
    lock: Mutex = .{},
    // All below: under `lock`.
    requests: u64 = 0,
    random: statistics.Random = .{ .state = 1 },
    tensors: []Tracked,
    /// Those before are inputs.
    outputs_from: usize,

    pub const Kind = enum { input, output };

    /// `info` and what it points to outlast it, as does `arena`.
    pub fn init(arena: Allocator, info: *const model_info.ModelInfo) error{OutOfMemory}!Drift {
        const tensors = try arena.alloc(Tracked, info.inputs.len + info.outputs.len);
        const from = info.inputs.len;
        for (info.inputs, tensors[0..from], 0..) |*tensor, *tracked, index| {
            tracked.* = .{ .tensor = tensor, .normal = if (info.baseline) |*it| at(it.inputs, index) else null };
        }
        for (info.outputs, tensors[from..], 0..) |*tensor, *tracked, index| {
            tracked.* = .{ .tensor = tensor, .normal = if (info.baseline) |*it| at(it.outputs, index) else null };
        }
        return .{ .tensors = tensors, .outputs_from = from };
    }

    fn at(of: []const ?Baseline, index: usize) ?*const Baseline {
        return if (of[index]) |*it| it else null;
    }

    /// Takes in the tensors of a request that was answered; they lie as in shared memory.
    pub fn add(self: *Drift, tensors: []const u8) void {
        const most = @min(most_of_tensor, most_of_request / self.tensors.len);
        const now = clock.milliseconds();
        self.lock.lock();
        defer self.lock.unlock();
        self.requests += 1;
        for (self.tensors) |*tracked| {
            const tensor = tracked.tensor;
            const edges = if (tracked.normal) |it| it.edges else &.{};
            const part = statistics.collect(tensor.dtype, tensors[tensor.offset..][0..tensor.nbytes], edges, most, &self.random);
            tracked.add(&part, now);
        }
    }

    pub fn kindOf(self: *const Drift, index: usize) Kind {
        return if (index < self.outputs_from) .input else .output;
    }

    /// A copy, to be written out while others go on counting.
    pub fn snapshot(self: *Drift, index: usize) Tracked {
        self.lock.lock();
        defer self.lock.unlock();
        return self.tensors[index];
    }

    pub fn requestCount(self: *Drift) u64 {
        self.lock.lock();
        defer self.lock.unlock();
        return self.requests;
    }

    /// Of the tensor that drifted the farthest; null where none has an index.
    pub fn worst(self: *Drift) ?f64 {
        var found: ?f64 = null;
        for (0..self.tensors.len) |index| {
            const one = self.snapshot(index).stabilityIndex() orelse continue;
            found = @max(found orelse one, one);
        }
        return found;
    }
};

const testing = std.testing;

const test_normal: Baseline = .{
    .count = 1000,
    .nan = 0,
    .infinite = 0,
    .mean = 0.5,
    .variance = 0.25,
    .min = 0,
    .max = 1,
    .edges = &.{0.5},
    .counts = &.{ 500, 500 },
};

fn testPart(value: f64, elements: u64) Summary {
    var summary: Summary = .{ .finite = elements, .mean = value, .min = value, .max = value };
    summary.bins[if (value >= 0.5) 1 else 0] = elements;
    return summary;
}

test "an index needs enough elements from enough requests" {
    var tracked: Tracked = .{ .tensor = undefined, .normal = &test_normal };
    for (0..enough_requests - 1) |_| tracked.add(&testPart(1, 1000), 0);
    try testing.expectEqual(null, tracked.stabilityIndex());
    tracked.add(&testPart(1, 1000), 0);
    try testing.expect(tracked.stabilityIndex().? > 1);
    tracked = .{ .tensor = undefined, .normal = &test_normal };
    for (0..enough_elements - 1) |_| tracked.add(&testPart(1, 1), 0);
    try testing.expectEqual(null, tracked.stabilityIndex());
    tracked.add(&testPart(1, 1), 0);
    try testing.expect(tracked.stabilityIndex() != null);
    tracked.normal = null;
    try testing.expectEqual(null, tracked.stabilityIndex());
}

test "the window forgets what is two halves old, and the total does not" {
    var tracked: Tracked = .{ .tensor = undefined, .normal = &test_normal };
    for (0..1000) |_| tracked.add(&testPart(0, 1), 5);
    tracked.add(&testPart(0, 1), half_ms + 4); // still within the hour
    try testing.expectEqual(1001, tracked.window().requests);
    try testing.expectEqual(0, tracked.before.requests);
    for (0..1000) |_| tracked.add(&testPart(1, 1), half_ms + 5);
    try testing.expectEqual(1001, tracked.before.requests);
    try testing.expectEqual(2001, tracked.window().requests);
    try testing.expectEqual(5, tracked.window().began);
    try testing.expectApproxEqAbs(0, tracked.stabilityIndex().?, 1e-6);
    tracked.add(&testPart(1, 1), 2 * half_ms + 5);
    const seen = tracked.window();
    try testing.expectEqual(1001, seen.requests);
    try testing.expectEqual(half_ms + 5, seen.began);
    try testing.expectEqual(1, seen.summary.mean);
    try testing.expect(tracked.stabilityIndex().? > 1);
    try testing.expectEqual(2002, tracked.total.finite);
}

test "a half that has not seen enough goes on, however old it is" {
    var tracked: Tracked = .{ .tensor = undefined, .normal = &test_normal };
    for (0..enough_elements - 1) |minute| tracked.add(&testPart(1, 1), minute * half_ms);
    try testing.expectEqual(0, tracked.before.requests);
    tracked.add(&testPart(1, 1), enough_elements * half_ms);
    tracked.add(&testPart(1, 1), enough_elements * half_ms);
    try testing.expectEqual(enough_elements, tracked.before.requests);
    try testing.expectEqual(1, tracked.current.requests);
}
