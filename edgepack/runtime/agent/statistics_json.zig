//! GET /v2/models/NAME/statistics: all that drift.zig keeps, the baseline beside it.
//!
//!     {"name":N,"version":V,"requests":N,"samples":N|null,"inputs":[TENSOR,...],"outputs":[...]}
//!     TENSOR: {"name":N,"datatype":D,"psi":X|null,"edges":[X,...]|null,"total":SUMMARY,
//!              "window":{"requests":N,"seconds":N,"summary":SUMMARY},"baseline":SUMMARY|null}
//!     SUMMARY: {"count":N,"nan":N,"infinite":N,"mean":X|null,"variance":X|null,"min":X|null,
//!               "max":X|null,"counts":[N,...]|null}
//!
//! "samples" are the baseline's. What cannot be said, or is not finite, is null.

const std = @import("std");
const Writer = std.Io.Writer;
const Baseline = @import("baseline.zig").Baseline;
const clock = @import("clock.zig");
const drifts = @import("drift.zig");
const ServedModel = @import("served_model.zig").ServedModel;
const Summary = @import("statistics.zig").Summary;
const tensor_json = @import("tensor_json.zig");

pub fn write(out: *Writer, served: *ServedModel) Writer.Error!void {
    const info = &served.info;
    const drift = &served.drift;
    try out.print("{{\"name\":\"{s}\",\"version\":\"{s}\",\"requests\":{d},\"samples\":", .{ info.name, info.version, drift.requestCount() });
    if (info.baseline) |it| try out.print("{d}", .{it.samples}) else try out.writeAll("null");
    try out.writeAll(",\"inputs\":[");
    for (0..drift.tensors.len) |index| {
        if (index == drift.outputs_from) try out.writeAll("],\"outputs\":[") else if (index > 0) try out.writeByte(',');
        try writeTensor(out, &drift.snapshot(index));
    }
    try out.writeAll("]}");
}

fn writeTensor(out: *Writer, tracked: *const drifts.Tracked) Writer.Error!void {
    try out.writeAll("{\"name\":");
    try std.json.Stringify.encodeJsonString(tracked.tensor.name, .{}, out);
    try out.print(",\"datatype\":\"{s}\",\"psi\":", .{tensor_json.datatype(tracked.tensor.dtype)});
    try number(out, tracked.stabilityIndex());
    const bins = if (tracked.normal) |it| it.counts.len else 0;
    try out.writeAll(",\"edges\":");
    if (tracked.normal) |it| try list(out, f64, it.edges) else try out.writeAll("null");
    try out.writeAll(",\"total\":");
    try writeSummary(out, &tracked.total, bins);
    const window = tracked.window();
    const seconds = if (window.requests > 0) (clock.milliseconds() -| window.began) / std.time.ms_per_s else 0;
    try out.print(",\"window\":{{\"requests\":{d},\"seconds\":{d},\"summary\":", .{ window.requests, seconds });
    try writeSummary(out, &window.summary, bins);
    try out.writeAll("},\"baseline\":");
    if (tracked.normal) |it| try writeBaseline(out, it) else try out.writeAll("null");
    try out.writeByte('}');
}

fn writeSummary(out: *Writer, it: *const Summary, bins: usize) Writer.Error!void {
    const some = it.finite > 0;
    try counts(out, it.count(), it.nan, it.infinite);
    try moments(out, .{ if (some) it.mean else null, it.variance(), if (some) it.min else null, if (some) it.max else null });
    if (bins > 0) try list(out, u64, it.bins[0..bins]) else try out.writeAll("null");
    try out.writeByte('}');
}

fn writeBaseline(out: *Writer, it: *const Baseline) Writer.Error!void {
    try counts(out, it.count, it.nan, it.infinite);
    try moments(out, .{ it.mean, it.variance, it.min, it.max });
    try list(out, u64, it.counts);
    try out.writeByte('}');
}

fn counts(out: *Writer, all: u64, nan: u64, infinite: u64) Writer.Error!void {
    try out.print("{{\"count\":{d},\"nan\":{d},\"infinite\":{d}", .{ all, nan, infinite });
}

/// In the order of the names; the histogram comes next.
fn moments(out: *Writer, values: [4]?f64) Writer.Error!void {
    for ([_][]const u8{ "mean", "variance", "min", "max" }, values) |name, value| {
        try out.print(",\"{s}\":", .{name});
        try number(out, value);
    }
    try out.writeAll(",\"counts\":");
}

fn list(out: *Writer, comptime T: type, values: []const T) Writer.Error!void {
    for (values, 0..) |value, index| {
        try out.writeByte(if (index == 0) '[' else ',');
        if (T == f64) try number(out, value) else try out.print("{d}", .{value});
    }
    try out.writeAll(if (values.len == 0) "[]" else "]");
}

fn number(out: *Writer, value: ?f64) Writer.Error!void {
    try tensor_json.writeFloat(f64, out, value orelse std.math.nan(f64));
}
