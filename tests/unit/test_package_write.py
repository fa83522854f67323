from __future__ import annotations

import hashlib
import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.artefacts import CheckResult, GoldenVectors, KernelInfo, TensorSpec
from edgepack.baseline import measure_baseline
from edgepack.errors import ConfigError, EdgepackError, PackageError, TrustError
from edgepack.package import (
    attach_envelope,
    extract_blob,
    open_blob,
    read_blob,
    read_golden,
    read_package,
    write_package,
    write_thin,
)
from tests.package_samples import CALLS, INPUTS, OUTPUTS, content, golden, unpack, write


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first = write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3")
    old_mask = os.umask(0o077)
    try:
        second = write(tmp_path / "elsewhere" / "b.epk", "raspberrypi4", "x86-64-v3")
    finally:
        os.umask(old_mask)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.digest == second.digest


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3")
    assert read_package(package.path) == package
    assert (package.name, package.version, package.envelope) == ("demo", "1.2.0", None)
    pi, pc = package.targets
    assert [pi.name, pi.arch, pc.name, pc.arch] == [
        "raspberrypi4",
        "aarch64",
        "x86-64-v3",
        "x86_64",
    ]
    assert pi.inputs == INPUTS
    given = content("raspberrypi4")
    assert read_blob(package, pi.worker) == given.worker
    assert read_blob(package, pi.weights) == given.weights
    assert pi.model["target"] == given.target.to_dict()
    assert pi.model["check"] == given.check.to_dict()
    assert pi.model["tools"] == given.tools
    assert pi.calls == given.calls == CALLS
    assert len(pi.model["kernels"]) == 2, "each kernel once"
    assert pi.model["calls"] == [0, 1, 0]
    assert pi.sizes[pi.weights] == pi.model["weights_bytes"] == len(given.weights)


