"""Image tools that know nothing of edgepack read, copy, push and pull a package unchanged."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.artefacts import Package
from edgepack.package import read_package
from edgepack.trust import new_key, verify
from tests.conftest import unavailable
from tests.package_samples import pack, signed, unpack, write

KEY = new_key()
REF_NAME = "org.opencontainers.image.ref.name"


@pytest.fixture
def unsigned(tmp_path: Path) -> Package:
    weights = np.random.default_rng(7).bytes(300_000)
    return write(tmp_path / "demo.epk", "raspberrypi4", "x86-64-v3", weights=weights)


@pytest.fixture(params=["unsigned", "signed"])
def package(request: pytest.FixtureRequest, unsigned: Package) -> Package:
    return signed(unsigned, KEY) if request.param == "signed" else unsigned


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry on loopback, as ``host:port``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    settings = tmp_path / "registry.yml"
    store = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    settings.write_text(json.dumps({"version": "0.1", "storage": store, "http": {"addr": address}}))
    log = (tmp_path / "registry.log").open("wb")
    process = subprocess.Popen(
        ["docker-registry", "serve", settings], stdout=log, stderr=subprocess.STDOUT
    )
    try:
        _wait_until_it_answers(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@pytest.fixture
def oras() -> Any:
    """The ``oras`` Python package."""
    if find_spec("oras") is None:
        unavailable("the oras package is not installed (make test installs what tests need)")
    import_module("oras.layout")
    import_module("oras.provider")
    return import_module("oras")


def skopeo(*arguments: str | Path) -> str:
    """What skopeo prints; it must succeed."""
    command = ["skopeo", "--insecure-policy", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_gnu_tar_and_python_unpack_it_alike(package: Package, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        ["tar", "-xf", package.path, "-C", tmp_path / "out"], capture_output=True, check=True
    )
    assert done.stderr == b""
    assert _files(tmp_path / "out") == unpack(package.path)


@pytest.mark.needs("skopeo")
def test_skopeo_inspects_the_first_target(package: Package) -> None:
    shown = json.loads(skopeo("inspect", f"oci-archive:{package.path}"))
    first = package.targets[0]
    assert (shown["Architecture"], shown["Os"]) == ("arm64", "linux")
    assert shown["Layers"] == [first.worker, first.weights, first.metadata, first.golden]
    assert shown["Labels"] == {
        "edgepack.target": "raspberrypi4",
        "org.opencontainers.image.title": "demo",
        "org.opencontainers.image.version": "1.2.0",
    }


@pytest.mark.needs("skopeo")
def test_skopeo_copies_one_target_blob_for_blob(package: Package, tmp_path: Path) -> None:
    skopeo("copy", "--preserve-digests", f"oci-archive:{package.path}", f"oci:{tmp_path}/one:x")
    copied = _files(tmp_path / "one")
    first = package.targets[0]
    assert {"sha256:" + Path(name).name for name in copied if name.startswith("blobs/")} == set(
        first.sizes
    )
    whole = unpack(package.path)
    assert all(whole[name] == data for name, data in copied.items() if name.startswith("blobs/"))


@pytest.mark.needs("skopeo")
def test_skopeo_copies_all_targets_and_they_are_the_same_again(
    package: Package, tmp_path: Path
) -> None:
    source = f"oci-archive:{package.path}"
    skopeo("copy", "--all", "--preserve-digests", source, f"oci:{tmp_path}/all:x")
    _same_again(package, tmp_path / "all", tmp_path / "again.epk")


@pytest.mark.needs("skopeo", "docker-registry")
def test_skopeo_pushes_all_targets_to_a_registry_and_pulls_them_back_unchanged(
    package: Package, tmp_path: Path, registry: str
) -> None:
    remote = f"docker://{registry}/models/demo:1.2.0"
    every = ("copy", "--all", "--preserve-digests")
    skopeo(*every, "--dest-tls-verify=false", f"oci-archive:{package.path}", remote)
    skopeo(*every, "--src-tls-verify=false", remote, f"oci:{tmp_path}/back:x")
    _same_again(package, tmp_path / "back", tmp_path / "again.epk")


@pytest.mark.needs("docker-registry")
def test_oras_pushes_the_layout_and_pulls_it_back_by_digest_unchanged(
    package: Package, tmp_path: Path, registry: str, oras: Any
) -> None:
    index = _unpack_and_tag(package, tmp_path / "layout", "1.2.0")
    client = oras.provider.Registry(hostname=registry, insecure=True)
    layout = oras.layout.NewLayout(str(tmp_path / "layout"))
    answer = layout.push_to_registry(client, f"{registry}/models/demo:1.2.0", tag="1.2.0")
    assert answer.headers["Docker-Content-Digest"] == index
    assert client.get_tags(f"{registry}/models/demo") == ["1.2.0"]
    oras.layout.NewLayoutFromRegistry(
        str(tmp_path / "back"), client, f"{registry}/models/demo@{index}"
    )
    _same_again(package, tmp_path / "back", tmp_path / "again.epk")


@pytest.mark.needs("docker-registry")
def test_oras_pulls_one_targets_files_by_their_titles(
    package: Package, tmp_path: Path, registry: str, oras: Any
) -> None:
    _unpack_and_tag(package, tmp_path / "layout", "1.2.0")
    client = oras.provider.Registry(hostname=registry, insecure=True)
    layout = oras.layout.NewLayout(str(tmp_path / "layout"))
    layout.push_to_registry(client, f"{registry}/models/demo:1.2.0", tag="1.2.0")
    target = package.targets[1]
    client.pull(f"{registry}/models/demo@{target.manifest}", outdir=str(tmp_path / "files"))
    blobs = unpack(package.path)
    expected = {
        "worker": target.worker,
        "weights.bin": target.weights,
        "model.json": target.metadata,
        "golden.bin": target.golden,
    }
    assert _files(tmp_path / "files") == {
        name: blobs["blobs/sha256/" + digest[7:]] for name, digest in expected.items()
    }


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(address, timeout=1)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    pytest.fail(f"docker-registry does not answer on {address} (exit code {process.poll()})")


def _unpack_and_tag(package: Package, folder: Path, tag: str) -> str:
    """The layout as a folder, its package index tagged as ``oras tag --oci-layout`` does it."""
    with tarfile.open(package.path) as archive:
        archive.extractall(folder, filter="data")
    root = json.loads((folder / "index.json").read_bytes())
    root["manifests"][0]["annotations"] = {REF_NAME: tag}
    (folder / "index.json").write_text(json.dumps(root))
    return str(root["manifests"][0]["digest"])


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _same_again(package: Package, layout: Path, out: Path) -> None:
    """The layout's blobs, packed anew, are the package to the byte; its signature still holds."""
    whole = unpack(package.path)
    copied = {name: data for name, data in _files(layout).items() if name.startswith("blobs/")}
    assert sorted(copied) == sorted(name for name in whole if name.startswith("blobs/"))
    head = [(name, whole[name]) for name in ("oci-layout", "index.json")]
    again = read_package(pack(out, head + sorted(copied.items())))
    assert again.path.read_bytes() == package.path.read_bytes()
    named = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
    assert named == json.loads(whole["index.json"])["manifests"][0]["digest"]
    if package.envelope is not None:
        assert verify(again, [KEY.public_key]).trusted
