//! The paths by which the server is watched, beside those of the inference protocol.
//!
//!     GET /metrics      Prometheus's text format
//!     GET /v2/status    what `edgepack-agent status` prints
//!     GET /v2/events    what `edgepack-agent events` prints

const std = @import("std");
const drift_text = @import("drift_text.zig");
const endpoints = @import("endpoints.zig");
const Exchange = endpoints.Exchange;
const events = @import("events.zig");
const metrics = @import("metrics.zig");
const metrics_text = @import("metrics_text.zig");
const Refusal = @import("refusal.zig").Refusal;
const Status = @import("status.zig").Status;

pub const Path = union(enum) {
    metrics,
    status,
    events,

    pub fn parse(path: []const u8) ?Path {
        if (std.mem.eql(u8, path, "/metrics")) return .metrics;
        if (std.mem.eql(u8, path, "/v2/events")) return .events;
        return if (std.mem.eql(u8, path, "/v2/status")) .status else null;
    }
};

/// Answers; true where the connection may carry another request.
pub fn answer(exchange: *Exchange, path: Path) Exchange.Error!bool {
    if (exchange.head.method != .GET and exchange.head.method != .HEAD) {
        exchange.problem.because(.method_not_allowed, "this path takes GET", .{}) catch {};
        return exchange.fail(endpoints.max_idle_body);
    }
    if (!try exchange.skipBody(endpoints.max_idle_body)) return exchange.failNow();
    switch (path) {
        .metrics => {
            var reply = exchange.begin(.ok);
            reply.content_type = metrics_text.content_type;
            try metrics_text.write(&reply.writer, &metrics.table, exchange.api.agent_version);
            try drift_text.write(&reply.writer, exchange.api.models);
            return endpoints.finish(&reply);
        },
        .status => return answerStatus(exchange),
        .events => return answerEvents(exchange),
    }
}

fn answerStatus(exchange: *Exchange) Exchange.Error!bool {
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const models = exchange.api.models;
    var refusal: Refusal = .{};
    var store = models.store;
    store.refusal = &refusal;
    const status = Status.gather(arena.allocator(), &store, exchange.api.agent_version, true) catch |err| {
        const reason = if (err == error.OutOfMemory) "out of memory" else refusal.reason();
        exchange.problem.because(.internal_server_error, "{s}", .{reason}) catch {};
        return exchange.failNow();
    };
    var reply = exchange.begin(.ok);
    try status.write(&reply.writer, models);
    return endpoints.finish(&reply);
}

fn answerEvents(exchange: *Exchange) Exchange.Error!bool {
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    const store = &exchange.api.models.store;
    const lines = events.read(arena.allocator(), store.io, store.root) catch {
        exchange.problem.because(.internal_server_error, "out of memory", .{}) catch {};
        return exchange.failNow();
    };
    var reply = exchange.begin(.ok);
    try events.render(&reply.writer, lines);
    return endpoints.finish(&reply);
}