def test_targets_share_a_blob_that_is_the_same(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3")
    assert package.targets[0].weights == package.targets[1].weights
    entries = unpack(package.path)
    assert list(entries.values()).count(content().weights) == 1


def test_the_entries_are_an_oci_layout_in_order(tmp_path: Path) -> None:
    entries = unpack(write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3").path)
    names = list(entries)
    assert names[:2] == ["oci-layout", "index.json"]
    assert names[2:] == sorted(names[2:])
    assert json.loads(entries["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for name, data in list(entries.items())[2:]:
        assert name == "blobs/sha256/" + hashlib.sha256(data).hexdigest()
    root = json.loads(entries["index.json"])
    assert root["schemaVersion"] == 2
    index = json.loads(entries["blobs/sha256/" + root["manifests"][0]["digest"][7:]])
    assert index["annotations"]["org.opencontainers.image.version"] == "1.2.0"
    assert [m["annotations"]["edgepack.target"] for m in index["manifests"]] == [
        "raspberrypi4",
        "x86-64-v3",
    ]


def test_the_order_of_targets_is_the_one_given(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk", "x86-64-v3", "raspberrypi4")
    assert [target.name for target in package.targets] == ["x86-64-v3", "raspberrypi4"]


def test_signing_changes_the_file_but_not_the_digest(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    before = package.path.read_bytes()
    signed = attach_envelope(package, b"an envelope", tmp_path / "signed.epk")
    assert package.path.read_bytes() == before
    assert signed.digest == package.digest
    assert read_package(signed.path) == signed
    assert signed.envelope == b"an envelope"


def test_another_envelope_leaves_nothing_of_the_former(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk", "raspberrypi4", "x86-64-v3")
    direct = attach_envelope(package, b"second", tmp_path / "direct.epk")
    twice = attach_envelope(attach_envelope(package, b"first"), b"second")
    assert twice.path == package.path
    assert twice.path.read_bytes() == direct.path.read_bytes()


def test_an_envelope_over_four_mebibytes_is_refused(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    before = package.path.read_bytes()
    with pytest.raises(PackageError, match="over 4 MiB"):
        attach_envelope(package, bytes(4 * 1024 * 1024 + 1))
    assert package.path.read_bytes() == before


def test_a_blob_that_is_damaged_while_signing_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    data = package.path.read_bytes()
    damaged = data.replace(content().weights, b"W" + content().weights[1:])
    package.path.write_bytes(damaged)
    with pytest.raises(TrustError) as caught:
        attach_envelope(package, b"envelope")
    assert caught.value.check == "digest"
    assert package.path.read_bytes() == damaged
    assert os.listdir(tmp_path) == ["a.epk"]


def test_another_package_at_the_same_path_is_not_signed(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    write(tmp_path / "a.epk", version="9.0.0")
    with pytest.raises(PackageError, match="not the package that was read"):
        attach_envelope(package, b"envelope")


@pytest.mark.parametrize("broken", [{"golden": 3}, {"worker": 3}, {"check": None}])
def test_a_failure_while_writing_leaves_the_old_file_and_no_other(
    tmp_path: Path, broken: dict[str, Any]
) -> None:
    package = write(tmp_path / "a.epk")
    before = package.path.read_bytes()
    with pytest.raises((AttributeError, TypeError)):
        write(package.path, version="2.0.0", **broken)
    assert package.path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.epk"]


def test_a_disk_that_is_full_is_an_error_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PackageError, match=r"cannot write .*a\.epk: No space left"):
        write(tmp_path / "a.epk")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="cannot write"):
        write(tmp_path / "absent" / "a.epk")
    (tmp_path / "file").touch()
    with pytest.raises(PackageError, match="cannot write"):
        write(tmp_path / "file" / "a.epk")


def test_the_file_is_as_readable_as_the_umask_allows(tmp_path: Path) -> None:
    old_mask = os.umask(0o022)
    try:
        package = write(tmp_path / "a.epk")
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(package.path.stat().st_mode) == 0o644


def _nan_check() -> CheckResult:
    return CheckResult(max_relative_error=float("nan"), vectors=1)


def _golden(**changes: Any) -> GoldenVectors:
    values: dict[str, Any] = {
        "inputs": golden().inputs,
        "outputs": golden().outputs,
        "tolerance": 1e-4,
    }
    return GoldenVectors(**values | changes, distinct=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"check": _nan_check()}, "finite"),
        ({"golden": _golden(tolerance=0.0)}, "tolerance"),
        ({"golden": _golden(inputs=golden().inputs[:1])}, "as many inputs as outputs"),
        ({"golden": _golden(inputs=(), outputs=())}, "count is 0"),
        ({"golden": _golden(inputs=({"z": np.zeros(3)},) * 2)}, "are not the model's tensors"),
        ({"golden": _golden(inputs=({"x": np.zeros((1, 3))},) * 2)}, r"float64\[1, 3\]"),
        ({"golden": _golden(inputs=({"x": np.zeros(3, np.float32)},) * 2)}, r"float32\[3\]"),
        ({"inputs": ()}, "inputs is empty"),
        ({"inputs": (*INPUTS, *INPUTS)}, "two tensors of one name"),
        ({"inputs": (TensorSpec(name="x", dtype="float32", shape=(0,)),)}, "shape is 0"),
        ({"inputs": (TensorSpec(name="x", dtype="float32", shape=(2**29,)),)}, "a vector is"),
        ({"inputs": (TensorSpec(name="", dtype="float32", shape=(1,)),)}, "1 to 256 bytes"),
        ({"source": {"sha256": "0" * 64}}, "source lacks 'format'"),
        ({"source": {"sha256": "0", "format": "", "file": ""}}, "64 lower-case"),
        ({"tools": {"zig": 1}}, "tools.zig is not a string"),
        ({"arena_bytes": -1}, "arena_bytes is -1"),
        ({"calls": (KernelInfo(name="k", rule="r", flops=-1, nbytes=0),)}, "flops is -1"),
        ({"calls": CALLS * (1 << 14)}, "calls has 49152 elements"),
    ],
)
def test_contents_that_do_not_fit_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(PackageError, match=words):
        write(tmp_path / "a.epk", **changes)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "version"), [("Demo", "1.0.0"), ("a/b", "1.0.0"), ("demo", "1.0"), ("demo", "1.0.00")]
)
def test_names_and_versions_that_are_none_are_refused(
    tmp_path: Path, name: str, version: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        write(tmp_path / "a.epk", name=name, version=version)
    assert caught.value.hint


def test_no_target_or_one_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="1 to 64 targets"):
        write_package(tmp_path / "a.epk", name="demo", version="1.0.0", models=[])
    with pytest.raises(PackageError, match="twice"):
        write(tmp_path / "a.epk", "raspberrypi4", "raspberrypi4")


def test_golden_vectors_come_back_as_they_were(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    again = read_golden(package, package.targets[0])
    assert (again.tolerance, again.distinct) == (1e-4, True)
    for one, other in zip(
        golden().inputs + golden().outputs, again.inputs + again.outputs, strict=True
    ):
        assert {k: v.tolist() for k, v in one.items()} == {k: v.tolist() for k, v in other.items()}


def test_a_blob_is_a_file_to_read_and_to_move_in(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).bytes(3_000_001)
    package = write(tmp_path / "a.epk", weights=weights)
    digest = package.targets[0].weights
    with open_blob(package, digest) as stream:
        assert stream.read(10) == weights[:10]
        assert stream.seek(-5, os.SEEK_END) == len(weights) - 5
        assert stream.read() == weights[-5:]
        assert stream.read() == b""
        stream.seek(0)
        assert stream.read() == weights
        stream.seek(0)
        assert b"".join(iter(lambda: stream.read(70_001), b"")) == weights


def test_a_blob_that_changed_after_the_package_was_read_is_refused_by_every_reader(
    tmp_path: Path,
) -> None:
    weights = np.random.default_rng(1).bytes(3_000_001)
    package = write(tmp_path / "a.epk", weights=weights)
    digest = package.targets[0].weights
    data = bytearray(package.path.read_bytes())
    data[data.index(weights) + 100] ^= 1
    package.path.write_bytes(data)
    for use in (
        lambda: read_blob(package, digest),
        lambda: extract_blob(package, digest, tmp_path / "out"),
        lambda: open_blob(package, digest).read(),
        lambda: read_package(package.path),
    ):
        with pytest.raises(TrustError, match=digest[7:]) as caught:
            use()
        assert caught.value.check == "digest"
    with open_blob(package, digest) as stream:
        stream.read(2_000_000)
        with pytest.raises(TrustError):
            stream.read(2_000_000)
    assert os.listdir(tmp_path) == ["a.epk"]


def test_a_blob_is_extracted_whole(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    (tmp_path / "out").write_text("something older")
    extract_blob(package, package.targets[0].worker, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content().worker


def test_a_blob_that_the_package_has_not_is_a_package_error(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk")
    for use in (read_blob, open_blob):
        with pytest.raises(PackageError, match="lacks the blob"):
            use(package, "sha256:" + "0" * 64)


def test_errors_are_of_the_tree(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.epk", Path("/dev/null")):
        with pytest.raises(EdgepackError, match=str(path)):
            read_package(path)


def test_large_weights_are_never_held_in_memory(tmp_path: Path) -> None:
    package = write(tmp_path / "a.epk", weights=bytes(48 << 20))
    weights = package.targets[0].weights
    tracemalloc.start()
    try:
        read_package(package.path)
        signed = attach_envelope(package, b"envelope")
        write_thin(signed, "raspberrypi4", set(), tmp_path / "thin.epk")
        extract_blob(signed, weights, tmp_path / "weights.bin")
        with open_blob(signed, weights) as stream:
            while stream.read(1 << 20):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_baseline_is_in_the_metadata_and_nothing_is_where_there_is_none(tmp_path: Path) -> None:
    samples = [{"x": np.full((1, 3), i, np.float32)} for i in range(30)]
    answers = [{"y": np.full((1, 2), i, np.float32), "label": np.array(i % 3)} for i in range(30)]
    spread = measure_baseline(samples, answers, INPUTS, OUTPUTS)
    (target,) = write(tmp_path / "with.epk", baseline=spread).targets
    assert target.model["baseline"] == spread.to_dict()
    assert target.model["baseline"]["outputs"][1]["edges"] == []
    (target,) = write(tmp_path / "without.epk").targets
    assert "baseline" not in target.model
