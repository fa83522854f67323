//! Targets: what clients send. Heads, bodies by length and in chunks, infer and control requests, paths,
//! names of shared memory.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const agent = @import("agent");
const Context = @import("context.zig").Context;
const Target = @import("context.zig").Target;
const ModelInfo = agent.model_info.ModelInfo;
const Problem = agent.problem.Problem;
const RepeatedRequest = agent.repeated_request.RepeatedRequest;
const Route = agent.route.Route;

const max_idle_body = 64 << 10;

const json_tokens = [_][]const u8{
    "{\"inputs\":[",                          "\"name\":\"x\"",             "\"datatype\":\"FP32\"",         "\"shape\":[2,2]",            "\"data\":[",                               "\"outputs\":[{\"name\":\"y\"}]",
    "\"parameters\":{",                       "\"binary_data_size\":16",    "\"binary_data\":true",          "\"id\":\"",                  "\"binary_data_output\":true",              "\"shared_memory_region\":\"r\"",
    "\"shared_memory_byte_size\":16",         "\"shared_memory_offset\":8", "\\ud83d\\ude00",                "\\ud800",                    "null",                                     "true",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "{\"a\":{\"a\":{\"a\":",      "1e400",                         "-0.0e-0",                    "\xf0\x9f\x98\x80",                         "\xff\xfe",
    "\"ready\":true",                         "\"key\":\"/edgepack-fuzz\"", "\"offset\":0,\"byte_size\":64", "\"unload_dependents\":true", "0000000000000000000000000000000000000000", "}]}",
};

const http_tokens = [_][]const u8{
    "Content-Length: ",         "Transfer-Encoding: chunked\r\n", "Inference-Header-Content-Length: ", "Expect: 100-continue\r\n", "Connection: close\r\n", "Connection: keep-alive\r\n",
    "Host: localhost:8000\r\n", "Origin: null\r\n",               "Content-Encoding: gzip\r\n",        "\r\n\r\n",                 "\r\n",                  "\n",
    "GET ",                     "POST ",                          "HEAD ",                             " HTTP/1.1\r\n",            " HTTP/1.0\r\n",         "0\r\n\r\n",
    "ffffffffffffffff\r\n",     "fffffffffffffff\r\n",            "10;name=value\r\n",                 "/v2/models/m/infer",       "/v2/repository/index",  "/metrics",
    "/v2/status",               "/../",                           "%2e%2e/",                           "a: b\r\n c: d\r\n",        "\x00",                  "?a=b",
} ++ json_tokens;

const path_tokens = [_][]const u8{
    "/v2", "/models/", "/versions/", "/infer", "/ready", "/repository", "/index", "/load", "/unload", "/systemsharedmemory", "/region/", "/register", "/unregister", "/status", "/health", "/live", "..", ".", "//", "%2f", "\x00", "/etc/passwd", "/metrics",
};

pub const targets = [_]Target{
    .{ .name = "http", .tokens = &http_tokens, .run = connection, .repair = repairLength },
    .{ .name = "infer", .tokens = &json_tokens, .run = inferAlone },
    .{ .name = "control", .tokens = &json_tokens, .run = controlAlone },
    .{ .name = "path", .tokens = &path_tokens, .run = path },
};

/// Hands its bytes out in pieces of any size, as a socket does.
const Trickle = struct {
    reader: Io.Reader,
    rest: []const u8,
    random: std.Random,
    /// The largest piece.
    most: usize,

    fn init(context: *Context, input: []const u8, buffer: []u8) Trickle {
        return .{
            .reader = .{ .vtable = &.{ .stream = stream }, .buffer = buffer, .seek = 0, .end = 0 },
            .rest = input,
            .random = context.random,
            .most = if (context.random.boolean()) 1 << 20 else 1 + context.random.uintLessThan(usize, 300),
        };
    }

    fn stream(reader: *Io.Reader, writer: *Io.Writer, limit: Io.Limit) Io.Reader.StreamError!usize {
        const self: *Trickle = @alignCast(@fieldParentPtr("reader", reader));
        if (self.rest.len == 0) return error.EndOfStream;
        const into = limit.slice(try writer.writableSliceGreedy(1));
        const count = @min(into.len, self.rest.len, 1 + self.random.uintLessThan(usize, self.most));
        @memcpy(into[0..count], self.rest[0..count]);
        self.rest = self.rest[count..];
        writer.advance(count);
        return count;
    }
};

