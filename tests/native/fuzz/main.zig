//! The fuzzer of the agent's parsers: its own sources with all safety checks on, in this process, fed
//! with changed inputs. tests/native/fuzzing.py builds it, gives it seeds and reads its answer.
//!
//!     fuzz CORPUS TARGET SEED START ITERATIONS
//!
//! CORPUS/TARGET/* are right inputs, CORPUS/signing.seed the trusted key's. It works in the current
//! directory; the target "package" makes that its root first, with the device's store in ./device.
//! Prints one line of JSON. Exit code 70: a crash or a hang, see watch.zig.

const std = @import("std");
const Io = std.Io;
const linux = std.os.linux;
const agent = @import("agent");
const Context = @import("context.zig").Context;
const Target = @import("context.zig").Target;
const documents = @import("documents.zig");
const mutate = @import("mutate.zig");
const packages = @import("packages.zig");
const planted = @import("planted.zig");
const requests = @import("requests.zig");
const watch = @import("watch.zig");

pub const panic = std.debug.FullPanic(watch.die);
pub const std_options: std.Options = .{ .enable_segfault_handler = false, .signal_stack_size = null };

const targets = requests.targets ++ documents.targets ++ [_]Target{packages.target} ++ planted.targets;

/// Of one iteration. No bound of a parser comes near it.
const arena_bytes = 64 << 20;
/// One input in so many is a seed as it is.
const unchanged_one_in = 64;

var buffer: [1 << 20]u8 = undefined;

pub fn main(init: std.process.Init.Minimal) !u8 {
    var lasting_state: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    const lasting = lasting_state.allocator();
    var words = init.args.iterate();
    _ = words.skip();
    const corpus = words.next() orelse return 2;
    const name = words.next() orelse return 2;
    const seed = try std.fmt.parseInt(u64, words.next() orelse return 2, 10);
    const start = try std.fmt.parseInt(u64, words.next() orelse return 2, 10);
    const iterations = try std.fmt.parseInt(u64, words.next() orelse return 2, 10);
    const target = for (&targets) |*each| {
        if (std.mem.eql(u8, each.name, name)) break each;
    } else return 2;

    const io = agent.system_io.io();
    const memory = try lasting.alloc(u8, arena_bytes);
    var arena: std.heap.FixedBufferAllocator = .init(memory);
    var regions: agent.shared_memory.Regions = .{};
    var context: Context = .{
        .io = io,
        .random = undefined,
        .arena = &arena,
        .seeds = try readAll(lasting, io, corpus, name),
        .models = try readModels(lasting, io, corpus),
        .regions = &regions,
    };
    watch.watched = .{ .target = name, .seed = seed, .directory = "." };
    var problem: agent.problem.Problem = .{};
    regions.register(linux.getuid(), .{ .name = "r", .key = "/edgepack-fuzz", .offset = 0, .bytes = 4096 }, &problem) catch {};
    if (target.make != null) {
        const signing_seed = try Io.Dir.cwd().readFileAlloc(io, try std.fmt.allocPrint(lasting, "{s}/signing.seed", .{corpus}), lasting, .limited(33));
        if (linux.errno(linux.chroot(".")) != .SUCCESS) return error.NoChroot;
        try packages.prepare(lasting, io, context.seeds, signing_seed[0..32].*);
    }
    watch.start();
    const taken = campaign(&context, target, seed, start, iterations);
    var line: [256]u8 = undefined;
    const text = try std.fmt.bufPrint(&line, "{{\"target\":\"{s}\",\"iterations\":{d},\"taken\":{d},\"seeds\":{d}}}\n", .{ name, iterations, taken, context.seeds.len });
    _ = linux.write(1, text.ptr, text.len);
    return 0;
}

/// How many inputs were taken for right.
fn campaign(context: *Context, target: *const Target, seed: u64, start: u64, iterations: u64) u64 {
    var taken: u64 = 0;
    for (start..start + iterations) |iteration| {
        // An iteration's input follows from its number alone.
        var source: std.Random.DefaultPrng = .init(std.hash.Wyhash.hash(seed, std.mem.asBytes(&@as(u64, iteration))));
        context.random = source.random();
        context.arena.reset();
        watch.watched.iteration = iteration;
        watch.watched.input = &.{};
        const input = buffer[0..makeInput(context, target)];
        watch.watched.input = input;
        context.arena.reset();
        if (target.run(context, input)) taken += 1;
    }
    return taken;
}

fn makeInput(context: *Context, target: *const Target) usize {
    if (target.make) |make| return make(context, &buffer);
    const seed = mutate.pick(context.random, context.seeds);
    @memcpy(buffer[0..seed.len], seed);
    if (context.random.uintLessThan(u8, unchanged_one_in) == 0) return seed.len;
    const len = mutate.mutate(context.random, buffer[0..@max(seed.len, mutate.max_bytes)], seed.len, context.seeds, target.tokens);
    return if (target.repair) |repair| repair(context, &buffer, len) else len;
}

fn readModels(arena: std.mem.Allocator, io: Io, corpus: []const u8) ![]const agent.model_info.ModelInfo {
    const texts = try readAll(arena, io, corpus, "model_info");
    const models = try arena.alloc(agent.model_info.ModelInfo, texts.len);
    var refusal: agent.refusal.Refusal = .{};
    for (texts, models) |text, *model| model.* = try .parse(arena, &refusal, text);
    return models;
}

/// Sorted by name: which seed an iteration takes must not depend on the file system.
fn readAll(arena: std.mem.Allocator, io: Io, corpus: []const u8, name: []const u8) ![]const []const u8 {
    const directory = try Io.Dir.cwd().openDir(io, try std.fmt.allocPrint(arena, "{s}/{s}", .{ corpus, name }), .{ .iterate = true });
    defer directory.close(io);
    var names: std.ArrayList([]const u8) = .empty;
    var entries = directory.iterate();
    while (try entries.next(io)) |entry| try names.append(arena, try arena.dupe(u8, entry.name));
    std.sort.heap([]const u8, names.items, {}, lessText);
    const contents = try arena.alloc([]const u8, names.items.len);
    for (names.items, contents) |file, *bytes| bytes.* = try directory.readFileAlloc(io, file, arena, .limited(buffer.len));
    return contents;
}

fn lessText(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.order(u8, a, b) == .lt;
}
