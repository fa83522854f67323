//! `edgepack-agent serve`: the Open Inference Protocol, version 2, on a Unix socket and, where asked, on
//! loopback TCP.
//!
//! One thread accepts; each connection has a thread of its own, `max_connections` at most. A signal to
//! stop closes the sockets, lets the requests in progress end, and stops the workers.
//! What is answered is in endpoints.zig, how models are switched in models.zig.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const arguments = @import("arguments.zig");
const capture_push = @import("capture_push.zig");
const cgroup = @import("cgroup.zig");
const Captures = @import("captures.zig").Captures;
const clock = @import("clock.zig");
const confine = @import("confine.zig");
const Connection = @import("connection.zig").Connection;
const detach = @import("detach.zig");
const endpoints = @import("endpoints.zig");
const events = @import("events.zig");
const http = @import("http.zig");
const log = @import("log.zig");
const Models = @import("models.zig").Models;
const oip = @import("oip.zig");
const privileges = @import("privileges.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const RepeatedRequest = @import("repeated_request.zig").RepeatedRequest;
const ServiceManager = @import("service_manager.zig").ServiceManager;
const Settings = @import("settings.zig").Settings;
const signals = @import("signals.zig");
const Store = @import("store.zig").Store;
const tcp_socket = @import("tcp_socket.zig");
const unix_socket = @import("unix_socket.zig");

const max_connections = 32;
/// Connections over TCP come no further than here: whoever can reach the port, which is everybody, must
/// not shut out those who may use the Unix socket.
const max_connections_for_tcp = 16;
const thread_stack_bytes = 512 << 10;
const idle_ms = 60_000;
/// From a request's first byte to its last.
const request_ms = 60_000;
const linger_ms = 2_000;
/// Beside the longest that a request may wait for its turn and then run.
const shutdown_ms = 10_000;
const max_path_bytes = 512;

/// The process's exit code: 0 after SIGTERM or SIGINT, and for the command that detached it.
pub fn run(io: Io, refusal: *Refusal, root: []const u8, options: arguments.Serve, environ: std.process.Environ) refusals.Error!u8 {
    var arena_state: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    const arena = arena_state.allocator(); // for the life of the process
    const socket_path = options.socket orelse try std.fmt.allocPrint(arena, "{s}/run/agent.sock", .{root});
    var store: Store = try .open(io, refusal, root);
    const settings = try arena.create(Settings);
    settings.* = options.settings;
    try settings.read(io, refusal, store.root);
    try privileges.drop(refusal, &store, if (settings.user.value()) |name| try privileges.find(io, refusal, name) else null);
    const place: Place = .{ .socket_path = socket_path, .tcp = options.tcp };
    if (!options.detach) {
        try serve(arena, refusal, &store, settings, place, .fromEnvironment(environ), null);
        return 0;
    }
    const log_path = try std.fmt.allocPrintSentinel(arena, "{s}/run/agent.log", .{root}, 0);
    switch (try detach.split(refusal, log_path)) {
        .command => {
            if (unix_socket.isServed(refusal, socket_path)) return 0;
            return refusal.because(.state, "the server ended; see {s}", .{log_path});
        },
        .daemon => |announcement| {
            serve(arena, refusal, &store, settings, place, .{}, announcement) catch |err| {
                log.line("{s}", .{refusal.reason()});
                linux.exit_group(if (err == error.Refused) refusal.check.exitCode() else 1);
            };
            return 0;
        },
    }
}

const Place = struct { socket_path: []const u8, tcp: ?tcp_socket.Address };

fn serve(arena: std.mem.Allocator, refusal: *Refusal, store: *Store, settings: *const Settings, place: Place, manager: ServiceManager, announcement: ?detach.Announcement) refusals.Error!void {
    errdefer if (announcement) |it| it.failed(refusal);
    try claim(store);
    const grouped = cgroup.begin();
    const server = try arena.create(Server);
    server.* = .{
        .models = .{ .store = store.*, .settings = settings },
        .captures = .{ .store = store.* },
        .api = .{ .models = &server.models, .captures = &server.captures, .agent_version = @import("main.zig").version },
        .signals = try signals.take(refusal),
        .stop = try signals.event(refusal),
        .finished = try signals.event(refusal),
        .manager = manager,
    };
    server.captures.start();
    events.record(store.io, store.root, .{ .kind = .start, .version = server.api.agent_version });
    // Workers first: whoever can connect finds every model ready that can be.
    try server.models.loadAll(refusal);
    errdefer server.models.stopAll();
    if (place.tcp) |address| server.tcp = try listenOnLoopback(refusal, address);
    server.unix = try unix_socket.listen(refusal, place.socket_path);
    capture_push.start(arena, store.io, store.path, server.stop);
    if (announcement) |it| it.ready();
    confine.tellWhatIsMissing();
    if (grouped) log.line("each worker has a control group of its own", .{});
    log.line("serving {d} models at {s}", .{ server.models.len, place.socket_path });
    server.manager.ready(&server.models);
    server.acceptUntilSignal();
    server.manager.stopping();
    unix_socket.remove(place.socket_path);
    server.drain();
    server.captures.stop();
    log.line("stopped", .{});
}

fn listenOnLoopback(refusal: *Refusal, wanted: tcp_socket.Address) error{Refused}!linux.fd_t {
    var address = wanted;
    const fd = try tcp_socket.listen(refusal, &address);
    log.line("listening at {f}: every process of this machine may connect", .{address});
    return fd;
}

/// One server for each store. The lock goes with the process.
fn claim(store: *Store) error{Refused}!void {
    _ = store.root.createFile(store.io, "run/serve.lock", .{
        .lock = .exclusive,
        .lock_nonblocking = true,
        .truncate = false,
        .permissions = .fromMode(0o640),
    }) catch |err| return switch (err) {
        error.WouldBlock => store.refusal.because(.state, "another server serves this store", .{}),
        else => store.refusal.because(.state, "cannot lock run/serve.lock: {t}", .{err}),
    };
}

const Server = struct {
    models: Models,
    captures: Captures,
    api: endpoints.Api,
    signals: linux.fd_t,
    /// Written once: every connection sees it from then on.
    stop: linux.fd_t,
    unix: linux.fd_t = undefined,
    /// -1, which poll() passes by, where there is none.
    tcp: linux.fd_t = -1,
    /// Written by each connection that ends.
    finished: linux.fd_t,
    connections: std.atomic.Value(u32) = .init(0),
    manager: ServiceManager,
    /// Connections that got a 503; closed a little later, so that their request does not fail on them
    /// before they read the answer.
    turned_away: [16]linux.fd_t = undefined,
    turned_away_len: usize = 0,

    fn acceptUntilSignal(self: *Server) void {
        var fds = [_]linux.pollfd{
            .{ .fd = self.signals, .events = linux.POLL.IN, .revents = 0 },
            .{ .fd = self.unix, .events = linux.POLL.IN, .revents = 0 },
            .{ .fd = self.tcp, .events = linux.POLL.IN, .revents = 0 },
        };
        while (true) {
            self.manager.keepAlive(&self.models);
            const patience = self.manager.patience(if (self.turned_away_len > 0) linger_ms else idle_ms);
            if (!clock.poll(&fds, clock.milliseconds() + patience)) {
                self.closeTurnedAway();
                continue;
            }
            if (fds[0].revents != 0) return;
            // Out of descriptors or memory: poll would say "ready" at once and for ever.
            if (!self.acceptOne()) _ = clock.poll(fds[0..1], clock.milliseconds() + 50);
        }
    }

    /// One connection of each socket; false where there was none.
    fn acceptOne(self: *Server) bool {
        var any = false;
        for ([_]linux.fd_t{ self.unix, self.tcp }) |listener| {
            if (listener < 0) continue;
            const fd = unix_socket.accept(listener) orelse continue;
            any = true;
            self.startConnection(fd, listener == self.tcp);
        }
        return any;
    }

    fn startConnection(self: *Server, fd: linux.fd_t, over_tcp: bool) void {
        if (over_tcp) tcp_socket.sendAtOnce(fd);
        const limit: u32 = if (over_tcp) max_connections_for_tcp else max_connections;
        if (self.connections.fetchAdd(1, .monotonic) < limit) {
            const thread = std.Thread.spawn(.{ .stack_size = thread_stack_bytes }, serveConnection, .{ self, fd, over_tcp }) catch null;
            if (thread) |it| return it.detach();
        }
        _ = self.connections.fetchSub(1, .monotonic);
        const answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 32\r\nConnection: close\r\n\r\n{\"error\":\"too many connections\"}";
        _ = linux.sendto(fd, answer, answer.len, linux.MSG.NOSIGNAL, null, 0);
        _ = linux.shutdown(fd, linux.SHUT.WR);
        if (self.turned_away_len == self.turned_away.len) self.closeTurnedAway();
        self.turned_away[self.turned_away_len] = fd;
        self.turned_away_len += 1;
    }

    fn closeTurnedAway(self: *Server) void {
        for (self.turned_away[0..self.turned_away_len]) |fd| _ = linux.close(fd);
        self.turned_away_len = 0;
    }

    /// Whoever had connected is still answered; then the workers go.
    fn drain(self: *Server) void {
        for (0..2 * max_connections) |_| if (!self.acceptOne()) break;
        _ = linux.close(self.unix);
        if (self.tcp >= 0) _ = linux.close(self.tcp);
        signals.announce(self.stop);
        const settings = self.models.settings;
        const deadline = clock.milliseconds() + settings.queue_ms.value + settings.run_ms.value + shutdown_ms;
        var fds = [_]linux.pollfd{.{ .fd = self.finished, .events = linux.POLL.IN, .revents = 0 }};
        while (self.connections.load(.acquire) > 0) {
            if (!clock.poll(&fds, deadline)) return log.line("requests are still in progress; they are cut off", .{});
            var count: u64 = 0;
            _ = linux.read(self.finished, std.mem.asBytes(&count), @sizeOf(u64));
        }
        self.models.stopAll();
    }
};

fn serveConnection(server: *Server, fd: linux.fd_t, over_tcp: bool) void {
    defer {
        _ = linux.close(fd);
        _ = server.connections.fetchSub(1, .release);
        signals.announce(server.finished);
    }
    var buffers: Buffers = undefined;
    buffers.last = .{};
    var read_buffer: [16 << 10]u8 = undefined;
    var write_buffer: [4 << 10]u8 = undefined;
    var connection: Connection = .init(fd, server.stop, &read_buffer, &write_buffer);
    connection.over_tcp = over_tcp;
    if (!over_tcp) connection.user = unix_socket.peerUser(fd);
    while (connection.waitForBytes(idle_ms) == .bytes) {
        connection.deadline = clock.milliseconds() + request_ms;
        const more = serveRequest(server, &connection, &buffers) catch return;
        if (!more) return connection.linger(linger_ms);
    }
}

/// Of a connection, not of each request: memory that is undefined is filled first.
const Buffers = struct {
    answer: [16 << 10]u8,
    body: [4 << 10]u8,
    asked: oip.Infer,
    last: RepeatedRequest,
};

/// False where no other request can follow on this connection.
fn serveRequest(server: *Server, connection: *Connection, buffers: *Buffers) Io.Writer.Error!bool {
    var exchange: endpoints.Exchange = .{
        .api = &server.api,
        .head = undefined,
        .connection = connection,
        .keep_alive = !connection.stopping,
        .answer_buffer = &buffers.answer,
        .body_buffer = &buffers.body,
        .asked = &buffers.asked,
        .last = &buffers.last,
    };
    const bytes = http.receiveHead(&connection.reader) catch |err| switch (err) {
        error.TooLarge => return exchange.refuse(.header_fields_too_large, "the request's head is too large"),
        error.ReadFailed => if (connection.timed_out) return exchange.refuse(.request_timeout, "the request did not come in time") else return error.WriteFailed,
        error.Cut => return error.WriteFailed, // nobody is there to be told
    };
    exchange.head = http.Head.parse(bytes) catch |err| return switch (err) {
        error.Malformed => exchange.refuse(.bad_request, "the request's head is malformed"),
        error.UnsupportedVersion => exchange.refuse(.version_not_supported, "HTTP/1.0 and HTTP/1.1 are supported"),
        error.UnsupportedTransfer => exchange.refuse(.not_implemented, "the only transfer encoding is chunked"),
        error.UnsupportedEncoding => exchange.refuse(.unsupported_media_type, "compressed bodies are not supported"),
        error.UnknownExpectation => exchange.refuse(.expectation_failed, "the only expectation is 100-continue"),
    };
    if (connection.over_tcp) if (exchange.head.webTrouble()) |reason| return exchange.refuse(.forbidden, reason);
    var path: [max_path_bytes]u8 = undefined; // the head does not outlast the body
    const len = exchange.head.path.len;
    if (len > path.len) return exchange.refuse(.not_found, "no such path");
    @memcpy(path[0..len], exchange.head.path);
    return exchange.answer(path[0..len]);
}

test {
    _ = @import("cgroup.zig");
    _ = @import("connection.zig");
    _ = @import("control_request.zig");
    _ = @import("baseline.zig");
    _ = @import("drift.zig");
    _ = @import("endpoints.zig");
    _ = @import("fallback.zig");
    _ = @import("http.zig");
    _ = @import("infer_request.zig");
    _ = @import("json_tokens.zig");
    _ = @import("counter.zig");
    _ = @import("metrics.zig");
    _ = @import("metrics_text.zig");
    _ = @import("mutex.zig");
    _ = @import("observing.zig");
    _ = @import("confine.zig");
    _ = @import("privileges.zig");
    _ = @import("process_figures.zig");
    _ = @import("service_manager.zig");
    _ = @import("settings.zig");
    _ = @import("queue.zig");
    _ = @import("repeated_request.zig");
    _ = @import("route.zig");
    _ = @import("shared_memory.zig");
    _ = @import("staging.zig");
    _ = @import("statistics.zig");
    _ = @import("tcp_socket.zig");
    _ = @import("tensor_json.zig");
    _ = @import("worker_exit.zig");
}