/// As serve.zig and endpoints.zig go through the requests of one connection.
fn connection(context: *Context, input: []const u8) bool {
    var read_buffer: [16 << 10]u8 = undefined;
    var trickle: Trickle = .init(context, input, &read_buffer);
    var taken = false;
    var last: RepeatedRequest = .{};
    for (0..16) |_| {
        const bytes = agent.http.receiveHead(&trickle.reader) catch return taken;
        const head = agent.http.Head.parse(bytes) catch return taken;
        _ = head.webTrouble();
        var path_buffer: [512]u8 = undefined;
        if (head.path.len > path_buffer.len) return taken;
        @memcpy(path_buffer[0..head.path.len], head.path);
        if (!request(context, &head, path_buffer[0..head.path.len], &trickle.reader, &last, &taken)) return taken;
    }
    return taken;
}

/// Whether another request can follow.
fn request(context: *Context, head: *const agent.http.Head, where: []const u8, reader: *Io.Reader, last: *RepeatedRequest, taken: *bool) bool {
    const route = Route.parse(where);
    const info = modelOf(context, route);
    const limit = if (route != null and route.? == .infer) agent.infer_request.maxBytes(info) else max_idle_body;
    var body_buffer: [4 << 10]u8 = undefined;
    var body: agent.http.Body = .init(reader, head.*, limit, &body_buffer);
    if (body.remaining > limit) return false;
    if (agent.observing.Path.parse(where) == null) if (route) |it| switch (it) {
        .infer => if (infer(info, .{
            .body = &body.interface,
            .json_bytes = head.json_length,
            .total_bytes = if (head.chunked) null else head.content_length orelse 0,
            .regions = access(context),
            .last = last.of(@intFromPtr(info)),
        }, context.random.int(u64)).taken) {
            taken.* = true;
        },
        .index, .load, .unload, .register => if (control(context, it, &body.interface)) {
            taken.* = true;
        },
        else => {},
    };
    return body.skipRest() and head.keep_alive;
}

fn modelOf(context: *Context, route: ?Route) *const ModelInfo {
    if (route) |it| if (it == .infer) for (context.models) |*info| {
        if (std.mem.eql(u8, info.name, it.infer.name)) return info;
    };
    return &context.models[0];
}

fn access(context: *Context) agent.shared_memory.Access {
    return .{ .regions = context.regions, .user = linux.getuid() };
}

var staging: [64 << 10]u8 align(64) = undefined;
var spare_memory: [256 << 10]u8 = undefined;

/// What became of a request: whether it was taken, and a hash of its inputs and its answer, or of what was
/// wrong with it.
const Outcome = struct { taken: bool, hash: u64 };

