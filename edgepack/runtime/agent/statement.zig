//! The signed in-toto statement: every digest and size of a package, for all of its targets.
//!
//!     {"_type":"https://in-toto.io/Statement/v1",
//!      "predicate":{"name":N,"targets":{T:{"config":HEX,"golden":HEX,"manifest":HEX,"metadata":HEX,
//!        "sizes":{HEX:BYTES,...},"weights":HEX,"worker":HEX},...},"version":V},
//!      "predicateType":"urn:edgepack:package:v1",
//!      "subject":[{"digest":{"sha256":HEX},"name":"package"},
//!                 {"digest":{"sha256":HEX},"name":"T/manifest"}, ... per target in order]}
//!
//! Subjects and predicate say the same twice, for in-toto tools and for us. So it is understood from
//! the one, written again from what was understood, and must come out the same to the byte.

const std = @import("std");
const Allocator = std.mem.Allocator;
const document = @import("document.zig");
const naming = @import("naming.zig");
const Hex = naming.Hex;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;

pub const max_targets = 64;
/// Just under 8 GiB: what a tar header can say.
pub const max_blob_bytes = (1 << 33) - 1;

/// A target's blobs, in the order of the statement's subjects.
pub const Part = enum { manifest, config, worker, weights, metadata, golden };
pub const Parts = std.EnumArray(Part, Hex);

pub const Target = struct {
    name: []const u8,
    digests: Parts,
    sizes: std.EnumArray(Part, u64),

    /// The size of one of this target's blobs; null where it has no such blob.
    pub fn sizeOf(self: *const Target, hex: Hex) ?u64 {
        for (std.enums.values(Part)) |part| {
            if (std.mem.eql(u8, &self.digests.get(part), &hex)) return self.sizes.get(part);
        }
        return null;
    }
};

