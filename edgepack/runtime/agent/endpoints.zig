//! What each path of the API answers: from a request's head and body to an Answer.

const std = @import("std");
const Io = std.Io;
const capture_endpoints = @import("capture_endpoints.zig");
const Captures = @import("captures.zig").Captures;
const clock = @import("clock.zig");
const Connection = @import("connection.zig").Connection;
const control_request = @import("control_request.zig");
const ControlRequest = control_request.ControlRequest;
const fallback = @import("fallback.zig");
const http = @import("http.zig");
const Answer = @import("http_answer.zig").Answer;
const infer_request = @import("infer_request.zig");
const Models = @import("models.zig").Models;
const observing = @import("observing.zig");
const oip = @import("oip.zig");
const Problem = @import("problem.zig").Problem;
const RepeatedRequest = @import("repeated_request.zig").RepeatedRequest;
const Route = @import("route.zig").Route;
const shared_memory = @import("shared_memory.zig");
const ServedModel = @import("served_model.zig").ServedModel;
const statistics_json = @import("statistics_json.zig");
const Staging = @import("staging.zig").Staging;

/// For a client to take its answer.
const answer_ms = 60_000;
/// Of a body that nobody asked for.
pub const max_idle_body = 64 << 10;

pub const Api = struct {
    models: *Models,
    captures: *Captures,
    agent_version: []const u8,
    regions: shared_memory.Regions = .{},
    staging: Staging = .{},
};