/// Reads the request and answers it, with outputs that follow from `outputs_seed`. What lies between the
/// tensors must stay as it is, and nothing may stay allocated.
fn infer(info: *const ModelInfo, source: agent.infer_request.Source, outputs_seed: u64) Outcome {
    const memory = staging[0..info.vector_bytes];
    @memset(memory, 0xee);
    var spare: std.heap.FixedBufferAllocator = .init(&spare_memory);
    var asked: agent.oip.Infer = .{};
    defer asked.release();
    var problem: Problem = .{};
    const read = agent.infer_request.read(&asked, source, info, memory, spare.allocator(), &problem);
    if (spare.end_index != 0) @panic("memory of a request was not given back");
    checkGaps(info, memory);
    read catch return .{ .taken = false, .hash = std.hash.Wyhash.hash(0, problem.reason()) };
    const inputs_bytes = info.outputs[0].offset;
    const inputs_hash = std.hash.Wyhash.hash(0, memory[0..inputs_bytes]);
    var outputs: std.Random.DefaultPrng = .init(outputs_seed);
    outputs.random().bytes(memory[inputs_bytes..]);
    asked.writeShared(info, memory, &problem) catch {};
    var counter: Io.Writer.Discarding = .init(&.{});
    var buffer: [256]u8 = undefined;
    var answer: Io.Writer.Hashed(std.hash.Wyhash) = .initHasher(&counter.writer, .init(inputs_hash), &buffer);
    asked.writeAnswer(&answer.writer, info, memory) catch unreachable; // it only counts and hashes
    answer.writer.flush() catch unreachable;
    if (asked.parts(info, memory)) |parts| {
        if (counter.fullCount() != parts.json_bytes + parts.tensor_bytes) @panic("the answer has another length than was said");
    }
    return .{ .taken = true, .hash = answer.hasher.final() };
}

fn checkGaps(info: *const ModelInfo, memory: []const u8) void {
    var end: usize = 0;
    for (info.inputs) |input| {
        if (!std.mem.allEqual(u8, memory[end..input.offset], 0xee)) @panic("a byte outside of the inputs was written");
        end = input.offset + input.nbytes;
    }
    if (!std.mem.allEqual(u8, memory[end..], 0xee)) @panic("a byte behind the inputs was written");
}

/// The request is read as a client's first, then as one after others of the same connection, then again:
/// what came before changes nothing.
fn inferAlone(context: *Context, input: []const u8) bool {
    const random = context.random;
    const info = for (context.models) |*each| {
        if (std.mem.find(u8, input, each.inputs[each.inputs.len - 1].name) != null and random.uintLessThan(u8, 8) > 0) break each;
    } else &context.models[random.uintLessThan(usize, context.models.len)];
    const framing: Framing = .of(random, input);
    const regions = if (random.boolean()) access(context) else null;
    const outputs_seed = random.int(u64);
    const first = framing.ask(context, info, input, regions, null, outputs_seed);
    var last: RepeatedRequest = .{};
    for (0..random.uintLessThan(usize, 4)) |_| {
        const before = if (random.boolean()) input else context.seeds[random.uintLessThan(usize, context.seeds.len)];
        _ = Framing.of(random, before).ask(context, info, before, regions, &last, outputs_seed);
    }
    for (0..2) |_| {
        const later = framing.ask(context, info, input, regions, &last, outputs_seed);
        // In shared memory, the outputs of one are the inputs of the next.
        if (regions == null and !std.meta.eql(first, later)) @panic("a request means something else after others");
    }
    return first.taken;
}

/// What the header says of a body.
const Framing = struct {
    json_bytes: ?u64,
    total_bytes: ?u64,

    /// The JSON ends with the last brace, or so the header says.
    fn of(random: std.Random, input: []const u8) Framing {
        const json_end = if (std.mem.findScalarLast(u8, input, '}')) |at| at + 1 else 0;
        return .{
            .json_bytes = switch (random.uintLessThan(u8, 16)) {
                0 => random.uintAtMost(u64, 2 * input.len),
                1 => 1 << 59,
                2 => 0,
                3, 4, 5, 6 => null,
                else => if (json_end == input.len) null else json_end,
            },
            .total_bytes = if (random.boolean()) input.len else null,
        };
    }

    fn ask(self: Framing, context: *Context, info: *const ModelInfo, input: []const u8, regions: ?agent.shared_memory.Access, last: ?*RepeatedRequest, outputs_seed: u64) Outcome {
        var read_buffer: [4 << 10]u8 = undefined;
        var trickle: Trickle = .init(context, input, &read_buffer);
        return infer(info, .{
            .body = &trickle.reader,
            .json_bytes = self.json_bytes,
            .total_bytes = self.total_bytes,
            .regions = regions,
            .last = last,
        }, outputs_seed);
    }
};

