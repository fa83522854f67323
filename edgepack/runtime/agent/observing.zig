//! The paths by which the server is watched, beside those of the inference protocol.
//!
//!     GET /metrics      Prometheus's text format

const std = @import("std");
const endpoints = @import("endpoints.zig");
const Exchange = endpoints.Exchange;
const metrics = @import("metrics.zig");
const metrics_text = @import("metrics_text.zig");

pub const Path = union(enum) {
    metrics,

    pub fn parse(path: []const u8) ?Path {
        return if (std.mem.eql(u8, path, "/metrics")) .metrics else null;
    }
};

/// Answers; true where the connection may carry another request.
pub fn answer(exchange: *Exchange, path: Path) Exchange.Error!bool {
    if (exchange.head.method != .GET and exchange.head.method != .HEAD) {
        exchange.problem.because(.method_not_allowed, "this path takes GET", .{}) catch {};
        return exchange.fail(endpoints.max_idle_body);
    }
    if (!try exchange.skipBody(endpoints.max_idle_body)) return exchange.failNow();
    var reply = exchange.begin(.ok);
    switch (path) {
        .metrics => {
            reply.content_type = metrics_text.content_type;
            try metrics_text.write(&reply.writer, &metrics.table, exchange.api.agent_version);
        },
    }
    return endpoints.finish(&reply);
}
