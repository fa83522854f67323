//! What drift.zig keeps, in Prometheus's text format: one sample for each tensor of a model that is
//! served. A sample that cannot be told yet is left out.

const std = @import("std");
const Writer = std.Io.Writer;
const Tracked = @import("drift.zig").Tracked;
const metrics_text = @import("metrics_text.zig");
const Models = @import("models.zig").Models;
const ServedModel = @import("served_model.zig").ServedModel;
const tensor_json = @import("tensor_json.zig");

const Value = union(enum) { absent, count: u64, number: f64 };

pub fn write(out: *Writer, models: *Models) Writer.Error!void {
    try family(out, models, "edgepack_tensor_psi", "gauge", "Population stability index of the last window against the baseline.", index);
    try family(out, models, "edgepack_tensor_mean", "gauge", "Mean of the finite elements of the last window.", mean);
    try family(out, models, "edgepack_tensor_nan_total", "counter", "Elements that were no number, of those that were looked at.", nan);
}

fn index(tracked: *const Tracked) Value {
    return if (tracked.stabilityIndex()) |it| .{ .number = it } else .absent;
}

fn mean(tracked: *const Tracked) Value {
    const window = tracked.window();
    return if (window.summary.finite > 0) .{ .number = window.summary.mean } else .absent;
}

fn nan(tracked: *const Tracked) Value {
    return .{ .count = tracked.total.nan };
}

fn family(out: *Writer, models: *Models, name: []const u8, kind: []const u8, help: []const u8, value: *const fn (*const Tracked) Value) Writer.Error!void {
    try metrics_text.header(out, name, kind, help);
    var place: usize = 0;
    var served: ?*ServedModel = null;
    while (models.acquireAt(place, &served)) : (place += 1) {
        const model = served orelse continue;
        defer model.release();
        for (0..model.drift.tensors.len) |at| {
            const tracked = model.drift.snapshot(at);
            const found = value(&tracked);
            if (found == .absent) continue;
            try out.print("{s}{{model=\"{s}\",version=\"{s}\",kind=\"{t}\",tensor=\"", .{ name, model.info.name, model.info.version, model.drift.kindOf(at) });
            try metrics_text.escaped(out, tracked.tensor.name);
            try out.writeAll("\"} ");
            switch (found) {
                .absent => unreachable,
                .count => |it| try out.print("{d}", .{it}),
                .number => |it| if (std.math.isFinite(it)) try tensor_json.writeFloat(f64, out, it) else try out.writeAll("NaN"),
            }
            try out.writeByte('\n');
        }
    }
}
