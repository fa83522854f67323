//! Targets: what packages and the store are made of, each layer for itself, so that a change gets past
//! the digests above it.

const std = @import("std");
const linux = std.os.linux;
const agent = @import("agent");
const Context = @import("context.zig").Context;
const Target = @import("context.zig").Target;
const Refusal = agent.refusal.Refusal;

const tokens = [_][]const u8{
    "\"digest\":\"sha256:",                                             "\"size\":",                     "\"mediaType\":\"",                       "\"annotations\":{",                             "\"edgepack.target\":\"host\"",         "\"edgepack.signature\":\"dsse\"",
    "\"manifests\":[",                                                  "\"format\":1",                  "\"current\":null",                       "\"previous\":",                                 "\"floor\":\"1.0.0\"",                  "\"version\":\"1.2.3\"",
    "\"inputs\":[",                                                     "\"dtype\":\"float32\"",         "\"shape\":[1073741824,1073741824]",      "\"shape\":[]",                                  "\"tolerance\":1e-4",                   "\"golden\":{\"count\":64}",
    "\"signatures\":[",                                                 "\"keyid\":\"",                  "\"sig\":\"AAA=\"",                       "\"payload\":\"e30=\"",                          "\"subject\":[",                        "\"targets\":{",
    "\"sizes\":{",                                                      "\"name\":\"../../etc/passwd\"", "/manifest\"",                            "\"_type\":\"https://in-toto.io/Statement/v1\"", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "{\"a\":{\"a\":{\"a\":{\"a\":",
    "0000000000000000000000000000000000000000000000000000000000000000", "\\u0000",                       "\\ud800",                                "-----BEGIN PUBLIC KEY-----",                    "-----END PUBLIC KEY-----",             "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
    "\"always\":true",                                                  "\"every\":3",                   "\"rate\":0.5",                           "\"below\":{\"output\":\"y\",\"value\":0}",      "\"max_bytes\":65536",                  "\"url\":\"http://127.0.0.1:8/\"",
    "\"headers\":{\"Authorization\":\"a\\r\\nb\"}",                     "\"form\":{\"key\":\"a\"}",      "\"edges\":[0,1e308],\"counts\":[1,2,3]", "\"baseline\":{",                                "MCowBQYDK2VwAyEA",                     "\x30\x45\x02\x21\x00",
    "\x02\x81\xff",                                                     "ustar\x0000",                   "0000644",                                "77777777777",
};

pub const targets = [_]Target{
    .{ .name = "tar", .tokens = &tokens, .run = tar, .repair = repairHeaders },
    .{ .name = "index", .tokens = &tokens, .run = index },
    .{ .name = "envelope", .tokens = &tokens, .run = envelope },
    .{ .name = "statement", .tokens = &tokens, .run = statement },
    .{ .name = "model_info", .tokens = &tokens, .run = modelInfo },
    .{ .name = "state", .tokens = &tokens, .run = state },
    .{ .name = "rules", .tokens = &tokens, .run = rules },
    .{ .name = "push", .tokens = &tokens, .run = push },
    .{ .name = "keys", .tokens = &tokens, .run = keys },
};

var archive: linux.fd_t = -1;

/// The input as a file, of which there is one.
fn asFile(input: []const u8) std.Io.File {
    if (archive < 0) archive = @intCast(linux.memfd_create("fuzz", linux.MFD.CLOEXEC));
    _ = linux.ftruncate(archive, @intCast(input.len));
    if (linux.pwrite(archive, input.ptr, input.len, 0) != input.len) @panic("no file to fuzz with");
    return .{ .handle = archive, .flags = .{ .nonblocking = false } };
}

fn tar(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    const entries = agent.tar.scan(context.arena.allocator(), context.io, &refusal, asFile(input)) catch |err| return refused(err);
    for (entries) |entry| {
        if (entry.offset > input.len or entry.size > input.len - entry.offset) @panic("an entry outside of the file");
    }
    return true;
}