/// One request and the buffers for its answer.
pub const Exchange = struct {
    api: *Api,
    head: http.Head,
    connection: *Connection,
    /// Ours to take away: false when the server stops.
    keep_alive: bool,
    answer_buffer: []u8,
    body_buffer: []u8,
    asked: *oip.Infer,
    last: *RepeatedRequest,
    problem: Problem = .{},
    control: ControlRequest = .{},

    pub const Error = Io.Writer.Error;

    /// Answers; true where the connection may carry another request.
    pub fn answer(self: *Exchange, path: []const u8) Error!bool {
        if (observing.Path.parse(path)) |it| return observing.answer(self, it);
        const route = Route.parse(path) orelse {
            self.problem.because(.not_found, "no such path: {s}", .{path}) catch {};
            return self.fail(max_idle_body);
        };
        const reading = self.head.method == .GET or self.head.method == .HEAD;
        if (reading == route.changes() or self.head.method == .other) {
            self.problem.because(.method_not_allowed, "this path takes {s}", .{if (route.changes()) "POST" else "GET"}) catch {};
            return self.fail(max_idle_body);
        }
        return switch (route) {
            .infer => |model| self.infer(model),
            else => self.small(route),
        };
    }

    /// Answers a request whose head is no good; nothing can follow on this connection.
    pub fn refuse(self: *Exchange, status: http.Status, reason: []const u8) Error!bool {
        self.head = .{ .method = .other, .path = "", .http_1_0 = false, .keep_alive = false };
        self.problem.because(status, "{s}", .{reason}) catch {};
        return self.failNow();
    }

    /// Routes without tensors.
    fn small(self: *Exchange, route: Route) Error!bool {
        const read = switch (route) {
            .index => try self.readControl(.index),
            .load => try self.readControl(.load),
            .unload => try self.readControl(.unload),
            .register => try self.readControl(.register),
            else => try self.skipBody(max_idle_body),
        };
        if (!read) return self.failNow();
        var reply = self.begin(.ok);
        self.writeSmall(&reply.writer, route) catch |err| switch (err) {
            error.Problem => return self.failNow(),
            error.WriteFailed => return error.WriteFailed,
        };
        return finish(&reply);
    }

    fn writeSmall(self: *Exchange, writer: *Io.Writer, route: Route) (Error || error{Problem})!void {
        const models = self.api.models;
        switch (route) {
            .server => try oip.writeServerMetadata(writer, self.api.agent_version, self.regions() != null),
            .live => try writer.writeAll("{\"live\":true}"),
            .ready => {
                if (!models.allReady()) return self.problem.because(.service_unavailable, "not every model is ready; see /v2/repository/index", .{});
                try writer.writeAll("{\"ready\":true}");
            },
            .model => |model| {
                const served = try models.acquire(model.name, model.version, &self.problem);
                defer served.release();
                try oip.writeModelMetadata(writer, &served.info);
            },
            .model_ready => |model| {
                const served = try models.acquire(model.name, model.version, &self.problem);
                defer served.release();
                try writer.print("{{\"name\":\"{s}\",\"version\":\"{s}\",\"ready\":true}}", .{ served.info.name, served.info.version });
            },
            .statistics => |model| {
                const served = try models.acquire(model.name, model.version, &self.problem);
                defer served.release();
                try statistics_json.write(writer, served);
            },
            .index => try self.writeIndex(writer),
            .load => |name| {
                const served = try models.load(name, &self.problem);
                defer served.release();
                try writer.print("{{\"name\":\"{s}\",\"version\":\"{s}\"}}", .{ served.info.name, served.info.version });
            },
            .unload => |name| {
                try models.unload(name, &self.problem);
                try writer.print("{{\"name\":\"{s}\"}}", .{name});
            },
            .region_status => |name| try shared_memory.writeStatus(writer, try shared_memory.allowed(self.regions(), &self.problem), name),
            .register => |name| {
                const access = try shared_memory.allowed(self.regions(), &self.problem);
                const wish: shared_memory.Regions.Wish = .{ .name = name, .key = self.control.key, .offset = self.control.offset, .bytes = self.control.byte_size };
                try access.regions.register(access.user, wish, &self.problem);
                try writer.writeAll("{}");
            },
            .unregister => |name| {
                const access = try shared_memory.allowed(self.regions(), &self.problem);
                access.regions.unregister(access.user, name);
                try writer.writeAll("{}");
            },
            .captures => |it| try capture_endpoints.write(writer, self.api, it, &self.problem),
            .infer => unreachable, // answer() sends it to infer()
        }
    }

    fn writeIndex(self: *Exchange, writer: *Io.Writer) Error!void {
        try writer.writeByte('[');
        var index: usize = 0;
        var listed: usize = 0;
        var version: [32]u8 = undefined;
        while (self.api.models.entryAt(index, &version)) |it| : (index += 1) {
            if (self.control.ready_only and it.entry.current == null) continue;
            if (listed > 0) try writer.writeByte(',');
            listed += 1;
            const state = if (it.entry.current != null) "READY" else "UNAVAILABLE";
            try writer.print("{{\"name\":\"{s}\",\"version\":\"{s}\",\"state\":\"{s}\",\"reason\":", .{ it.entry.name(), it.version, state });
            try std.json.Stringify.encodeJsonString(it.entry.trouble.reason(), .{}, writer);
            try writer.writeByte('}');
        }
        try writer.writeByte(']');
    }

    fn infer(self: *Exchange, model: Route.Model) Error!bool {
        const served = self.api.models.acquire(model.name, model.version, &self.problem) catch return self.fail(max_idle_body);
        defer served.release();
        defer fallback.fallBack(self.api.models, served); // with the answer out
        defer served.counters.countRequest(&self.problem);
        const limit = infer_request.maxBytes(&served.info);
        const staging = self.api.staging.take(&served.info, &self.problem) catch return self.fail(limit);
        defer self.api.staging.give(staging);
        const asked = self.asked;
        asked.reset();
        defer asked.release();
        if (!try self.readInfer(asked, served, staging, limit)) return self.failNow();
        served.run(staging, &self.problem) catch return self.failNow();
        asked.captured = self.api.captures.offer(served, &asked.capture, staging);
        asked.writeShared(&served.info, staging, &self.problem) catch return self.failNow();
        var reply = self.begin(.ok);
        reply.parts = asked.parts(&served.info, staging);
        try asked.writeAnswer(&reply.writer, &served.info, staging);
        defer served.drift.add(staging); // the client need not wait for it
        return finish(&reply);
    }

    /// False with `problem` set. After it the body has been read to its end, or keep_alive is off.
    fn readInfer(self: *Exchange, asked: *oip.Infer, served: *const ServedModel, staging: []u8, limit: u64) Error!bool {
        var body = try self.openBody(limit) orelse return false;
        const source: infer_request.Source = .{
            .body = &body.interface,
            .json_bytes = self.head.json_length,
            .total_bytes = if (self.head.chunked) null else self.head.content_length orelse 0,
            .regions = self.regions(),
            .last = self.last.of(served.serial),
        };
        const read = infer_request.read(asked, source, &served.info, staging, std.heap.page_allocator, &self.problem);
        if (read) |_| return true else |err| {
            if (err == error.ReadFailed) self.explain(&body, limit);
            if (!body.skipRest()) self.keep_alive = false;
            return false;
        }
    }

    fn explain(self: *Exchange, body: *const http.Body, limit: u64) void {
        self.keep_alive = false;
        (switch (body.failure) {
            .too_large => self.problem.because(.content_too_large, "the body is larger than {d} bytes, which is all this can need", .{limit}),
            .malformed => self.problem.because(.bad_request, "the body's chunks are malformed", .{}),
            .cut => self.problem.because(.bad_request, "the body ends too early", .{}),
            .none => self.problem.because(.request_timeout, "the body did not come in time", .{}),
        }) catch {};
    }

    /// Null with `problem` set where it is too large to begin with. Asks for it where that is expected.
    fn openBody(self: *Exchange, limit: u64) Error!?http.Body {
        const body: http.Body = .init(&self.connection.reader, self.head, limit, self.body_buffer);
        if (body.remaining > limit) {
            self.problem.because(.content_too_large, "the body has {d} bytes, and no more than {d} can be needed", .{ body.remaining, limit }) catch {};
            self.keep_alive = false;
            return null;
        }
        if (self.head.expect_continue) {
            try self.connection.writer.writeAll("HTTP/1.1 100 Continue\r\n\r\n");
            try self.connection.writer.flush();
        }
        return body;
    }

    /// False with `problem` set, like readInfer().
    fn readControl(self: *Exchange, kind: control_request.Kind) Error!bool {
        var body = try self.openBody(max_idle_body) orelse return false;
        if (self.control.read(&body.interface, kind, &self.problem)) |_| return true else |err| {
            if (err == error.ReadFailed) self.explain(&body, max_idle_body);
            if (!body.skipRest()) self.keep_alive = false;
            return false;
        }
    }

    /// Reads past a body that does not matter. False with `problem` set.
    pub fn skipBody(self: *Exchange, limit: u64) Error!bool {
        var body = try self.openBody(limit) orelse return false;
        if (body.skipRest()) return true;
        self.explain(&body, limit);
        return false;
    }

    /// Answers `problem`, with the body not yet read. One that waits for our 100 is not sent at all.
    pub fn fail(self: *Exchange, limit: u64) Error!bool {
        if (self.head.expect_continue) {
            self.keep_alive = false;
        } else {
            var body: http.Body = .init(&self.connection.reader, self.head, limit, self.body_buffer);
            if (body.remaining > limit or !body.skipRest()) self.keep_alive = false;
        }
        return self.failNow();
    }

    /// Answers `problem`, with the body read or given up.
    pub fn failNow(self: *Exchange) Error!bool {
        var reply = self.begin(self.problem.status);
        reply.retry_after_s = self.problem.retry_after_s;
        try oip.writeError(&reply.writer, self.problem.reason());
        return finish(&reply);
    }

    pub fn begin(self: *Exchange, status: http.Status) Answer {
        self.connection.deadline = clock.milliseconds() + answer_ms; // the run may have taken long
        return .init(&self.connection.writer, self.head, status, self.keep_alive and self.head.keep_alive, self.answer_buffer);
    }

    fn regions(self: *Exchange) ?shared_memory.Access {
        return .{ .regions = &self.api.regions, .user = self.connection.user orelse return null };
    }
};

pub fn finish(reply: *Answer) Io.Writer.Error!bool {
    try reply.finish();
    return reply.keep_alive;
}
