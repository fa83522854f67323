"""Packages that are falsified with every digest right again: the form itself must give them away."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from edgepack.errors import PackageError, TrustError
from edgepack.package import attach_envelope, read_package
from edgepack.package.tar import BLOCK
from tests.package_samples import Edit, content, encode, falsify, pack, unpack, write

CONTENT = "blobs/sha256/" + hashlib.sha256(b"stray").hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "whole.epk", "raspberrypi4", "x86-64-v3").path


def refused(path: Path, words: str) -> None:
    with pytest.raises(PackageError, match=words) as caught:
        read_package(path)
    assert caught.value.message.count(str(path)) == 1


def test_falsifying_nothing_gives_the_same_package(whole: Path, tmp_path: Path) -> None:
    same = falsify(whole, tmp_path / "same.epk", model=lambda model: None)
    assert same.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "blobs/sha256/../../x", "blobs/sha512/" + "0" * 64]
)
@pytest.mark.parametrize("place", [0, 1, 2, -1])
def test_an_entry_with_another_name_is_refused_wherever_it_is(
    whole: Path, tmp_path: Path, name: str, place: int
) -> None:
    entries = list(unpack(whole).items())
    entries.insert(place if place >= 0 else len(entries), (name, b"stray"))
    refused(pack(tmp_path / "bad.epk", entries), "does not belong|begins with|64 lower-case")


def test_a_blob_that_nothing_refers_to_is_refused(whole: Path, tmp_path: Path) -> None:
    entries = unpack(whole)
    head = list(entries.items())[:2]
    blobs = sorted([*list(entries.items())[2:], (CONTENT, b"stray")])
    refused(pack(tmp_path / "bad.epk", head + blobs), f"nothing refers to {CONTENT}")


def test_a_blob_that_is_missing_is_named(whole: Path, tmp_path: Path) -> None:
    entries = unpack(whole)
    for name in list(entries)[2:]:
        rest = [(other, data) for other, data in entries.items() if other != name]
        refused(pack(tmp_path / "bad.epk", rest), rf"is missing: {name}")


def test_entries_in_another_order_are_refused(whole: Path, tmp_path: Path) -> None:
    entries = list(unpack(whole).items())
    for i in range(len(entries) - 1):
        swapped = [*entries[:i], entries[i + 1], entries[i], *entries[i + 2 :]]
        refused(pack(tmp_path / "bad.epk", swapped), "begins with|out of order")


def test_an_entry_that_is_there_twice_is_refused(whole: Path, tmp_path: Path) -> None:
    entries = list(unpack(whole).items())
    for i in range(len(entries)):
        doubled = [*entries[: i + 1], entries[i], *entries[i + 1 :]]
        refused(pack(tmp_path / "bad.epk", doubled), "twice|begins with|does not belong")


def test_a_file_cut_at_any_block_is_refused(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    bad = tmp_path / "bad.epk"
    for length in range(0, len(data), BLOCK):
        bad.write_bytes(data[:length])
        refused(bad, "truncated")


@pytest.mark.parametrize("data", [b"\0" * 1024, b"not a tar" * 100, b"PK\x03\x04" + bytes(2000)])
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.epk").write_bytes(data)
    refused(tmp_path / "bad.epk", "header|begins with")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_links_folders_and_devices_are_refused(whole: Path, tmp_path: Path, kind: bytes) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
        info.type, info.linkname = kind, "/etc/passwd" if kind in (b"1", b"2") else ""
        tar.addfile(info)
    data = whole.read_bytes()
    (tmp_path / "bad.epk").write_bytes(data[: -2 * BLOCK] + stream.getvalue()[:BLOCK] + bytes(1024))
    refused(tmp_path / "bad.epk", "is not the canonical one of a regular file")


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_the_same_files_in_a_tar_by_another_program_are_refused(
    whole: Path, tmp_path: Path, kind: int
) -> None:
    with tarfile.open(tmp_path / "bad.epk", "w", format=kind) as tar:
        for name, data in unpack(whole).items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5 if kind == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(data))
    refused(tmp_path / "bad.epk", "is not the canonical one")


@pytest.mark.parametrize(
    "layout", [b'{"imageLayoutVersion":"1.0.1"}', b'{"imageLayoutVersion":"1.0.0"}\n', b"{}", b""]
)
def test_another_oci_layout_file_is_refused(whole: Path, tmp_path: Path, layout: bytes) -> None:
    entries = unpack(whole) | {"oci-layout": layout}
    refused(pack(tmp_path / "bad.epk", entries.items()), "oci-layout is")


def put(**changes: Any) -> Edit:
    return lambda document: document | changes


def first_line(**changes: Any) -> Edit:
    def edit(index: dict[str, Any]) -> None:
        index["manifests"][0] |= changes

    return edit


def layer(number: int, **changes: Any) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["layers"][number] |= changes

    return edit


def within(key: str, **changes: Any) -> Edit:
    return lambda document: document | {key: document[key] | changes}


def spaced(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def doubled(document: dict[str, Any]) -> bytes:
    return encode(document).replace(b'"schemaVersion":2', b'"schemaVersion":1,"schemaVersion":2')


FALSE: dict[str, tuple[dict[str, Edit], str]] = {
    "root-spaced": ({"root": spaced}, "index.json is not in canonical form"),
    "root-doubled": ({"root": doubled}, "twice"),
    "root-annotated": ({"root": put(annotations={"a": "b"})}, "plain reference"),
    "root-two": ({"root": lambda r: r | {"manifests": r["manifests"] * 2}}, "exactly one"),
    "root-none": ({"root": put(manifests=[])}, "exactly one"),
    "root-type": ({"root": first_line(mediaType="x/y")}, "plain reference"),
    "root-size": ({"root": first_line(size=1)}, "package index is .* bytes, not 1"),
    "root-digest": ({"root": first_line(digest="sha256:" + "0" * 64)}, "package index is missing"),
    "root-digest-form": ({"root": first_line(digest="md5:0")}, "not a sha256 digest"),
    "root-float": ({"root": put(schemaVersion=2.0)}, "schemaVersion is not an integer"),
    "index-spaced": ({"index": spaced}, "package index is not in canonical form"),
    "index-doubled": ({"index": doubled}, "twice"),
    "index-not-json": ({"index": lambda _: b"\xff"}, "package index is not JSON"),
    "index-unknown": ({"index": put(extra=1)}, "unknown key 'extra'"),
    "index-empty": ({"index": put(manifests=[])}, "1 to 64 targets|nothing refers"),
    "index-name": (
        {"index": within("annotations", **{"org.opencontainers.image.title": "A"})},
        "name",
    ),
    "index-other-name": (
        {"index": within("annotations", **{"org.opencontainers.image.title": "other"})},
        "about another name",
    ),
    "index-version": (
        {"index": within("annotations", **{"org.opencontainers.image.version": "1.2"})},
        "is not a version",
    ),
    "index-other-version": (
        {"index": within("annotations", **{"org.opencontainers.image.version": "9.0.0"})},
        "about another name",
    ),
    "index-annotations": ({"index": within("annotations", more="x")}, "other annotations"),
    "index-twice": ({"index": lambda i: i | {"manifests": i["manifests"][:1] * 2}}, "one name"),
    "index-many": ({"index": lambda i: i | {"manifests": i["manifests"] * 33}}, "1 to 64 targets"),
    "line-size": ({"index": first_line(size=7)}, "manifest is .* bytes, not 7"),
    "line-negative": ({"index": first_line(size=-1)}, "not within"),
    "line-large": ({"index": first_line(size=8**11)}, "not within"),
    "line-true": ({"index": first_line(size=True)}, "not an integer"),
    "line-target": ({"index": first_line(annotations={"edgepack.target": "pi"})}, "not one of"),
    "line-unnamed": ({"index": first_line(annotations={"a": "b"})}, "without a valid name"),
    "line-more": (
        {"index": first_line(annotations={"edgepack.target": "raspberrypi4", "a": "b"})},
        "not stated as it should",
    ),
    "line-platform": ({"index": first_line(platform={"os": "linux"})}, "unknown key 'platform'"),
    "line-urls": ({"index": first_line(urls=["http://x"])}, "unknown key 'urls'"),
    "line-type": ({"index": first_line(mediaType="x/y")}, "not stated as it should"),
    "line-artifact": ({"index": first_line(artifactType="x/y")}, "unknown key .artifactType."),
    "manifest-spaced": ({"manifest": spaced}, "not in canonical form"),
    "manifest-doubled": ({"manifest": doubled}, "twice"),
    "manifest-unknown": ({"manifest": put(subject={})}, "unknown key 'subject'"),
    "manifest-type": ({"manifest": put(mediaType="x/y")}, "mediaType is not"),
    "manifest-artifact": ({"manifest": put(artifactType="x/y")}, "not one of a package's target"),
    "manifest-target": (
        {"manifest": put(annotations={"edgepack.target": "x86-64-v3"})},
        "not one of a package's target",
    ),
    "manifest-more-layers": (
        {"manifest": lambda m: m | {"layers": [*m["layers"], m["layers"][0]]}},
        "has 5 layers",
    ),
    "manifest-no-layers": ({"manifest": put(layers=[])}, "has 0 layers"),
    "manifest-order": (
        {"manifest": lambda m: m | {"layers": m["layers"][::-1]}},
        "not one of a package's target",
    ),
    "layer-size": ({"manifest": layer(1, size=3)}, "weights is .* bytes, not 3"),
    "layer-type": ({"manifest": layer(0, mediaType="x/y")}, "not one of a package's target"),
    "layer-title": (
        {"manifest": layer(0, annotations={"org.opencontainers.image.title": "../worker"})},
        "not one of a package's target",
    ),
    "layer-digest": ({"manifest": layer(3, digest="sha256:" + "A" * 64)}, "64 lower-case"),
    "layer-annotations": ({"manifest": layer(0, annotations={})}, "annotations is empty"),
    "config-arch": ({"config": put(architecture="amd64")}, "image config does not agree"),
    "config-labels": ({"config": put(config={"Labels": {}})}, "image config does not agree"),
    "config-command": (
        {"config": within("config", Cmd=["/bin/sh"])},
        "image config does not agree",
    ),
    "config-spaced": ({"config": spaced}, "image config does not agree"),
    "model-spaced": ({"model": spaced}, "not in canonical form"),
    "model-unknown": ({"model": put(extra=1)}, "unknown key 'extra'"),
    "model-lacks": ({"model": lambda m: {k: m[k] for k in m if k != "golden"}}, "lacks 'golden'"),
    "model-format": ({"model": put(format=2)}, "format is 2"),
    "model-name": ({"model": put(name="other")}, "about another name"),
    "model-version": ({"model": put(version="1.2.1")}, "about another name"),
    "model-target": ({"model": within("target", name="raspberrypi5")}, "about another name"),
    "model-no-target": ({"model": put(target=[])}, "target is not an object"),
    "model-arch": ({"model": within("target", arch="sparc")}, "none of x86_64"),
    "model-other-arch": ({"model": within("target", arch="arm")}, "image config does not agree"),
    "model-weights": ({"model": put(weights_bytes=1)}, "states 1 bytes of weights"),
    "model-count": ({"model": put(golden={"count": 1})}, "golden.bin holds 2 vectors"),
    "model-no-count": ({"model": put(golden={"count": 0})}, "count is 0"),
    "model-shape": (
        {"model": put(inputs=[{"name": "x", "dtype": "float32", "shape": [1, 300]}])},
        "golden.bin is",
    ),
    "model-dtype": (
        {"model": put(inputs=[{"name": "x", "dtype": "complex64", "shape": [1, 3]}])},
        "none of bool",
    ),
    "model-tolerance": ({"model": put(tolerance=2)}, "tolerance"),
    "model-text": ({"model": put(arena_bytes="1")}, "not an integer"),
    "model-check": ({"model": within("check", vectors=-1)}, "check.vectors is -1"),
    "model-large": ({"model": put(tools={"a": "x" * (4 << 20)})}, "over 4194304"),
    "index-large": ({"index": put(annotations={"a": "x" * (4 << 20)})}, "over 4194304"),
}


@pytest.mark.parametrize("case", FALSE)
def test_a_falsified_document_is_refused_and_named(whole: Path, tmp_path: Path, case: str) -> None:
    edits, words = FALSE[case]
    refused(falsify(whole, tmp_path / "bad.epk", **edits), words)


def test_blobs_of_more_targets_than_the_limit_are_refused(whole: Path, tmp_path: Path) -> None:
    def many(index: dict[str, Any]) -> None:
        line = index["manifests"][0]
        index["manifests"] = [
            line | {"annotations": {"edgepack.target": f"t{i}"}} for i in range(65)
        ]

    refused(falsify(whole, tmp_path / "bad.epk", index=many), "1 to 64 targets")


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"signature": put(artifactType="x/y")}, "does not hold exactly one envelope"),
        ({"signature": put(layers=[])}, "not exactly one layer"),
        ({"signature": layer(0, mediaType="x/y")}, "does not hold exactly one envelope"),
        ({"signature": layer(0, annotations={"a": "b"})}, "does not hold exactly one envelope"),
        ({"signature": put(annotations={"a": "b"})}, "does not hold exactly one envelope"),
        ({"index": lambda i: i | {"manifests": i["manifests"][::-1]}}, "not one line at the end"),
        (
            {"index": lambda i: i | {"manifests": [*i["manifests"], i["manifests"][-1]]}},
            "not one line at the end",
        ),
        (
            {"index": lambda i: i["manifests"][-1]["annotations"].update(a="b")},
            "not stated as it should",
        ),
        ({"index": lambda i: i["manifests"][-1].update(artifactType="x/y")}, "unknown key"),
    ],
)
def test_a_signature_in_another_form_is_refused(
    tmp_path: Path, edits: dict[str, Edit], words: str
) -> None:
    package = attach_envelope(write(tmp_path / "a.epk"), b"envelope")
    refused(falsify(package.path, tmp_path / "bad.epk", **edits), words)


def test_a_golden_header_of_another_kind_is_refused(whole: Path, tmp_path: Path) -> None:
    package = read_package(whole)
    target = package.targets[0]
    old = "blobs/sha256/" + target.golden[7:]
    data = unpack(whole)[old]
    cases = {
        b"EPGV0002" + data[8:]: "does not begin with EPGV0001",
        data[:12] + b"x" + data[13:]: "not zero after the count",
        data[:8] + b"\x03" + data[9:]: "3 vectors of this model take",
        data[:-64]: "2 vectors of this model take",
        data + bytes(64): "2 vectors of this model take",
        data[:63]: "does not begin with EPGV0001",
        b"": "does not begin with EPGV0001",
    }
    for changed, words in cases.items():
        digest = "sha256:" + hashlib.sha256(changed).hexdigest()
        stage = pack(tmp_path / "stage.epk", _with_blob(unpack(whole), changed))

        def point(manifest: dict[str, Any], to: str = digest, size: int = len(changed)) -> None:
            manifest["layers"][3] |= {"digest": to, "size": size}

        refused(falsify(stage, tmp_path / "bad.epk", layers=point), words)


def _with_blob(entries: dict[str, bytes], data: bytes) -> list[tuple[str, bytes]]:
    entries["blobs/sha256/" + hashlib.sha256(data).hexdigest()] = data
    head = [(name, entries.pop(name)) for name in ("oci-layout", "index.json")]
    return head + sorted(entries.items())


def test_the_content_of_a_blob_that_changed_is_a_digest_error_before_anything_else(
    whole: Path, tmp_path: Path
) -> None:
    weights = content().weights
    data = whole.read_bytes().replace(weights, b"X" + weights[1:])
    (tmp_path / "bad.epk").write_bytes(data)
    with pytest.raises(TrustError, match=hashlib.sha256(weights).hexdigest()) as caught:
        read_package(tmp_path / "bad.epk")
    assert (caught.value.check, caught.value.exit_code) == ("digest", 8)
    assert caught.value.hint
