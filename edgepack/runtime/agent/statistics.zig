//! Statistics of a tensor's elements: count, mean, variance, least and greatest, what is no number, and a
//! histogram over the edges of a baseline; and the index that says how far two histograms lie apart.
//!
//! Every element counts as a double. Of a large tensor some elements stand for all: one at random out
//! of each of `most` equal stretches, so that no pattern in the tensor is missed and the work is bounded.

const std = @import("std");
const baseline = @import("baseline.zig");
const Baseline = baseline.Baseline;
const DType = @import("model_info.zig").DType;

const chunk_elements = 256;

pub const Summary = struct {
    /// Finite elements: the five that follow are of these.
    finite: u64 = 0,
    mean: f64 = 0,
    /// Sum of squared distances from the mean.
    squares: f64 = 0,
    min: f64 = std.math.inf(f64),
    max: f64 = -std.math.inf(f64),
    nan: u64 = 0,
    infinite: u64 = 0,
    /// Of all but NaN.
    bins: [baseline.max_bins]u64 = @splat(0),

    pub fn count(self: *const Summary) u64 {
        return self.finite + self.infinite + self.nan;
    }

    /// Of the population; null without elements.
    pub fn variance(self: *const Summary) ?f64 {
        return if (self.finite > 0) self.squares / float(self.finite) else null;
    }

    /// As if the elements of both had been in one.
    /// Chan, Golub, LeVeque: Updating formulae and a pairwise algorithm for computing sample variances
    /// (Stanford, STAN-CS-79-773, 1979).
    pub fn merge(self: *Summary, other: *const Summary) void {
        self.nan += other.nan;
        self.infinite += other.infinite;
        for (&self.bins, other.bins) |*bin, more| bin.* += more;
        if (other.finite == 0) return;
        const before = float(self.finite);
        const more = float(other.finite);
        const apart = other.mean - self.mean;
        self.mean += apart * (more / (before + more));
        self.squares += other.squares + apart * apart * (before * more / (before + more));
        self.min = @min(self.min, other.min);
        self.max = @max(self.max, other.max);
        self.finite += other.finite;
    }

    fn addChunk(self: *Summary, chunk: *const Chunk, edges: []const f64) void {
        var part: Summary = .{};
        const zero: Lanes = @splat(0);
        const one: Lanes = @splat(1);
        const infinity: Lanes = @splat(std.math.inf(f64));
        var numbers = zero;
        var finite = zero;
        var sum = zero;
        var min = infinity;
        var max = -infinity;
        for (chunk.used()) |values| {
            const is_finite = @abs(values) < infinity; // NaN is not
            numbers += @select(f64, values == values, one, zero);
            finite += @select(f64, is_finite, one, zero);
            sum += @select(f64, is_finite, values, zero);
            min = @min(min, @select(f64, is_finite, values, infinity));
            max = @max(max, @select(f64, is_finite, values, -infinity));
        }
        const count_of_numbers: u64 = @intFromFloat(@reduce(.Add, numbers));
        part.finite = @intFromFloat(@reduce(.Add, finite));
        part.nan = chunk.len - count_of_numbers;
        part.infinite = count_of_numbers - part.finite;
        part.min = @reduce(.Min, min);
        part.max = @reduce(.Max, max);
        if (part.finite > 0) part.mean = @reduce(.Add, sum) / float(part.finite);
        var squares = zero;
        for (chunk.used()) |values| {
            const apart = @select(f64, @abs(values) < infinity, values - @as(Lanes, @splat(part.mean)), zero);
            squares += apart * apart;
        }
        part.squares = @reduce(.Add, squares);
        var left = count_of_numbers;
        for (edges, part.bins[0..edges.len]) |edge, *below| {
            const reached = chunk.countFrom(edge);
            below.* = left - reached;
            left = reached;
        }
        part.bins[edges.len] = left;
        self.merge(&part);
    }
};

const lanes = 8;
const Lanes = @Vector(lanes, f64);