/// Right checksums, mostly: they are no defence.
fn repairHeaders(context: *Context, buffer: []u8, len: usize) usize {
    if (context.random.uintLessThan(u8, 4) == 0) return len;
    var whole = std.mem.alignBackward(usize, len, agent.tar.block_bytes);
    if (context.random.boolean()) whole = len;
    var at: usize = 0;
    while (at + agent.tar.block_bytes <= whole) : (at += agent.tar.block_bytes) {
        const block = buffer[at..][0..agent.tar.block_bytes];
        if (!std.mem.eql(u8, block[257..262], "ustar")) continue;
        @memset(block[148..156], ' ');
        var sum: u32 = 0;
        for (block) |byte| sum += byte;
        _ = std.fmt.bufPrint(block[148..156], "{o:0>6}\x00 ", .{sum}) catch unreachable; // at most 512 * 255
    }
    return whole;
}

fn index(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    const parsed = agent.package.parseIndex(context.arena.allocator(), &refusal, input) catch |err| return refused(err);
    if (!agent.naming.isName(parsed.name) or parsed.targets.len > agent.statement.max_targets) @panic("an index out of its bounds");
    return true;
}

fn envelope(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    const arena = context.arena.allocator();
    const parsed = agent.envelope.Envelope.parse(arena, &refusal, input) catch |err| return refused(err);
    if (parsed.verify(arena, &refusal, &.{})) @panic("verified by no key") else |err| return !refused(err);
}

fn statement(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    const arena = context.arena.allocator();
    const parsed = agent.statement.Statement.parse(arena, &refusal, input) catch |err| return refused(err);
    for (parsed.targets) |*target| {
        if (!agent.naming.isName(target.name)) @panic("a target's name that is none");
        _ = agent.oci.targetManifest(arena, target) catch |err| return refused(err);
    }
    return true;
}

fn modelInfo(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    const parsed = agent.model_info.ModelInfo.parse(context.arena.allocator(), &refusal, input) catch |err| return refused(err);
    var end: usize = 0;
    for ([_][]const agent.model_info.Tensor{ parsed.inputs, parsed.outputs }) |tensors| for (tensors) |tensor| {
        if (tensor.offset < end) @panic("tensors that overlap");
        end = tensor.offset + tensor.nbytes;
    };
    if (end > parsed.vector_bytes or parsed.vector_bytes > parsed.shm_bytes) @panic("tensors outside of their memory");
    _ = agent.infer_request.maxBytes(&parsed);
    return true;
}

fn state(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    const arena = context.arena.allocator();
    const parsed = agent.state.State.parse(arena, &refusal, input) catch |err| return refused(err);
    const rendered = parsed.render(arena) catch |err| return refused(err);
    const again = agent.state.State.parse(arena, &refusal, rendered) catch @panic("a state is not read as it was written");
    if (!std.mem.eql(u8, rendered, again.render(arena) catch "")) @panic("a state changes by being read");
    return true;
}

fn rules(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    _ = agent.capture_rules.Rules.parse(context.arena.allocator(), &refusal, input) catch |err| return refused(err);
    return true;
}

fn push(context: *Context, input: []const u8) bool {
    var refusal: Refusal = .{};
    _ = agent.push_config.Config.parse(context.arena.allocator(), &refusal, input) catch |err| return refused(err);
    return true;
}

/// A key in PEM or DER; or a signature, by a key that is right.
fn keys(context: *Context, input: []const u8) bool {
    const key = agent.keys.PublicKey.fromPem(input) orelse agent.keys.PublicKey.fromSpki(input);
    if (key) |it| {
        if (context.random.uintLessThan(u8, 8) == 0) _ = it.verifies("message", context.seeds[0]);
        return true;
    }
    if (context.random.uintLessThan(u8, 8) != 0) return false;
    for (context.seeds) |seed| if (agent.keys.PublicKey.fromPem(seed)) |it| {
        if (it.verifies("message", input)) return true;
    };
    return false;
}

/// The arena is far larger than any bound that the parsers have.
fn refused(err: agent.refusal.Error) bool {
    return switch (err) {
        error.Refused => false,
        error.OutOfMemory => @panic("it wants more memory than there is reason for"),
    };
}
