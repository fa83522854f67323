//! From bytes to something that may be installed: the same checks, in the same order and by the same
//! names, as edgepack/trust/verify.py makes.
//!
//! Only the functions here make a Verified, so whatever takes one knows that a trusted key signed for
//! every digest and size in it.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const Envelope = @import("envelope.zig").Envelope;
const PublicKey = @import("keys.zig").PublicKey;
const naming = @import("naming.zig");
const Hex = naming.Hex;
const oci = @import("oci.zig");
const Package = @import("package.zig").Package;
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const statements = @import("statement.zig");
const Statement = statements.Statement;
const Store = @import("store.zig").Store;

/// What a trusted key signed: one model, one version, and for this device's target its blobs.
pub const Verified = struct {
    statement: Statement,
    target: *const statements.Target,
    envelope: []const u8,
    envelope_digest: Hex,
};

/// A signed pointer alone, as a pull source has it; the blobs are checked as they come.
pub fn pointer(arena: Allocator, refusal: *Refusal, keys: []const PublicKey, target: []const u8, bytes: []const u8) refusals.Error!Verified {
    return verified(refusal, target, bytes, try signed(arena, refusal, keys, bytes));
}

/// A package that Package.open() took; `store` has what a thin one lacks.
pub fn package(
    arena: Allocator,
    io: Io,
    refusal: *Refusal,
    keys: []const PublicKey,
    target: []const u8,
    opened: *const Package,
    store: *Store,
) refusals.Error!Verified {
    const signature = try opened.envelope(arena, io, refusal, store);
    const statement = try signed(arena, refusal, keys, signature.bytes);
    try compare(arena, refusal, opened, statement);
    try compareBlobs(refusal, opened, signature.of.digest, statement);
    return verified(refusal, target, signature.bytes, statement);
}

/// The statement in an envelope, signed by a trusted key and true in itself: its manifests are made
/// again from the digests and sizes that it gives, and must have the digests that it gives for them.
fn signed(arena: Allocator, refusal: *Refusal, keys: []const PublicKey, bytes: []const u8) refusals.Error!Statement {
    const envelope: Envelope = try .parse(arena, refusal, bytes);
    try envelope.verify(arena, refusal, keys);
    const statement: Statement = try .parse(arena, refusal, envelope.payload);
    for (statement.targets) |*target| {
        const manifest = try oci.targetManifest(arena, target);
        const digest = target.digests.get(.manifest);
        if (!std.mem.eql(u8, &digest, &naming.sha256Hex(manifest)) or target.sizes.get(.manifest) != manifest.len) {
            return refusal.because(.statement, "the manifest of {s} does not hold the blobs that were signed", .{target.name});
        }
    }
    return statement;
}

fn verified(refusal: *Refusal, target: []const u8, bytes: []const u8, statement: Statement) error{Refused}!Verified {
    return .{
        .statement = statement,
        .target = statement.find(target) orelse return noTarget(refusal, statement, target),
        .envelope = bytes,
        .envelope_digest = naming.sha256Hex(bytes),
    };
}

/// The package index says what the statement says.
fn compare(arena: Allocator, refusal: *Refusal, opened: *const Package, statement: Statement) refusals.Error!void {
    const index = opened.index;
    if (!std.mem.eql(u8, index.name, statement.name)) {
        return refusal.because(.statement, "the package is {s}, signed was {s}", .{ index.name, statement.name });
    }
    if (!std.mem.eql(u8, index.version, statement.version_text)) {
        return refusal.because(.statement, "the package is version {s}, signed was {s}", .{ index.version, statement.version_text });
    }
    if (index.targets.len != statement.targets.len) {
        return refusal.because(.statement, "the package has {d} targets, signed were {d}", .{ index.targets.len, statement.targets.len });
    }
    for (index.targets, statement.targets) |line, *stated| {
        const same = std.mem.eql(u8, line.name, stated.name) and
            std.mem.eql(u8, &line.manifest.digest, &stated.digests.get(.manifest)) and
            line.manifest.size == stated.sizes.get(.manifest);
        if (!same) return refusal.because(.statement, "target {s} is not what was signed", .{line.name});
    }
    if (!std.mem.eql(u8, &try opened.unsignedDigest(arena), &statement.package)) {
        return refusal.because(.statement, "the package's digest is not the one that was signed", .{});
    }
}

/// Every blob is one that something refers to, with the size that is signed.
fn compareBlobs(refusal: *Refusal, opened: *const Package, envelope_digest: Hex, statement: Statement) error{Refused}!void {
    const unsigned = [_]Hex{ opened.index_digest, opened.index.signature.?.digest, envelope_digest, naming.sha256Hex(oci.empty_config) };
    for (opened.blobs) |entry| {
        const hex = entry.name[0..64].*;
        const size = for (statement.targets) |*target| {
            if (target.sizeOf(hex)) |size| break size;
        } else for (unsigned) |each| {
            if (std.mem.eql(u8, &each, &hex)) break entry.size; // compared where it was read
        } else return refusal.because(.package, "nothing refers to blob {s}", .{entry.name});
        if (size != entry.size) {
            return refusal.because(.statement, "blob {s} has {d} bytes, signed were {d}", .{ entry.name, entry.size, size });
        }
    }
}

fn noTarget(refusal: *Refusal, statement: Statement, target: []const u8) error{Refused} {
    var buffer: [256]u8 = undefined;
    var names: Io.Writer = .fixed(&buffer);
    for (statement.targets, 0..) |each, index| {
        names.print("{s}{s}", .{ if (index == 0) "" else ", ", each.name }) catch break;
    }
    return refusal.because(.target, "the package is for {s}; this device is {s}", .{ names.buffered(), target });
}