fn control(context: *Context, route: Route, body: *Io.Reader) bool {
    const kind: agent.control_request.Kind = switch (route) {
        .index => .index,
        .load => .load,
        .unload => .unload,
        else => .register,
    };
    var problem: Problem = .{};
    var asked: agent.control_request.ControlRequest = .{};
    asked.read(body, kind, &problem) catch return false;
    if (kind == .register) register(context, if (route == .register) route.register else "q", &asked);
    return true;
}

fn controlAlone(context: *Context, input: []const u8) bool {
    var read_buffer: [4 << 10]u8 = undefined;
    var trickle: Trickle = .init(context, input, &read_buffer);
    const routes = [_]Route{ .index, .{ .load = "m" }, .{ .unload = "m" }, .{ .register = "q" } };
    return control(context, routes[context.random.uintLessThan(usize, routes.len)], &trickle.reader);
}

/// A name that led out of /dev/shm would have to hold a slash or begin with a dot.
fn register(context: *Context, name: []const u8, asked: *const agent.control_request.ControlRequest) void {
    const me = linux.getuid();
    var problem: Problem = .{};
    if (std.mem.eql(u8, name, "r")) return; // stays as it is
    context.regions.register(me, .{ .name = name, .key = asked.key, .offset = asked.offset, .bytes = asked.byte_size }, &problem) catch return;
    defer context.regions.unregister(me, name);
    const file = if (asked.key[0] == '/') asked.key[1..] else asked.key;
    if (std.mem.findScalar(u8, file, '/') != null or file[0] == '.') @panic("a key that leads elsewhere was taken");
    var buffer: [256]u8 = undefined;
    var counter: Io.Writer.Discarding = .init(&buffer);
    agent.shared_memory.writeStatus(&counter.writer, access(context), null) catch unreachable; // it only counts
}

fn path(context: *Context, input: []const u8) bool {
    const half = context.random.uintAtMost(usize, input.len);
    var asked: agent.control_request.ControlRequest = .{ .key = input[half..], .byte_size = 1 };
    if (half < input.len) register(context, input[0..half], &asked);
    _ = agent.observing.Path.parse(input);
    const route = Route.parse(input) orelse return false;
    switch (route) {
        .infer, .model, .model_ready => |model| if (!agent.naming.isName(model.name)) @panic("a path gave a name that is none"),
        .load, .unload => |name| if (!agent.naming.isName(name)) @panic("a path gave a name that is none"),
        else => {},
    }
    return true;
}

/// Mostly, the length that the head gives is the body's.
fn repairLength(context: *Context, buffer: []u8, len: usize) usize {
    if (context.random.uintLessThan(u8, 4) == 0) return len;
    const field = "Content-Length: ";
    const body = (std.mem.find(u8, buffer[0..len], "\r\n\r\n") orelse return len) + 4;
    const start = (std.mem.find(u8, buffer[0..body], "\r\n" ++ field) orelse return len) + 2 + field.len;
    const end = std.mem.findScalarPos(u8, buffer[0..body], start, '\r') orelse return len;
    var digits: [24]u8 = undefined;
    const text = std.fmt.bufPrint(&digits, "{d}", .{len - body}) catch unreachable;
    const moved = len - (end - start) + text.len;
    if (moved > buffer.len) return len;
    if (text.len > end - start) {
        std.mem.copyBackwards(u8, buffer[start + text.len .. moved], buffer[end..len]);
    } else {
        std.mem.copyForwards(u8, buffer[start + text.len .. moved], buffer[end..len]);
    }
    @memcpy(buffer[start..][0..text.len], text);
    return moved;
}
