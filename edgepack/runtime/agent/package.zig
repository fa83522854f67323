//! An .epk file, opened and checked as far as its own form goes: every blob has its digest and its
//! place. Who signed it, and whether what was signed is what is here, verify.zig asks next.
//!
//!     oci-layout → index.json → package index → target manifests (compared by verify.zig)
//!                                             → signature manifest → envelope
//!
//! A thin package, as it travels over SSH, lacks blobs that the device has already and those of other
//! targets. The package index is always there.

const std = @import("std");
const Io = std.Io;
const Allocator = std.mem.Allocator;
const Blob = @import("blob.zig").Blob;
const document = @import("document.zig");
const naming = @import("naming.zig");
const Hex = naming.Hex;
const oci = @import("oci.zig");
const refusals = @import("refusal.zig");
const Refusal = refusals.Refusal;
const statements = @import("statement.zig");
const Store = @import("store.zig").Store;
const tar = @import("tar.zig");

const blob_prefix = "blobs/sha256/";

pub const Package = struct {
    file: Io.File,
    /// Sorted by digest; the name is the digest's 64 digits.
    blobs: []const tar.Entry,
    index_digest: Hex,
    index: oci.PackageIndex,

    pub fn open(arena: Allocator, io: Io, refusal: *Refusal, path: []const u8) refusals.Error!Package {
        const file = Io.Dir.cwd().openFile(io, path, .{ .allow_directory = false }) catch |err|
            return refusal.because(.package, "cannot open {s}: {t}", .{ path, err });
        errdefer file.close(io);
        const entries = try tar.scan(arena, io, refusal, file);
        try checkNames(refusal, entries);
        var package: Package = .{ .file = file, .blobs = entries[2..], .index_digest = undefined, .index = undefined };
        for (package.blobs) |entry| {
            var blob = package.blobAt(entry);
            try blob.check(io, refusal);
        }
        try package.readIndex(arena, io, refusal, entries);
        return package;
    }

    pub fn close(self: *const Package, io: Io) void {
        self.file.close(io);
    }

    /// A blob of the package; null where it is left out.
    pub fn find(self: *const Package, hex: Hex) ?Blob {
        const at = std.sort.binarySearch(tar.Entry, self.blobs, hex, orderOf) orelse return null;
        return self.blobAt(self.blobs[at]);
    }

    fn blobAt(self: *const Package, entry: tar.Entry) Blob {
        return .{
            .hex = entry.name[0..64].*,
            .size = entry.size,
            .from = .{ .file = .{ .file = self.file, .offset = entry.offset, .owned = false } },
        };
    }

    fn readIndex(self: *Package, arena: Allocator, io: Io, refusal: *Refusal, entries: []const tar.Entry) refusals.Error!void {
        if (!std.mem.eql(u8, try self.plain(arena, io, refusal, entries[0]), oci.layout)) {
            return refusal.because(.package, "oci-layout is not {s}", .{oci.layout});
        }
        const root_bytes = try self.plain(arena, io, refusal, entries[1]);
        const doc: document.Document = .{ .refusal = refusal, .check = .package, .title = "index.json" };
        const manifests = try doc.array(try doc.parse(arena, root_bytes), "manifests", 1);
        if (manifests.len != 1) return doc.malformed("it does not name one package index", .{});
        const root = try parseDescriptor(doc, try doc.asObject(manifests[0], "manifests"), oci.index_type);
        if (!std.mem.eql(u8, root_bytes, try oci.rootIndex(arena, root))) return doc.malformed("not in canonical form", .{});
        self.index_digest = root.digest;
        self.index = try parseIndex(arena, refusal, try self.smallBlob(arena, io, refusal, null, root, "the package index"));
    }

    /// An entry that is no blob.
    fn plain(self: *const Package, arena: Allocator, io: Io, refusal: *Refusal, entry: tar.Entry) refusals.Error![]const u8 {
        if (entry.size > document.max_bytes) return refusal.because(.package, "{s} is too large", .{entry.name});
        const bytes = try arena.alloc(u8, @intCast(entry.size));
        const count = self.file.readPositionalAll(io, bytes, entry.offset) catch |err|
            return refusal.because(.package, "cannot read {s}: {t}", .{ entry.name, err });
        if (count != bytes.len) return refusal.because(.package, "truncated within {s}", .{entry.name});
        return bytes;
    }

    /// A blob that is a JSON document: out of the package, or where it lacks it, out of `store`.
    fn smallBlob(
        self: *const Package,
        arena: Allocator,
        io: Io,
        refusal: *Refusal,
        store: ?*Store,
        of: oci.Descriptor,
        title: []const u8,
    ) refusals.Error![]const u8 {
        if (of.size > document.max_bytes) return refusal.because(.package, "{s} is too large", .{title});
        var blob = self.find(of.digest) orelse found: {
            const kept = if (store) |it| try it.find(of.digest, of.size) else null;
            break :found kept orelse return refusal.because(.package, "{s} is not in the package", .{title});
        };
        defer blob.close(io);
        if (blob.size != of.size) return refusal.because(.package, "{s} has {d} bytes, not {d}", .{ title, blob.size, of.size });
        return blob.readAll(arena, io, refusal);
    }

    /// The envelope's bytes; a package without a signature is refused.
    pub fn envelope(self: *const Package, arena: Allocator, io: Io, refusal: *Refusal, store: *Store) refusals.Error!EnvelopeBlob {
        const signature = self.index.signature orelse return refusal.because(.signature, "the package is not signed", .{});
        const manifest = try self.smallBlob(arena, io, refusal, store, signature, "the signature manifest");
        const doc: document.Document = .{ .refusal = refusal, .check = .package, .title = "the signature manifest" };
        const layers = try doc.array(try doc.parse(arena, manifest), "layers", 1);
        if (layers.len != 1) return doc.malformed("not one layer", .{});
        const of = try parseDescriptor(doc, try doc.asObject(layers[0], "layers"), oci.envelope_type);
        if (!std.mem.eql(u8, manifest, try oci.signatureManifest(arena, of))) return doc.malformed("not in canonical form", .{});
        return .{ .of = of, .bytes = try self.smallBlob(arena, io, refusal, store, of, "the envelope") };
    }

    /// The digest that the statement calls the package's: of the package index without the signature.
    pub fn unsignedDigest(self: *const Package, arena: Allocator) error{OutOfMemory}!Hex {
        var unsigned = self.index;
        unsigned.signature = null;
        return naming.sha256Hex(try unsigned.render(arena));
    }
};

