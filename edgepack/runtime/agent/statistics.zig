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

    /// Takes in a few elements; they are moved about.
    fn addChunk(self: *Summary, chunk: []f64, bins: *const Bins) void {
        var part: Summary = .{};
        var len: usize = 0;
        var sum: f64 = 0;
        for (chunk) |value| {
            if (std.math.isNan(value)) {
                part.nan += 1;
                continue;
            }
            part.bins[bins.of(value)] += 1;
            if (std.math.isInf(value)) {
                part.infinite += 1;
                continue;
            }
            chunk[len] = value;
            len += 1;
            sum += value;
            part.min = @min(part.min, value);
            part.max = @max(part.max, value);
        }
        part.finite = len;
        if (len > 0) part.mean = sum / float(len);
        for (chunk[0..len]) |value| part.squares += (value - part.mean) * (value - part.mean);
        self.merge(&part);
    }
};

/// Which bin a value falls into, without a branch: values are random, and so would every guess be.
const Bins = struct {
    edges: Edges,
    last: usize,

    const Edges = @Vector(baseline.max_bins - 1, f64);

    fn init(edges: []const f64) Bins {
        var padded: [baseline.max_bins - 1]f64 = @splat(std.math.inf(f64));
        @memcpy(padded[0..edges.len], edges);
        return .{ .edges = padded, .last = edges.len };
    }

    fn of(self: *const Bins, value: f64) usize {
        const reached: u15 = @bitCast(@as(Edges, @splat(value)) >= self.edges);
        return @min(@popCount(reached), self.last); // infinity reaches also what is no edge
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
    const bins: Bins = .init(edges);
    var buffer: [chunk_elements]f64 = undefined;
    var first: usize = 0;
    while (first < taken.len) : (first += chunk_elements) {
        const chunk = buffer[0..@min(chunk_elements, taken.len - first)];
        switch (dtype) {
            .bool => gather(bool, bytes, first, taken, random, chunk),
            .int8 => gather(i8, bytes, first, taken, random, chunk),
            .uint8 => gather(u8, bytes, first, taken, random, chunk),
            .int16 => gather(i16, bytes, first, taken, random, chunk),
            .uint16 => gather(u16, bytes, first, taken, random, chunk),
            .int32 => gather(i32, bytes, first, taken, random, chunk),
            .uint32 => gather(u32, bytes, first, taken, random, chunk),
            .int64 => gather(i64, bytes, first, taken, random, chunk),
            .uint64 => gather(u64, bytes, first, taken, random, chunk),
            .float16 => gather(f16, bytes, first, taken, random, chunk),
            .float32 => gather(f32, bytes, first, taken, random, chunk),
            .float64 => gather(f64, bytes, first, taken, random, chunk),
        }
        summary.addChunk(chunk, &bins);
    }
    return summary;
}

fn gather(comptime T: type, bytes: []const u8, first: usize, taken: Taken, random: *Random, chunk: []f64) void {
    for (chunk, first..) |*into, number| {
        const raw = bytes[taken.position(number, random) * @sizeOf(T) ..][0..@sizeOf(T)];
        into.* = switch (@typeInfo(T)) {
            .bool => if (raw[0] != 0) 1 else 0,
            .int => @floatFromInt(std.mem.bytesToValue(T, raw)),
            else => std.mem.bytesToValue(T, raw),
        };
    }
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
