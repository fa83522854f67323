//! Target: whole packages, through the same steps as `edgepack-agent install`: read, verified, tried
//! out, put into a store. A change at one place is followed, mostly, by right digests, sizes and
//! signatures everywhere above it, so that it comes as deep as it can.

const std = @import("std");
const linux = std.os.linux;
const Ed25519 = std.crypto.sign.Ed25519;
const agent = @import("agent");
const context_ = @import("context.zig");
const Context = context_.Context;
const Target = context_.Target;
const mutate = @import("mutate.zig");
const naming = agent.naming;
const oci = agent.oci;
const Part = agent.statement.Part;
const Refusal = agent.refusal.Refusal;
const Statement = agent.statement.Statement;

pub const target: Target = .{ .name = "package", .tokens = &tokens, .run = run, .make = make };

const tokens = [_][]const u8{
    "{}", "[]", "\"", "sha256:", "\"size\":0", "host", "raspberrypi4", "../../outside", "/outside", "blobs/sha256/", "index.json", "oci-layout", "1.2.3", "99999.0.0", "0.0.1", "\"dtype\":\"int64\"", "\"shape\":[1]", "\"count\":1", "\x00\x00\x80\x7f", "\x00\x00\xc0\x7f", "EPGV0001",
};

/// Of a SubjectPublicKeyInfo, up to the key (RFC 8410).
const ed25519_spki = "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

const path = "package.epk";
/// Under the root that the process was given: its device.
const root = "device";
const device_target = "host";

var store: agent.store.Store = undefined;
var store_refusal: Refusal = .{};
var key_pair: Ed25519.KeyPair = undefined;
var trusted: [1]agent.keys.PublicKey = undefined;
var file: linux.fd_t = -1;
var seed_packages: []const Contents = &.{};

/// All that is signed for, as it is in a seed.
const Contents = struct {
    statement: Statement,
    /// By target.
    parts: []const std.EnumArray(Part, []const u8),
};

const changeable = [_]Part{ .config, .weights, .metadata, .golden };

const Place = enum { raw, header, entries, root_index, index, signature, envelope, statement, manifest, version, part, none };

/// Once; `arena` lasts as long as the process, and the working directory is its only one.
pub fn prepare(arena: std.mem.Allocator, io: std.Io, seeds: []const []const u8, signing_seed: [32]u8) !void {
    key_pair = try .generateDeterministic(signing_seed);
    const public = key_pair.public_key.toBytes();
    const spki = ed25519_spki ++ &public;
    trusted = .{agent.keys.PublicKey.fromSpki(spki).?};
    file = @intCast(linux.open(path, .{ .ACCMODE = .RDWR, .CREAT = true, .CLOEXEC = true }, 0o644));
    store = try .open(io, &store_refusal, root);
    const found = try arena.alloc(Contents, seeds.len);
    for (seeds, found) |seed, *contents| contents.* = try read(arena, io, seed);
    seed_packages = found;
}

fn write(bytes: []const u8) void {
    _ = linux.ftruncate(file, @intCast(bytes.len));
    if (linux.pwrite(file, bytes.ptr, bytes.len, 0) != bytes.len) @panic("no room for the package");
}

fn read(arena: std.mem.Allocator, io: std.Io, seed: []const u8) !Contents {
    write(seed);
    const package: agent.package.Package = try .open(arena, io, &store_refusal, path);
    const verified = try agent.verify.package(arena, io, &store_refusal, &trusted, device_target, &package, &store);
    const statement = verified.statement;
    const parts = try arena.alloc(std.EnumArray(Part, []const u8), statement.targets.len);
    for (statement.targets, parts) |*each, *contents| for (std.enums.values(Part)) |part| {
        var blob = package.find(each.digests.get(part)) orelse return error.Refused;
        contents.set(part, try blob.readAll(arena, io, &store_refusal));
    };
    return .{ .statement = statement, .parts = parts };
}

fn run(context: *Context, input: []const u8) bool {
    write(input);
    const arena = context.arena.allocator();
    var refusal: Refusal = .{};
    store.refusal = &refusal;
    if (installed and context.random.boolean()) forget(context);
    install(arena, context, &refusal) catch |err| switch (err) {
        error.OutOfMemory => @panic("it wants more memory than there is reason for"),
        error.Refused => return false,
    };
    return true;
}

fn install(arena: std.mem.Allocator, context: *Context, refusal: *Refusal) agent.refusal.Error!void {
    const io = context.io;
    const package: agent.package.Package = try .open(arena, io, refusal, path);
    defer package.close(io);
    const verified = try agent.verify.package(arena, io, refusal, &trusted, device_target, &package, &store);
    const session: agent.install.Session = .{ .arena = arena, .io = io, .refusal = refusal, .store = &store, .keys = &trusted, .target = device_target };
    const outcome = try agent.install.install(session, &verified, .{ .package = &package });
    if (!naming.isName(outcome.model)) @panic("a model was installed under a name that is none");
    // As it was before, or the next of the same version would have nothing to do; or not, and it has.
    if (context.random.boolean()) forget(context) else installed = true;
}