pub const EnvelopeBlob = struct { of: oci.Descriptor, bytes: []const u8 };

/// oci-layout, index.json, then blobs in the order of their digests, each once; nothing else.
fn checkNames(refusal: *Refusal, entries: []tar.Entry) error{Refused}!void {
    if (entries.len < 3 or !std.mem.eql(u8, entries[0].name, "oci-layout") or !std.mem.eql(u8, entries[1].name, "index.json")) {
        return refusal.because(.package, "it does not begin with oci-layout, index.json and a blob", .{});
    }
    for (entries[2..], 2..) |*entry, index| {
        const named = std.mem.startsWith(u8, entry.name, blob_prefix);
        if (!named or naming.parseHex(entry.name[blob_prefix.len..]) == null) {
            return refusal.because(.package, "{s} does not belong in a package", .{entry.name});
        }
        entry.name = entry.name[blob_prefix.len..];
        if (index > 2 and std.mem.order(u8, entries[index - 1].name, entry.name) != .lt) {
            return refusal.because(.package, "blob {s} is there twice or out of order", .{entry.name});
        }
    }
}

fn orderOf(hex: Hex, entry: tar.Entry) std.math.Order {
    return std.mem.order(u8, &hex, entry.name);
}

fn parseDescriptor(doc: document.Document, object: document.Object, media_type: []const u8) refusals.Error!oci.Descriptor {
    try doc.exactly(object, "mediaType", media_type);
    const digest = try doc.string(object, "digest", 71);
    if (!std.mem.startsWith(u8, digest, "sha256:")) return doc.malformed("a digest that is not sha256", .{});
    return .{
        .digest = naming.parseHex(digest["sha256:".len..]) orelse return doc.malformed("a digest that is not 64 digits", .{}),
        .size = try doc.integer(object, "size", statements.max_blob_bytes),
    };
}

pub fn parseIndex(arena: Allocator, refusal: *Refusal, bytes: []const u8) refusals.Error!oci.PackageIndex {
    const doc: document.Document = .{ .refusal = refusal, .check = .package, .title = "the package index" };
    const root = try doc.parse(arena, bytes);
    const annotations = try doc.objectField(root, "annotations");
    var index: oci.PackageIndex = .{
        .name = try doc.string(annotations, "org.opencontainers.image.title", 64),
        .version = try doc.string(annotations, "org.opencontainers.image.version", 32),
        .targets = &.{},
        .signature = null,
    };
    if (!naming.isName(index.name)) return doc.malformed("bad name", .{});
    if (naming.Version.parse(index.version) == null) return doc.malformed("bad version", .{});
    const manifests = try doc.array(root, "manifests", statements.max_targets + 1);
    const targets = try arena.alloc(oci.TargetLine, manifests.len);
    var count: usize = 0;
    for (manifests) |value| {
        const object = try doc.asObject(value, "manifests");
        const line = try parseDescriptor(doc, object, oci.manifest_type);
        const notes = try doc.objectField(object, "annotations");
        if (notes.get("edgepack.signature") != null) {
            if (index.signature != null) return doc.malformed("two signatures", .{});
            index.signature = line;
            continue;
        }
        const name = try doc.string(notes, "edgepack.target", 64);
        if (!naming.isName(name)) return doc.malformed("bad name of a target", .{});
        for (targets[0..count]) |earlier| {
            if (std.mem.eql(u8, earlier.name, name)) return doc.malformed("target {s} is there twice", .{name});
        }
        targets[count] = .{ .name = name, .manifest = line };
        count += 1;
    }
    if (count == 0 or count > statements.max_targets) return doc.malformed("not 1 to {d} targets", .{statements.max_targets});
    index.targets = targets[0..count];
    if (!std.mem.eql(u8, bytes, try index.render(arena))) return doc.malformed("not in canonical form", .{});
    return index;
}