/// Some elements. Behind the last there is NaN up to a whole vector.
const Chunk = struct {
    vectors: [chunk_elements / lanes]Lanes = undefined,
    len: usize = 0,

    /// For `len` elements.
    fn begin(self: *Chunk, len: usize) []f64 {
        self.len = len;
        if (len % lanes > 0) self.vectors[len / lanes] = @splat(std.math.nan(f64));
        const elements: [*]f64 = @ptrCast(&self.vectors);
        return elements[0..len];
    }

    fn used(self: *const Chunk) []const Lanes {
        return self.vectors[0 .. std.math.divCeil(usize, self.len, lanes) catch unreachable];
    }

    /// How many are `edge` or more.
    fn countFrom(self: *const Chunk, edge: f64) u64 {
        var reached: Lanes = @splat(0);
        for (self.used()) |values| {
            reached += @select(f64, values >= @as(Lanes, @splat(edge)), @as(Lanes, @splat(1)), @as(Lanes, @splat(0)));
        }
        return @intFromFloat(@reduce(.Add, reached));
    }
};

fn float(number: u64) f64 {
    return @floatFromInt(number);
}

/// The elements of a tensor, or `most` of them.
pub fn collect(dtype: DType, bytes: []const u8, edges: []const f64, most: usize, random: *Random) Summary {
    const total = bytes.len / dtype.size();
    const taken: Taken = .init(total, most, random);
    var summary: Summary = .{};
    var chunk: Chunk = .{};
    var first: usize = 0;
    while (first < taken.len) : (first += chunk_elements) {
        const into = chunk.begin(@min(chunk_elements, taken.len - first));
        switch (dtype) {
            inline else => |it| gather(it.Element(), bytes, first, taken, random, into),
        }
        summary.addChunk(&chunk, edges);
    }
    return summary;
}

fn gather(comptime T: type, bytes: []const u8, first: usize, taken: Taken, random: *Random, chunk: []f64) void {
    const elements: []align(1) const Stored(T) = @ptrCast(bytes);
    if (taken.stretch == 1) {
        for (chunk, elements[taken.offset + first ..][0..chunk.len]) |*into, element| into.* = asDouble(T, element);
    } else {
        for (chunk, first..) |*into, number| into.* = asDouble(T, elements[taken.position(number, random)]);
    }
}

/// A byte that the model wrote need not be 0 or 1.
fn Stored(comptime T: type) type {
    return if (T == bool) u8 else T;
}

fn asDouble(comptime T: type, element: Stored(T)) f64 {
    return switch (@typeInfo(T)) {
        .bool => if (element != 0) 1 else 0,
        .int => @floatFromInt(element),
        else => element,
    };
}

/// Which elements are looked at: one out of each stretch.
const Taken = struct {
    len: usize,
    stretch: usize,
    /// Where the first stretch begins: what remains at the end is left out at either end by turns.
    offset: usize,

    fn init(total: usize, most: usize, random: *Random) Taken {
        if (total <= most) return .{ .len = total, .stretch = 1, .offset = 0 };
        const stretch = total / most;
        return .{ .len = most, .stretch = stretch, .offset = random.below(total - stretch * most + 1) };
    }

    fn position(self: Taken, number: usize, random: *Random) usize {
        const within = if (self.stretch > 1) random.below(self.stretch) else 0;
        return self.offset + number * self.stretch + within;
    }
};

/// Which elements are looked at needs no more chance than this.
/// Marsaglia: Xorshift RNGs, Journal of Statistical Software 8 (2003), 14.
pub const Random = struct {
    /// Never 0.
    state: u32,

    fn below(self: *Random, end: usize) usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        return @intCast((@as(u64, self.state) * end) >> 32);
    }
};

/// A share of less counts as so much: an empty bin has no logarithm.
const least_share = 1e-4;

/// The population stability index: the sum of (p - q) ln(p / q) over bins, p being the share of the bin
/// now and q its share in the baseline; NaN has a bin of its own. Null where there are no bins.
/// Yurdakul: Statistical Properties of Population Stability Index (Western Michigan University, 2018).
pub fn stabilityIndex(normal: *const Baseline, now: *const Summary) ?f64 {
    if (!normal.isBinned() or now.count() == 0) return null;
    const then = float(normal.count);
    const all = float(now.count());
    var index = term(float(now.nan) / all, float(normal.nan) / then);
    for (normal.counts, now.bins[0..normal.counts.len]) |before, after| index += term(float(after) / all, float(before) / then);
    return index;
}

fn term(share: f64, normal: f64) f64 {
    const p = @max(share, least_share);
    const q = @max(normal, least_share);
    return (p - q) * @log(p / q);
}

test {
    _ = @import("statistics_test.zig");
}