var installed = false;

fn forget(context: *Context) void {
    var refusal: Refusal = .{};
    agent.state.remove(context.io, &refusal, store.models, "demo") catch {};
    installed = false;
}

/// One package in parts, of which one is changed.
const Maker = struct {
    context: *Context,
    arena: std.mem.Allocator,
    place: Place,
    blobs: std.ArrayList(Blob) = .empty,

    const Blob = struct { hex: naming.Hex, bytes: []const u8 };

    fn changed(self: *Maker, place: Place, bytes: []const u8) []const u8 {
        if (place != self.place) return bytes;
        const buffer = self.arena.alloc(u8, bytes.len + (16 << 10)) catch unreachable; // the arena is large
        @memcpy(buffer[0..bytes.len], bytes);
        return buffer[0..mutate.mutate(self.context.random, buffer, bytes.len, self.context.seeds, &tokens)];
    }

    fn add(self: *Maker, bytes: []const u8) oci.Descriptor {
        const hex = naming.sha256Hex(bytes);
        self.blobs.append(self.arena, .{ .hex = hex, .bytes = bytes }) catch unreachable;
        return .{ .digest = hex, .size = bytes.len };
    }
};

fn make(context: *Context, buffer: []u8) usize {
    const random = context.random;
    const contents = &seed_packages[random.uintLessThan(usize, seed_packages.len)];
    var maker: Maker = .{ .context = context, .arena = context.arena.allocator(), .place = choose(random) };
    const root_index = build(&maker, contents) catch unreachable; // the arena is large
    const len = writeArchive(&maker, root_index, buffer);
    return switch (maker.place) {
        .raw => mutate.mutate(random, buffer, len, context.seeds, &tokens),
        else => len,
    };
}

/// A part is costly, since it is tried out.
fn choose(random: std.Random) Place {
    if (random.uintLessThan(u8, 64) == 0) return if (random.uintLessThan(u8, 4) == 0) .none else .part;
    return @fromBackingInt(@intCast(random.uintLessThan(u8, @backingInt(Place.part))));
}

/// Gives index.json; all else is among the blobs.
fn build(maker: *Maker, contents: *const Contents) ![]const u8 {
    const arena = maker.arena;
    const random = maker.context.random;
    var statement = contents.statement;
    const targets = try arena.dupe(agent.statement.Target, statement.targets);
    const lines = try arena.alloc(oci.TargetLine, targets.len);
    for (targets, contents.parts, lines) |*each, parts, *line| {
        const which = changeable[random.uintLessThan(usize, changeable.len)];
        for (std.enums.values(Part)) |part| {
            if (part == .manifest) continue;
            const bytes = if (part == which) maker.changed(.part, parts.get(part)) else parts.get(part);
            const of = maker.add(bytes);
            each.digests.set(part, of.digest);
            each.sizes.set(part, of.size);
        }
        const manifest = maker.add(maker.changed(.manifest, try oci.targetManifest(arena, each)));
        each.digests.set(.manifest, manifest.digest);
        each.sizes.set(.manifest, manifest.size);
        line.* = .{ .name = each.name, .manifest = manifest };
    }
    if (maker.place == .version) statement.version_text = try std.fmt.allocPrint(arena, "{d}.{d}.{d}", .{ random.uintLessThan(u32, 3), random.uintLessThan(u32, 100), random.int(u8) });
    var index: oci.PackageIndex = .{ .name = statement.name, .version = statement.version_text, .targets = lines, .signature = null };
    statement.targets = targets;
    statement.package = naming.sha256Hex(try index.render(arena));
    const envelope = maker.add(maker.changed(.envelope, try signed(maker, maker.changed(.statement, try statement.render(arena)))));
    _ = maker.add(oci.empty_config);
    index.signature = maker.add(maker.changed(.signature, try oci.signatureManifest(arena, envelope)));
    const package_index = maker.add(maker.changed(.index, try index.render(arena)));
    return maker.changed(.root_index, try oci.rootIndex(arena, package_index));
}

