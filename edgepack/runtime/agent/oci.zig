//! The OCI documents of a package, written from what they must say; the counterpart of
//! edgepack/package/layout.py and oci.py.
//!
//! The agent compares bytes with these, rather than believing what a document says of itself. All
//! names have passed naming.isName() and digests are hexadecimal, so nothing needs escaping.

const std = @import("std");
const Allocator = std.mem.Allocator;
const naming = @import("naming.zig");
const Hex = naming.Hex;
const Target = @import("statement.zig").Target;
const Part = @import("statement.zig").Part;

pub const layout = "{\"imageLayoutVersion\":\"1.0.0\"}";
pub const empty_config = "{}";
pub const index_type = "application/vnd.oci.image.index.v1+json";
pub const manifest_type = "application/vnd.oci.image.manifest.v1+json";
pub const envelope_type = "application/vnd.dsse.envelope.v1+json";
const signature_type = "application/vnd.edgepack.signature.v1";
const title_key = "org.opencontainers.image.title";
const version_key = "org.opencontainers.image.version";

/// A blob that a document refers to.
pub const Descriptor = struct { digest: Hex, size: u64 };

pub const TargetLine = struct { name: []const u8, manifest: Descriptor };

/// The package index, of which there is one in a package.
pub const PackageIndex = struct {
    name: []const u8,
    version: []const u8,
    targets: []const TargetLine,
    signature: ?Descriptor,

    pub fn render(self: PackageIndex, arena: Allocator) error{OutOfMemory}![]const u8 {
        var out: std.Io.Writer.Allocating = .init(arena);
        self.write(&out.writer) catch return error.OutOfMemory;
        return out.written();
    }

    fn write(self: PackageIndex, out: *std.Io.Writer) std.Io.Writer.Error!void {
        try out.print("{{\"annotations\":{{\"" ++ title_key ++ "\":\"{s}\",\"" ++ version_key ++ "\":\"{s}\"}},\"manifests\":[", .{ self.name, self.version });
        for (self.targets, 0..) |line, index| {
            if (index > 0) try out.writeByte(',');
            try out.print("{{\"annotations\":{{\"edgepack.target\":\"{s}\"}},", .{line.name});
            try writeDescriptor(out, line.manifest, manifest_type);
        }
        if (self.signature) |signature| {
            if (self.targets.len > 0) try out.writeByte(',');
            try out.writeAll("{\"annotations\":{\"edgepack.signature\":\"dsse\"},");
            try writeDescriptor(out, signature, manifest_type);
        }
        try out.writeAll("],\"mediaType\":\"" ++ index_type ++ "\",\"schemaVersion\":2}");
    }
};

/// index.json
pub fn rootIndex(arena: Allocator, package_index: Descriptor) error{OutOfMemory}![]const u8 {
    return std.fmt.allocPrint(arena, "{{\"manifests\":[{{\"digest\":\"sha256:{s}\",\"mediaType\":\"" ++ index_type ++
        "\",\"size\":{d}}}],\"mediaType\":\"" ++ index_type ++ "\",\"schemaVersion\":2}}", .{ &package_index.digest, package_index.size });
}

pub fn signatureManifest(arena: Allocator, envelope: Descriptor) error{OutOfMemory}![]const u8 {
    return std.fmt.allocPrint(arena, "{{\"artifactType\":\"" ++ signature_type ++
        "\",\"config\":{{\"digest\":\"sha256:{s}\",\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"size\":2}}," ++
        "\"layers\":[{{\"digest\":\"sha256:{s}\",\"mediaType\":\"" ++ envelope_type ++ "\",\"size\":{d}}}]," ++
        "\"mediaType\":\"" ++ manifest_type ++ "\",\"schemaVersion\":2}}", .{ &naming.sha256Hex(empty_config), &envelope.digest, envelope.size });
}

const Layer = struct { part: Part, title: []const u8, media_type: []const u8 };

const layers = [_]Layer{
    .{ .part = .worker, .title = "worker", .media_type = "application/vnd.edgepack.worker.v1" },
    .{ .part = .weights, .title = "weights.bin", .media_type = "application/vnd.edgepack.weights.v1" },
    .{ .part = .metadata, .title = "model.json", .media_type = "application/vnd.edgepack.metadata.v1+json" },
    .{ .part = .golden, .title = "golden.bin", .media_type = "application/vnd.edgepack.golden.v1" },
};

pub fn targetManifest(arena: Allocator, target: *const Target) error{OutOfMemory}![]const u8 {
    var out: std.Io.Writer.Allocating = .init(arena);
    writeTargetManifest(&out.writer, target) catch return error.OutOfMemory;
    return out.written();
}

fn writeTargetManifest(out: *std.Io.Writer, target: *const Target) std.Io.Writer.Error!void {
    try out.print("{{\"annotations\":{{\"edgepack.target\":\"{s}\"}},\"artifactType\":\"application/vnd.edgepack.model.v1\",\"config\":{{", .{target.name});
    try writeDescriptor(out, .{ .digest = target.digests.get(.config), .size = target.sizes.get(.config) }, "application/vnd.oci.image.config.v1+json");
    try out.writeAll(",\"layers\":[");
    for (layers, 0..) |layer, index| {
        if (index > 0) try out.writeByte(',');
        try out.print("{{\"annotations\":{{\"" ++ title_key ++ "\":\"{s}\"}},", .{layer.title});
        try writeDescriptor(out, .{ .digest = target.digests.get(layer.part), .size = target.sizes.get(layer.part) }, layer.media_type);
    }
    try out.writeAll("],\"mediaType\":\"" ++ manifest_type ++ "\",\"schemaVersion\":2}");
}

/// The rest of an object that the caller began.
fn writeDescriptor(out: *std.Io.Writer, descriptor: Descriptor, media_type: []const u8) std.Io.Writer.Error!void {
    try out.print("\"digest\":\"sha256:{s}\",\"mediaType\":\"{s}\",\"size\":{d}}}", .{ &descriptor.digest, media_type, descriptor.size });
}
