//! The counters of metrics.zig, and the process's own figures, in Prometheus's text format 0.0.4.
//! https://prometheus.io/docs/instrumenting/exposition_formats/

const std = @import("std");
const Writer = std.Io.Writer;
const metrics = @import("metrics.zig");
const Version = metrics.Version;
const push_state = @import("push_state.zig");
const process_figures = @import("process_figures.zig");

pub const content_type = "text/plain; version=0.0.4; charset=utf-8";

pub fn write(out: *Writer, table: *metrics.Table, agent_version: []const u8) Writer.Error!void {
    try header(out, "edgepack_agent_info", "gauge", "The agent's version.");
    try out.writeAll("edgepack_agent_info{version=\"");
    try escaped(out, agent_version);
    try out.writeAll("\"} 1\n");
    try counter(out, table, "edgepack_requests_total", "Inference requests that were answered.", "requests");
    try counters(out, table, "edgepack_request_errors_total", "Inference requests answered with an error.", "kind", "errors");
    try histogram(out, table, "edgepack_queue_seconds", "Time that requests waited for the worker.", "queue_wait");
    try sampled(out, table, "edgepack_queue_length", "gauge", "Requests that wait for the worker.", "waiting");
    try counters(out, table, "edgepack_queue_rejected_total", "Requests that did not get the worker.", "reason", "turned_away");
    try histogram(out, table, "edgepack_compute_seconds", "Time that the worker computed.", "compute");
    try counter(out, table, "edgepack_worker_deaths_total", "Workers that died or were killed for not answering.", "deaths");
    try counter(out, table, "edgepack_worker_restarts_total", "Workers started again after a death.", "restarts");
    try counters(out, table, "edgepack_captures_total", "Requests that were to be captured.", "outcome", "captures");
    try push_state.state.writeMetrics(out);
    try workerMemory(out, table);
    try process(out);
}

pub fn header(out: *Writer, name: []const u8, kind: []const u8, help: []const u8) Writer.Error!void {
    try out.print("# HELP {s} {s}\n# TYPE {s} {s}\n", .{ name, help, name, kind });
}

/// How many there are now; versions are added, never taken away.
fn count(table: *metrics.Table) usize {
    table.lock.lock();
    defer table.lock.unlock();
    return table.len;
}

fn counter(out: *Writer, table: *metrics.Table, name: []const u8, help: []const u8, comptime field: []const u8) Writer.Error!void {
    try sampled(out, table, name, "counter", help, field);
}

fn sampled(out: *Writer, table: *metrics.Table, name: []const u8, kind: []const u8, help: []const u8, comptime field: []const u8) Writer.Error!void {
    try header(out, name, kind, help);
    for (table.versions[0..count(table)]) |*version| {
        try sample(out, name, version, null);
        try out.print("{d}\n", .{@field(version, field).load(.monotonic)});
    }
}

fn counters(out: *Writer, table: *metrics.Table, name: []const u8, help: []const u8, label: []const u8, comptime field: []const u8) Writer.Error!void {
    try header(out, name, "counter", help);
    for (table.versions[0..count(table)]) |*version| {
        var each = @field(version, field).iterator();
        while (each.next()) |entry| {
            try sample(out, name, version, .{ label, @tagName(entry.key) });
            try out.print("{d}\n", .{entry.value.load(.monotonic)});
        }
    }
}

/// The buckets are read once, and the count is their sum: all of it agrees while others go on counting.
fn histogram(out: *Writer, table: *metrics.Table, comptime name: []const u8, help: []const u8, comptime field: []const u8) Writer.Error!void {
    try header(out, name, "histogram", help);
    for (table.versions[0..count(table)]) |*version| {
        const it: *metrics.Histogram = &@field(version, field);
        var total: u64 = 0;
        inline for (metrics.bounds_ns, 0..) |bound, index| {
            total += it.buckets[index].load(.monotonic);
            try sample(out, name ++ "_bucket", version, .{ "le", comptime seconds(bound) });
            try out.print("{d}\n", .{total});
        }
        total += it.buckets[metrics.bounds_ns.len].load(.monotonic);
        try sample(out, name ++ "_bucket", version, .{ "le", "+Inf" });
        try out.print("{d}\n", .{total});
        try sample(out, name ++ "_sum", version, null);
        try nanoseconds(out, it.sum_ns.load(.monotonic));
        try sample(out, name ++ "_count", version, null);
        try out.print("{d}\n", .{total});
    }
}

