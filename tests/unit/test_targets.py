"""Target profiles: every one is sound, and a wrong one is refused with the valid choices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepack.errors import ConfigError
from edgepack.targets import Target, load_target, target_names

PROFILES = target_names()
CPUS = {
    "x86-64-v2": "x86-64-v2",
    "x86-64-v3": "x86-64-v3",
    "x86-64-v4": "x86-64-v4",
    "aarch64-generic": "generic",
    "raspberrypi3": "cortex-a53",
    "raspberrypi4": "cortex-a72",
    "raspberrypi5": "cortex-a76",
    "armv7-neon": "cortex-a7",
    "riscv64-generic": "generic-rv64",
    "riscv64-vector": "generic-rv64",
    "ambarella-cv25": "cortex-a53",
    "jetson-orin-cpu": "cortex-a78ae",
}
VALID = load_target("raspberrypi4").to_dict()


def toml(fields: dict[str, Any]) -> str:
    lines = []
    for key, value in fields.items():
        if key != "name":
            text = str(value).lower() if isinstance(value, bool) else repr(value)
            lines.append(f"{key} = {text}")
    return "\n".join(lines)


def written(folder: Path, fields: dict[str, Any], name: str = "board.toml") -> Path:
    path = folder / name
    path.write_text(toml(fields))
    return path


def test_every_profile_of_the_product_is_there() -> None:
    assert set(PROFILES) == {"host", *CPUS}
    assert {name: load_target(name).cpu for name in CPUS} == CPUS


@pytest.mark.parametrize("name", PROFILES)
def test_profile_survives_its_dict(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert Target.from_dict(target.to_dict()) == target


@pytest.mark.parametrize("name", PROFILES)
def test_profile_is_plausible(name: str) -> None:
    target = load_target(name)
    assert target.l1_bytes <= target.l2_bytes < target.memory_bytes
    assert (target.libc == "musl") == ("musl" in target.zig_triple)
    assert "musl" in target.zig_static_triple
    if name == "host":
        return
    if target.arch == "aarch64":
        assert (target.vector_bits, target.vector_registers) == (128, 32)
    if target.arch == "x86_64":
        assert target.vector_registers == (32 if target.vector_bits == 512 else 16)


@pytest.mark.parametrize("name", ["raspberrypi3", "raspberrypi4", "ambarella-cv25"])
def test_cores_without_crypto_instructions_get_none(name: str) -> None:
    target = load_target(name)
    assert target.zig_cpu.endswith("-aes-sha2")
    assert target.features == ("-aes", "-sha2")


@pytest.mark.parametrize("name", PROFILES)
def test_zig_knows_the_triples_and_the_cpu(name: str, tmp_path: Path) -> None:
    target = load_target(name)
    source = tmp_path / "trivial.c"
    source.write_text("int answer(void) { return 42; }\n")
    for triple in (target.zig_static_triple, target.zig_triple):
        command = [sys.executable, "-m", "ziglang", "cc", "-target", triple, "-c", str(source)]
        command += [f"-mcpu={target.zig_cpu}", "-o", str(tmp_path / "trivial.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_zig_triples() -> None:
    assert load_target("raspberrypi4").zig_triple == "aarch64-linux-gnu.2.31"
    assert load_target("raspberrypi4").zig_static_triple == "aarch64-linux-musl"
    assert load_target("armv7-neon").zig_triple == "arm-linux-gnueabihf.2.17"
    assert load_target("armv7-neon").zig_static_triple == "arm-linux-musleabihf"


def test_qemu_names() -> None:
    assert load_target("raspberrypi4").qemu == "qemu-aarch64-static"
    assert load_target("raspberrypi4").qemu_cpu == "cortex-a72"
    assert load_target("jetson-orin-cpu").qemu_cpu == "max"
    assert load_target("armv7-neon").qemu == "qemu-arm-static"
    assert load_target("riscv64-generic").qemu_cpu == "rv64"
    assert load_target("riscv64-vector").qemu_cpu == "rv64,v=true,vlen=256"
    assert load_target("x86-64-v4").qemu == ""


def test_unknown_name_lists_the_valid_ones_and_the_close_one() -> None:
    with pytest.raises(ConfigError, match="unknown target 'raspberypi4'") as caught:
        load_target("raspberypi4")
    assert "Did you mean 'raspberrypi4'" in caught.value.hint
    assert all(name in caught.value.hint for name in PROFILES)


def test_own_profile_is_loaded_by_path_and_named_after_its_file(tmp_path: Path) -> None:
    target = load_target(written(tmp_path, VALID | {"cores": 2}))
    assert (target.name, target.cores) == ("board", 2)


def test_unknown_key_is_refused_with_the_close_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"board\.toml: unknown key 'core'") as caught:
        load_target(written(tmp_path, VALID | {"core": 4}))
    assert "Did you mean 'cores'" in caught.value.hint
    assert all(key in caught.value.hint for key in VALID)


@pytest.mark.parametrize("key", [key for key in VALID if key != "name"])
def test_missing_key_is_refused(key: str, tmp_path: Path) -> None:
    fields = {name: value for name, value in VALID.items() if name != key}
    with pytest.raises(ConfigError, match=f"missing key '{key}'"):
        load_target(written(tmp_path, fields))


@pytest.mark.parametrize("key", [key for key in VALID if key != "name"])
@pytest.mark.parametrize("value", [True, 1.5, ["a b"], [1]])
def test_wrong_type_is_refused(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{key}: .* is not valid; it must be"):
        load_target(written(tmp_path, VALID | {key: value}))


WRONG = [
    ("arch", "aarch65", "one of x86_64, aarch64, arm, riscv64"),
    ("arch", "riscv64", "triple"),
    ("triple", "x86_64-linux-gnu", "a triple of arch 'aarch64'"),
    ("triple", "-target", "an LLVM triple"),
    ("cpu", "-x", "an LLVM CPU name"),
    ("zig_cpu", "cortex-a72 -O3", "a zig CPU"),
    ("features", ["neon"], "LLVM features"),
    ("issue", "sometimes", "one of in-order, out-of-order"),
    ("libc", "bionic", "one of glibc, musl"),
    ("libc", "musl", "'' for musl"),
    ("libc_version", "", "a glibc version"),
    ("libc_version", "3.1", "a glibc version"),
    ("float_abi", "hard", "'' for arch 'aarch64'"),
    ("cores", 0, "an integer from 1 to 1024"),
    ("cores", -4, "an integer from 1 to 1024"),
    ("vector_bits", 100, "a power of two"),
    ("vector_bits", 16, "an integer from 32 to 2048"),
    ("vector_registers", 4, "an integer from 8 to 128"),
    ("l1_bytes", 0, "an integer from"),
    ("memory_bytes", 1, "an integer from"),
    ("memory_bytes", 1 << 60, "an integer from"),
    ("description", "", "one line of text"),
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG)
def test_value_out_of_range_is_refused(key: str, value: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not valid") as caught:
        load_target(written(tmp_path, VALID | {key: value}))
    assert words in caught.value.message


def test_soft_float_arm_is_refused(tmp_path: Path) -> None:
    fields = load_target("armv7-neon").to_dict() | {"float_abi": ""}
    with pytest.raises(ConfigError, match="float_abi"):
        load_target(written(tmp_path, fields))


def test_name_inside_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text('name = "other"\n' + toml(VALID))
    with pytest.raises(ConfigError, match="the key 'name' is not allowed"):
        load_target(path)


def test_file_name_that_is_no_target_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name: 'My Board' is not valid"):
        load_target(written(tmp_path, VALID, "My Board.toml"))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"cores = = 4", "is not TOML"), (b"\xff\xfe\x00", "not UTF-8"), (b"", "missing keys")],
)
def test_file_that_is_no_profile_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load_target(path)


def test_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="larger than"):
        load_target(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_target(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        load_target(tmp_path / "folder.toml")


@pytest.mark.parametrize("name", CPUS)
def test_documentation_has_the_profile_as_it_is(name: str) -> None:
    document = Path(__file__).parents[2] / "docs" / "targets.md"
    row = next(x for x in document.read_text().splitlines() if x.startswith(f"| `{name}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    target = load_target(name)
    assert cells[1:6] == [
        target.description,
        target.cpu,
        f"{target.libc} {target.libc_version}",
        str(target.cores),
        f"{target.vector_bits} x {target.vector_registers}",
    ]
    sizes = (target.l1_bytes, target.l2_bytes, target.memory_bytes)
    assert [in_bytes(size) for size in f"{cells[6]} / {cells[7]}".split(" / ")] == list(sizes)


def in_bytes(text: str) -> int:
    number, unit = text.split()
    return int(number) << {"KiB": 10, "MiB": 20, "GiB": 30}[unit]


def test_documented_profile_of_ones_own_loads(tmp_path: Path) -> None:
    document = Path(__file__).parents[2] / "docs" / "targets.md"
    path = tmp_path / "gateway.toml"
    path.write_text(document.read_text().split("```toml\n")[1].split("```")[0])
    assert load_target(path).cpu == "cortex-a53"
