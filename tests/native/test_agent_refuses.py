from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from edgepack.artefacts import GoldenVectors
from edgepack.package import attach_envelope, read_package
from edgepack.trust import PrivateKey, new_key
from tests import package_samples as samples
from tests.conftest import unavailable
from tests.native.device_store import Device
from tests.native.fake_device import Machine

pytestmark = pytest.mark.also_on("aarch64")


@pytest.fixture
def serving(tmp_path: Path, device: Device, key: PrivateKey) -> Device:
    """A device with 1.0.0 installed, which must stay as it is."""
    device.write(tmp_path / "1.0.0.epk", key, version="1.0.0")
    device.installed("install", tmp_path / "1.0.0.epk")
    return device


def refuses(device: Device, path: Path, code: int, check: str) -> str:
    """The reason; the device is as it was."""
    before = device.contents()
    answer = device.run("install", path)
    assert answer.refused == (code, check), answer.json
    assert device.contents() == before
    return str(answer.json["reason"])


def test_what_nobody_signed(tmp_path: Path, serving: Device) -> None:
    package = serving.write(tmp_path / "a.epk", version="2.0.0")
    refuses(serving, package.path, 8, "signature")


def test_what_another_key_signed(tmp_path: Path, serving: Device) -> None:
    for kind in ("ecdsa-p256", "ed25519"):
        package = serving.write(tmp_path / "a.epk", new_key(kind), version="2.0.0")
        refuses(serving, package.path, 8, "key")


def test_any_key_where_none_is_trusted(tmp_path: Path, machine: Machine, key: PrivateKey) -> None:
    device = Device(root=tmp_path / "device", agent=machine.agent(), machine=machine)
    device.set_up()
    package = device.write(tmp_path / "a.epk", key, version="1.0.0")
    refuses(device, package.path, 8, "key")


def test_a_key_file_that_is_none(serving: Device, tmp_path: Path) -> None:
    (serving.root / "trust" / "broken.pub").write_text("-----BEGIN PUBLIC KEY-----\n")
    assert "broken.pub" in refuses(serving, tmp_path / "1.0.0.epk", 10, "state")


def test_the_signature_of_another_package(tmp_path: Path, serving: Device, key: PrivateKey) -> None:
    signed = serving.write(tmp_path / "a.epk", key, version="2.0.0")
    other = serving.write(tmp_path / "b.epk", version="2.0.0", weights="good, but other")
    assert signed.envelope is not None
    attach_envelope(other, signed.envelope)
    refuses(serving, other.path, 8, "statement")


def test_a_signature_that_names_a_trusted_key_and_is_wrong(
    tmp_path: Path, serving: Device, key: PrivateKey
) -> None:
    signed = serving.write(tmp_path / "a.epk", key, version="2.0.0")
    foreign = serving.write(tmp_path / "b.epk", new_key(), version="2.0.0")
    assert signed.envelope is not None
    assert foreign.envelope is not None
    start = foreign.envelope.index(b'"sig":"')
    forged = signed.envelope[: signed.envelope.index(b'"sig":"')] + foreign.envelope[start:]
    attach_envelope(signed, forged)
    refuses(serving, signed.path, 8, "signature")


def test_a_lower_version(tmp_path: Path, serving: Device, key: PrivateKey) -> None:
    serving.write(tmp_path / "a.epk", key, version="0.9.10")
    refuses(serving, tmp_path / "a.epk", 8, "version")


def test_the_same_version_with_other_contents(
    tmp_path: Path, serving: Device, key: PrivateKey
) -> None:
    serving.write(tmp_path / "a.epk", key, version="1.0.0", weights="good, but other")
    refuses(serving, tmp_path / "a.epk", 8, "version")


def test_another_target_is_named_with_this_one(
    tmp_path: Path, serving: Device, key: PrivateKey
) -> None:
    package = samples.write(tmp_path / "a.epk", "raspberrypi4", "armv7-neon", version="2.0.0")
    reason = refuses(serving, samples.signed(package, key).path, 10, "target")
    assert all(name in reason for name in ("raspberrypi4", "armv7-neon", serving.target))


def test_another_architecture_is_named_with_this_one(
    tmp_path: Path, serving: Device, key: PrivateKey
) -> None:
    serving.set_up(target="riscv64-generic")
    package = samples.write(tmp_path / "a.epk", "riscv64-generic", version="2.0.0")
    reason = refuses(serving, samples.signed(package, key).path, 10, "target")
    assert "riscv64" in reason
    assert serving.installed("status")["arch"] in reason


@pytest.mark.parametrize(
    ("weights", "check", "word"),
    [
        ("wrong", "golden", "output y"),
        ("nan", "golden", "finite"),
        ("constant", "golden", "output y"),
        ("off by one", "golden", "output label"),
        ("writes nothing", "golden", "output y"),
        ("leaves", "worker", "exit code 7"),
        ("crashes", "worker", "signal 11"),
        ("illegal", "worker", "another CPU"),
        ("fails", "worker", "kernel"),
        ("starves", "worker", "memory"),
        ("garbles", "worker", "protocol"),
    ],
)
def test_a_model_that_does_not_work_here(
    tmp_path: Path,
    serving: Device,
    key: PrivateKey,
    weights: str,
    check: str,
    word: str,
) -> None:
    package = serving.write(tmp_path / "a.epk", key, version="2.0.0", weights=weights)
    assert word in refuses(serving, package.path, 10, check)
    assert serving.current() == "1.0.0"


def test_a_worker_that_is_no_program(tmp_path: Path, serving: Device, key: PrivateKey) -> None:
    serving.write(tmp_path / "a.epk", key, version="2.0.0", worker=b"not an executable")
    assert "execute" in refuses(serving, tmp_path / "a.epk", 10, "worker")