pub const Statement = struct {
    name: []const u8,
    version_text: []const u8,
    version: naming.Version,
    package: Hex,
    targets: []const Target,

    /// `bytes` is the payload of an envelope, before or after its signature was checked.
    pub fn parse(arena: Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!Statement {
        const doc: document.Document = .{ .refusal = refusal, .check = .statement, .title = "the statement" };
        const root = try doc.parse(arena, bytes);
        const predicate = try doc.objectField(root, "predicate");
        const name = try doc.string(predicate, "name", 64);
        if (!naming.isName(name)) return doc.malformed("bad name", .{});
        const version_text = try doc.string(predicate, "version", 32);
        const subjects = try doc.array(root, "subject", 1 + max_targets * Parts.len);
        if (subjects.len < 1 + Parts.len or (subjects.len - 1) % Parts.len != 0) {
            return doc.malformed("not one subject and six for each target", .{});
        }
        const listed = try doc.objectField(predicate, "targets");
        const targets = try arena.alloc(Target, (subjects.len - 1) / Parts.len);
        for (targets, 0..) |*target, index| {
            target.* = try parseTarget(doc, listed, try subjectTarget(doc, subjects[1 + index * Parts.len]));
        }
        const statement: Statement = .{
            .name = name,
            .version_text = version_text,
            .version = naming.Version.parse(version_text) orelse return doc.malformed("bad version", .{}),
            .package = try subjectDigest(doc, subjects[0]),
            .targets = targets,
        };
        if (!std.mem.eql(u8, bytes, try statement.render(arena))) {
            return doc.malformed("not in canonical form, or it contradicts itself", .{});
        }
        return statement;
    }

    pub fn find(self: Statement, target: []const u8) ?*const Target {
        for (self.targets) |*candidate| {
            if (std.mem.eql(u8, candidate.name, target)) return candidate;
        }
        return null;
    }

    pub fn render(self: Statement, arena: Allocator) error{OutOfMemory}![]const u8 {
        var out: std.Io.Writer.Allocating = .init(arena);
        self.write(arena, &out.writer) catch return error.OutOfMemory;
        return out.written();
    }

    fn write(self: Statement, arena: Allocator, out: *std.Io.Writer) !void {
        try out.print("{{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicate\":{{\"name\":\"{s}\",\"targets\":{{", .{self.name});
        const sorted = try arena.dupe(Target, self.targets);
        std.sort.heap(Target, sorted, {}, lessByName);
        for (sorted, 0..) |*target, index| {
            if (index > 0) try out.writeByte(',');
            try writeTarget(target, out);
        }
        try out.print("}},\"version\":\"{s}\"}},\"predicateType\":\"urn:edgepack:package:v1\",\"subject\":[" ++
            "{{\"digest\":{{\"sha256\":\"{s}\"}},\"name\":\"package\"}}", .{ self.version_text, &self.package });
        for (self.targets) |target| {
            for (std.enums.values(Part)) |part| {
                try out.print(",{{\"digest\":{{\"sha256\":\"{s}\"}},\"name\":\"{s}/{t}\"}}", .{ &target.digests.get(part), target.name, part });
            }
        }
        try out.writeAll("]}");
    }
};

fn parseTarget(doc: document.Document, listed: document.Object, name: []const u8) refusals.Error!Target {
    if (!naming.isName(name)) return doc.malformed("bad name of a target", .{});
    const object = try doc.objectField(listed, name);
    const sizes = try doc.objectField(object, "sizes");
    var target: Target = .{ .name = name, .digests = undefined, .sizes = undefined };
    for (std.enums.values(Part)) |part| {
        const text = try doc.string(object, @tagName(part), 64);
        target.digests.set(part, naming.parseHex(text) orelse return doc.malformed("bad digest of {s}/{t}", .{ name, part }));
        target.sizes.set(part, try doc.integer(sizes, text, max_blob_bytes));
    }
    return target;
}

/// "raspberrypi4/manifest" → "raspberrypi4"
fn subjectTarget(doc: document.Document, subject: document.Value) refusals.Error![]const u8 {
    const name = try doc.string(try doc.asObject(subject, "a subject"), "name", 80);
    const suffix = "/manifest";
    if (!std.mem.endsWith(u8, name, suffix)) return doc.malformed("subjects in another order than theirs", .{});
    return name[0 .. name.len - suffix.len];
}

fn subjectDigest(doc: document.Document, subject: document.Value) refusals.Error!Hex {
    const digest = try doc.objectField(try doc.asObject(subject, "a subject"), "digest");
    return naming.parseHex(try doc.string(digest, "sha256", 64)) orelse doc.malformed("bad digest of a subject", .{});
}

/// Keys sorted; "sizes" in the middle of them, itself sorted and without doubles.
fn writeTarget(target: *const Target, out: *std.Io.Writer) std.Io.Writer.Error!void {
    try out.print("\"{s}\":{{", .{target.name});
    for ([_]Part{ .config, .golden, .manifest, .metadata }) |part| {
        try out.print("\"{t}\":\"{s}\",", .{ part, &target.digests.get(part) });
    }
    try out.writeAll("\"sizes\":{");
    var order = std.enums.values(Part)[0..Parts.len].*;
    std.sort.heap(Part, &order, target, lessByDigest);
    for (order, 0..) |part, index| {
        if (index > 0) {
            if (std.mem.eql(u8, &target.digests.get(order[index - 1]), &target.digests.get(part))) continue;
            try out.writeByte(',');
        }
        try out.print("\"{s}\":{d}", .{ &target.digests.get(part), target.sizes.get(part) });
    }
    try out.print("}},\"weights\":\"{s}\",\"worker\":\"{s}\"}}", .{ &target.digests.get(.weights), &target.digests.get(.worker) });
}

fn lessByName(_: void, a: Target, b: Target) bool {
    return std.mem.order(u8, a.name, b.name) == .lt;
}

fn lessByDigest(target: *const Target, a: Part, b: Part) bool {
    return std.mem.order(u8, &target.digests.get(a), &target.digests.get(b)) == .lt;
}

const testing = std.testing;

/// A well-formed statement over two targets, which share weights.
fn testStatement(arena: Allocator) ![]const u8 {
    var targets: [2]Target = undefined;
    for (&targets, [_][]const u8{ "raspberrypi4", "host" }, 0..) |*target, name, index| {
        target.name = name;
        for (std.enums.values(Part), 0..) |part, number| {
            const digit: u8 = if (part == .weights) 'f' else "0123456789abcdef"[index * 6 + number];
            target.digests.set(part, @splat(digit));
            target.sizes.set(part, 100 + number);
        }
    }
    const statement: Statement = .{
        .name = "demo",
        .version_text = "1.2.3",
        .version = .{ .parts = .{ 1, 2, 3 } },
        .package = @splat('c'),
        .targets = &targets,
    };
    return statement.render(arena);
}

test "a statement is read back as it was written" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    var refusal: Refusal = .{};
    const statement = try Statement.parse(arena.allocator(), &refusal, try testStatement(arena.allocator()));
    try testing.expectEqualStrings("demo", statement.name);
    try testing.expectEqual(2, statement.targets.len);
    try testing.expectEqualStrings("raspberrypi4", statement.targets[0].name);
    try testing.expectEqual(104, statement.find("host").?.sizes.get(.metadata));
    try testing.expectEqual(103, statement.find("host").?.sizeOf(@splat('f')));
    try testing.expectEqual(null, statement.find("other"));
}

test "a statement with any byte changed is refused or says something else" {
    var arena: std.heap.ArenaAllocator = .init(testing.allocator);
    defer arena.deinit();
    const good = try testStatement(arena.allocator());
    var refused: usize = 0;
    for (0..good.len) |position| {
        for ([_]u8{ 0x01, 0x20, 0x80 }) |flip| {
            var each: std.heap.ArenaAllocator = .init(testing.allocator);
            defer each.deinit();
            const bad = try each.allocator().dupe(u8, good);
            bad[position] ^= flip;
            var refusal: Refusal = .{};
            const statement = Statement.parse(each.allocator(), &refusal, bad) catch |err| {
                try testing.expectEqual(error.Refused, err);
                try testing.expectEqual(.statement, refusal.check);
                refused += 1;
                continue;
            };
            try testing.expectEqualStrings(bad, try statement.render(each.allocator()));
        }
    }
    // What is left: a digit of a size or version, a letter of the name, a digest only the subject has.
    try testing.expect(refused > good.len * 2);
    for (0..good.len) |len| {
        var refusal: Refusal = .{};
        try testing.expectError(error.Refused, Statement.parse(arena.allocator(), &refusal, good[0..len]));
    }
}