fn seconds(comptime ns: u64) []const u8 {
    @setEvalBranchQuota(20_000);
    return std.fmt.comptimePrint("{d}", .{@as(f64, ns) / 1e9});
}

/// As seconds, exactly.
fn nanoseconds(out: *Writer, ns: u64) Writer.Error!void {
    try out.print("{d}.{d:0>9}\n", .{ ns / std.time.ns_per_s, ns % std.time.ns_per_s });
}

fn workerMemory(out: *Writer, table: *metrics.Table) Writer.Error!void {
    const name = "edgepack_worker_resident_memory_bytes";
    try header(out, name, "gauge", "Memory of the worker that is in RAM, shared tensors included.");
    for (table.versions[0..count(table)]) |*version| {
        const pid = version.pid.load(.monotonic);
        const bytes = if (pid > 0) process_figures.residentBytes(pid) orelse continue else continue;
        try sample(out, name, version, null);
        try out.print("{d}\n", .{bytes});
    }
}

/// Under the names that Prometheus gives them; a figure that cannot be read is left out.
/// https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
fn process(out: *Writer) Writer.Error!void {
    if (process_figures.residentBytes(null)) |bytes| {
        try header(out, "process_resident_memory_bytes", "gauge", "Memory of the agent that is in RAM.");
        try out.print("process_resident_memory_bytes {d}\n", .{bytes});
    }
    if (process_figures.openFiles()) |open| {
        try header(out, "process_open_fds", "gauge", "File descriptors that the agent holds.");
        try out.print("process_open_fds {d}\n", .{open});
    }
    try header(out, "process_cpu_seconds_total", "counter", "Processor time of the agent, without its workers.");
    try out.writeAll("process_cpu_seconds_total ");
    try nanoseconds(out, process_figures.cpuNanoseconds());
    if (process_figures.startSeconds()) |start| {
        try header(out, "process_start_time_seconds", "gauge", "When the agent started, by the clock as it is now.");
        try out.print("process_start_time_seconds {d:.2}\n", .{start});
    }
}

/// Up to the value; `more` is one label beside model and version.
fn sample(out: *Writer, name: []const u8, version: *const Version, more: ?[2][]const u8) Writer.Error!void {
    try out.print("{s}{{model=\"", .{name});
    try escaped(out, version.name());
    try out.writeAll("\",version=\"");
    try escaped(out, version.version());
    if (more) |label| {
        try out.print("\",{s}=\"", .{label[0]});
        try escaped(out, label[1]);
    }
    try out.writeAll("\"} ");
}

/// A label's value: backslash, quote and line feed are the three that need it.
pub fn escaped(out: *Writer, text: []const u8) Writer.Error!void {
    for (text) |byte| switch (byte) {
        '\\' => try out.writeAll("\\\\"),
        '"' => try out.writeAll("\\\""),
        '\n' => try out.writeAll("\\n"),
        else => try out.writeByte(byte),
    };
}

const testing = std.testing;

test "label values are escaped and seconds are exact" {
    var buffer: [64]u8 = undefined;
    var out: Writer = .fixed(&buffer);
    try escaped(&out, "a\"b\\c\nd");
    try testing.expectEqualStrings("a\\\"b\\\\c\\nd", out.buffered());
    out = .fixed(&buffer);
    try nanoseconds(&out, 18_000_000_000_000_000_001);
    try testing.expectEqualStrings("18000000000.000000001\n", out.buffered());
    try testing.expectEqualStrings("0.00005", comptime seconds(50_000));
}
