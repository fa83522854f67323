//! The baseline that a package carries: how each input and output is spread while all is well.
//!
//!     {"inputs":[TENSOR|null,...],"outputs":[...],"samples":N}
//!     TENSOR: {"count":N,"nan":N,"infinite":N,"mean":X,"variance":X,"min":X,"max":X,
//!              "edges":[X,...],"counts":[N,...]}
//!
//! Bin i holds what is at least edge i - 1 and below edge i: one bin more than edges. It is signed with
//! all of model.json, and checked all the same.

const std = @import("std");
const Allocator = std.mem.Allocator;
const document = @import("document.zig");
const Document = document.Document;
const refusals = @import("refusal.zig");

pub const max_bins = 16;
const max_integer = 1 << 53;

/// Of one tensor.
pub const Baseline = struct {
    count: u64,
    nan: u64,
    infinite: u64,
    mean: f64,
    variance: f64,
    min: f64,
    max: f64,
    edges: []const f64,
    counts: []const u64,

    /// Whether it has bins to compare with.
    pub fn isBinned(self: *const Baseline) bool {
        return self.edges.len > 0;
    }
};

/// Of all tensors, in the model's order; null for those of which nothing can be said.
pub const Baselines = struct {
    samples: u64,
    inputs: []const ?Baseline,
    outputs: []const ?Baseline,

    /// Null where the package has none. The result lives in `arena`.
    pub fn parse(arena: Allocator, doc: Document, root: document.Object, inputs: usize, outputs: usize) refusals.Error!?Baselines {
        if (root.get("baseline") == null) return null;
        const object = try doc.objectField(root, "baseline");
        return .{
            .samples = try doc.integer(object, "samples", max_integer),
            .inputs = try parseTensors(arena, doc, object, "inputs", inputs),
            .outputs = try parseTensors(arena, doc, object, "outputs", outputs),
        };
    }
};

fn parseTensors(arena: Allocator, doc: Document, object: document.Object, field: []const u8, len: usize) refusals.Error![]const ?Baseline {
    const values = try doc.array(object, field, len);
    if (values.len != len) return doc.malformed("a baseline that has not {d} {s}", .{ len, field });
    const found = try arena.alloc(?Baseline, len);
    for (values, found) |value, *into| {
        into.* = if (value == .null) null else try parseTensor(arena, doc, try doc.asObject(value, "a tensor's baseline"));
    }
    return found;
}

fn parseTensor(arena: Allocator, doc: Document, object: document.Object) refusals.Error!Baseline {
    const edges = try doc.array(object, "edges", max_bins - 1);
    const bounds = try arena.alloc(f64, edges.len);
    for (edges, bounds, 0..) |value, *bound, index| {
        bound.* = try doc.finite(value, "an edge");
        if (index > 0 and !(bound.* > bounds[index - 1])) return doc.malformed("edges of a baseline that do not rise", .{});
    }
    const counts = try doc.array(object, "counts", max_bins);
    if (counts.len != edges.len + 1) return doc.malformed("a baseline with other bins than its edges make", .{});
    const bins = try arena.alloc(u64, counts.len);
    const result: Baseline = .{
        .count = try doc.integer(object, "count", max_integer),
        .nan = try doc.integer(object, "nan", max_integer),
        .infinite = try doc.integer(object, "infinite", max_integer),
        .mean = try doc.finite(try doc.get(object, "mean"), "mean"),
        .variance = try doc.finite(try doc.get(object, "variance"), "variance"),
        .min = try doc.finite(try doc.get(object, "min"), "min"),
        .max = try doc.finite(try doc.get(object, "max"), "max"),
        .edges = bounds,
        .counts = bins,
    };
    var total = result.nan; // 17 numbers below 2^53: no overflow
    for (counts, bins) |value, *bin| {
        if (value != .integer or value.integer < 0 or value.integer > max_integer) return doc.malformed("a bin that is no count", .{});
        bin.* = @intCast(value.integer);
        total += bin.*;
    }
    if (total != result.count or total == 0) return doc.malformed("a baseline whose bins do not make up its elements", .{});
    return result;
}

const testing = std.testing;

fn parseTest(arena: Allocator, text: []const u8) refusals.Error!?Baselines {
    var refusal: refusals.Refusal = .{};
    const doc: Document = .{ .refusal = &refusal, .check = .package, .title = "model.json" };
    return Baselines.parse(arena, doc, try doc.parse(arena, text), 1, 1);
}

test "a baseline is read as it was written, and anything else is refused" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const gpa = arena.allocator();
    const head = "{\"baseline\":{\"samples\":3,\"outputs\":[null],\"inputs\":[";
    const moments = "\"nan\":1,\"infinite\":0,\"mean\":1e-07,\"variance\":0.5,\"min\":-1.0,\"max\":2,";
    const good = head ++ "{\"count\":6,\"edges\":[-1.5,0.0],\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}]}}";
    const found = (try parseTest(gpa, good)).?;
    try testing.expectEqual(null, found.outputs[0]);
    try testing.expectEqualSlices(f64, &.{ -1.5, 0 }, found.inputs[0].?.edges);
    try testing.expectEqualSlices(u64, &.{ 0, 2, 3 }, found.inputs[0].?.counts);
    try testing.expectEqual(1e-7, found.inputs[0].?.mean);
    try testing.expectEqual(null, try parseTest(gpa, "{}"));
    inline for (.{
        "{\"count\":6,\"edges\":[0.0,-1.5],\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}",
        "{\"count\":6,\"edges\":[0.0,0.0],\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}",
        "{\"count\":6,\"edges\":[0.0],\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}",
        "{\"count\":7,\"edges\":[-1.5,0.0],\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}",
        "{\"count\":6,\"edges\":[-1.5,0.0],\"counts\":[-1,3,3]," ++ moments ++ "\"x\":0}",
        "{\"count\":6,\"edges\":[-1.5,1e999],\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}",
        "{\"count\":6,\"edges\":[-1.5,\"0\"],\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}",
        "{\"count\":6,\"counts\":[0,2,3]," ++ moments ++ "\"x\":0}",
        "7",
        "null,null",
        "",
    }) |bad| try testing.expectError(error.Refused, parseTest(gpa, head ++ bad ++ "]}}"));
    try testing.expectError(error.Refused, parseTest(gpa, "{\"baseline\":null}"));
}