fn signed(maker: *Maker, payload: []const u8) ![]const u8 {
    const arena = maker.arena;
    const kind = agent.envelope.payload_type;
    const message = try std.fmt.allocPrint(arena, "DSSEv1 {d} {s} {d} {s}", .{ kind.len, kind, payload.len, payload });
    const signature = try key_pair.sign(message, null);
    const base64 = std.base64.standard.Encoder;
    const text = base64.encode(try arena.alloc(u8, base64.calcSize(payload.len)), payload);
    var signature_text: [base64.calcSize(64)]u8 = undefined;
    _ = base64.encode(&signature_text, &signature.toBytes());
    return std.fmt.allocPrint(arena, "{{\"payload\":\"{s}\",\"payloadType\":\"{s}\",\"signatures\":[{{\"keyid\":\"{s}\",\"sig\":\"{s}\"}}]}}", .{ text, kind, &trusted[0].id, &signature_text });
}

const Entry = struct { name: []const u8, bytes: []const u8 };

fn writeArchive(maker: *Maker, root_index: []const u8, buffer: []u8) usize {
    const random = maker.context.random;
    var entries: std.ArrayList(Entry) = .empty;
    for (maker.blobs.items) |blob| {
        const name = std.fmt.allocPrint(maker.arena, "blobs/sha256/{s}", .{&blob.hex}) catch unreachable;
        for (entries.items) |earlier| {
            if (std.mem.eql(u8, earlier.name, name)) break;
        } else entries.append(maker.arena, .{ .name = name, .bytes = blob.bytes }) catch unreachable;
    }
    std.sort.heap(Entry, entries.items, {}, lessByName);
    entries.insertSlice(maker.arena, 0, &.{ .{ .name = "oci-layout", .bytes = oci.layout }, .{ .name = "index.json", .bytes = root_index } }) catch unreachable;
    if (maker.place == .entries) shuffle(maker, &entries);
    const changed_header = if (maker.place == .header) random.uintLessThan(usize, entries.items.len) else entries.items.len;
    var end: usize = 0;
    for (entries.items, 0..) |entry, number| {
        const padded = std.mem.alignForward(usize, entry.bytes.len, agent.tar.block_bytes);
        if (end + padded + 3 * agent.tar.block_bytes > buffer.len) break;
        const block = buffer[end..][0..agent.tar.block_bytes];
        block.* = agent.tar.header(entry.name, entry.bytes.len);
        if (number == changed_header) changeHeader(random, block);
        @memset(buffer[end + block.len ..][0..padded], 0);
        @memcpy(buffer[end + block.len ..][0..entry.bytes.len], entry.bytes);
        end += block.len + padded;
    }
    @memset(buffer[end..][0 .. 2 * agent.tar.block_bytes], 0);
    return end + 2 * agent.tar.block_bytes;
}

/// Entries that are missing, there twice, elsewhere, renamed, or of other contents.
fn shuffle(maker: *Maker, entries: *std.ArrayList(Entry)) void {
    const random = maker.context.random;
    const at = random.uintLessThan(usize, entries.items.len);
    switch (random.uintLessThan(u8, 5)) {
        0 => _ = entries.orderedRemove(at),
        1 => entries.insert(maker.arena, at, entries.items[at]) catch unreachable,
        2 => std.mem.swap(Entry, &entries.items[at], &entries.items[random.uintLessThan(usize, entries.items.len)]),
        3 => {
            var name: [256]u8 = undefined;
            const old = entries.items[at].name;
            @memcpy(name[0..old.len], old);
            const len = mutate.mutate(random, &name, old.len, &.{}, &tokens);
            entries.items[at].name = maker.arena.dupe(u8, name[0..@min(len, 100)]) catch unreachable;
        },
        else => {
            var other = maker.*;
            other.place = .raw;
            entries.items[at].bytes = other.changed(.raw, entries.items[at].bytes);
        },
    }
}

/// With the right checksum, so that it is not the checksum that refuses it.
fn changeHeader(random: std.Random, block: *[agent.tar.block_bytes]u8) void {
    const fields = [_][2]usize{ .{ 0, 100 }, .{ 100, 8 }, .{ 108, 16 }, .{ 124, 12 }, .{ 136, 12 }, .{ 156, 1 }, .{ 157, 100 }, .{ 257, 8 }, .{ 265, 64 }, .{ 345, 155 } };
    const field = fields[random.uintLessThan(usize, fields.len)];
    for (0..1 + random.uintLessThan(usize, 3)) |_| {
        block[field[0] + random.uintLessThan(usize, field[1])] = if (random.boolean()) '0' + random.uintLessThan(u8, 8) else random.int(u8);
    }
    @memset(block[148..156], ' ');
    var sum: u32 = 0;
    for (block) |byte| sum += byte;
    _ = std.fmt.bufPrint(block[148..156], "{o:0>6}\x00 ", .{sum}) catch unreachable; // at most 512 * 255
}

fn lessByName(_: void, a: Entry, b: Entry) bool {
    return std.mem.order(u8, a.name, b.name) == .lt;
}