def test_one_wrong_vector_of_many(tmp_path: Path, serving: Device, key: PrivateKey) -> None:
    good = samples.golden(8)
    outputs = [dict(vector) for vector in good.outputs]
    outputs[6]["y"] = outputs[6]["y"] + np.float32(0.01)
    golden = GoldenVectors(
        inputs=good.inputs, outputs=tuple(outputs), tolerance=good.tolerance, distinct=True
    )
    serving.write(tmp_path / "a.epk", key, version="2.0.0", golden=golden)
    assert "vector 6" in refuses(serving, tmp_path / "a.epk", 10, "golden")


def test_files_that_are_no_packages(tmp_path: Path, serving: Device) -> None:
    path = tmp_path / "x.epk"
    for data in (b"", b"\0" * 1024, b"hello", b"\0" * 512, b"PK\x03\x04" * 300):
        path.write_bytes(data)
        refuses(serving, path, 7, "package")
    refuses(serving, tmp_path, 7, "package")
    refuses(serving, tmp_path / "absent.epk", 7, "package")
    refuses(serving, Path("/dev/zero"), 7, "package")


def test_archives_with_other_things_inside(tmp_path: Path, serving: Device) -> None:
    entries = list(samples.unpack(tmp_path / "1.0.0.epk").items())
    path = tmp_path / "x.epk"
    for more in (
        [("blobs/sha256/" + "f" * 64, b"")],  # a blob with another digest
        [("../../etc/passwd", b"x")],
        [("/etc/passwd", b"x")],
        [("blobs/sha256/../../x", b"x")],
        [entries[-1]],  # twice
    ):
        samples.pack(path, entries + more)
        before = serving.contents()
        assert serving.run("install", path).code in (7, 8)
        assert serving.contents() == before
    samples.pack(path, entries[::-1])
    refuses(serving, path, 7, "package")
    samples.pack(path, entries[:2])
    refuses(serving, path, 7, "package")


def test_a_blob_that_nothing_refers_to(tmp_path: Path, serving: Device) -> None:
    entries = samples.unpack(tmp_path / "1.0.0.epk")
    stray = b"a stray blob"
    entries["blobs/sha256/" + hashlib.sha256(stray).hexdigest()] = stray
    first = [(name, entries.pop(name)) for name in ("oci-layout", "index.json")]
    path = samples.pack(tmp_path / "x.epk", first + sorted(entries.items()))
    assert "refers" in refuses(serving, path, 7, "package")


def test_links_and_directories_in_the_archive(tmp_path: Path, serving: Device) -> None:
    path = tmp_path / "x.epk"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            member = tarfile.TarInfo("oci-layout")
            member.type = kind
            member.linkname = "/etc/passwd"
            archive.addfile(member)
        refuses(serving, path, 7, "package")


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        ({"index": lambda value: value["annotations"].update(extra="x")}, "package"),
        ({"index": lambda value: value["manifests"].reverse()}, "package"),
        ({"index": lambda value: value["manifests"].append(value["manifests"][-1])}, "package"),
        ({"index": lambda value: b"[" * 100_000}, "package"),
        ({"index": lambda value: b"{" + b'"a":{' * 50 + b"}" * 51}, "package"),
        ({"root": lambda value: value.update(schemaVersion=3)}, "package"),
        ({"root": lambda value: value["manifests"].append(value["manifests"][0])}, "package"),
        ({"signature": lambda value: value.update(annotations={"a": "b"})}, "package"),
        ({"manifest": lambda value: value["annotations"].update(extra="x")}, "statement"),
        ({"model": lambda value: value.update(tolerance=1.0)}, "statement"),
        ({"config": lambda value: value.update(os="plan9")}, "statement"),
    ],
)
def test_falsified_documents_with_right_digests(
    tmp_path: Path,
    serving: Device,
    key: PrivateKey,
    edit: dict[str, samples.Edit],
    check: str,
) -> None:
    package = serving.write(tmp_path / "a.epk", key, version="2.0.0")
    path = samples.falsify(package.path, tmp_path / "x.epk", **edit)
    refuses(serving, path, 7 if check == "package" else 8, check)


@pytest.mark.needs("mount", "umount")
def test_a_full_disk(tmp_path: Path, machine: Machine, key: PrivateKey) -> None:
    root = tmp_path / "device"
    root.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=3m", "edgepack", str(root)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode != 0:
        unavailable("only root may mount a small file system")
    try:
        device = Device(root=root, agent=machine.agent(), machine=machine)
        device.set_up(key)
        device.write(tmp_path / "1.epk", key, version="1.0.0")
        device.installed("install", tmp_path / "1.epk")
        large = "good" + "x" * 2_500_000
        device.write(tmp_path / "2.epk", key, version="2.0.0", weights=large)
        assert "bytes" in refuses(device, tmp_path / "2.epk", 10, "disk")
        device.assert_consistent()
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_store_whose_state_is_damaged(tmp_path: Path, serving: Device, key: PrivateKey) -> None:
    serving.write(tmp_path / "a.epk", key, version="2.0.0")
    (serving.root / "models/demo/state.json").write_text("{")
    refuses(serving, tmp_path / "a.epk", 10, "state")


def test_python_reads_what_the_agent_installs(tmp_path: Path, serving: Device) -> None:
    """The two readers agree on this package: the refusals above are not for want of a good one."""
    assert read_package(tmp_path / "1.0.0.epk").version == "1.0.0"
    shutil.rmtree(serving.root / "models")
    assert serving.installed("install", tmp_path / "1.0.0.epk")["changed"] is True
