"""The host as a target: read off files that stand in for the machine's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.targets import detect_host, host, load_target

V2 = "fpu cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"
A72 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


class Machine:
    """Makes the detection see another machine."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        (folder / "meminfo").write_text("MemTotal:        8052736 kB\nMemFree: 1 kB\n")
        patch.setattr(host, "_CPUINFO", folder / "cpuinfo")
        patch.setattr(host, "_MEMINFO", folder / "meminfo")
        patch.setattr(host, "_CACHE", folder / "cache")

    def is_x86(self, flags: str) -> None:
        self.patch.setattr("platform.machine", lambda: "x86_64")
        (self.folder / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: x\n")

    def is_arm64(self, part: str, flags: str, implementer: str = "0x41") -> None:
        self.patch.setattr("platform.machine", lambda: "aarch64")
        (self.folder / "cpuinfo").write_text(
            f"processor\t: 0\nFeatures\t: {flags}\nCPU implementer\t: {implementer}\n"
            f"CPU architecture: 8\nCPU part\t: {part}\n"
        )

    def has_cache(self, index: int, level: int, kind: str, size: str) -> None:
        folder = self.folder / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in (("level", str(level)), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_host_of_this_machine_runs_here() -> None:
    assert detect_host().runs_here()
    assert detect_host() == detect_host() == load_target("host")


@pytest.mark.parametrize(
    ("flags", "cpu", "bits", "registers"),
    [
        ("fpu", "x86-64", 128, 16),
        (V2, "x86-64-v2", 128, 16),
        (V3, "x86-64-v3", 256, 16),
        (V4, "x86-64-v4", 512, 32),
        (V4.replace(" fma ", " "), "x86-64-v2", 128, 16),
    ],
)
def test_x86_host_is_the_highest_level_with_every_flag(
    machine: Machine, flags: str, cpu: str, bits: int, registers: int
) -> None:
    machine.is_x86(flags)
    target = detect_host()
    assert (target.cpu, target.vector_bits, target.vector_registers) == (cpu, bits, registers)
    assert target.zig_cpu == cpu.replace("-", "_")


def test_caches_memory_and_cores_are_read(machine: Machine) -> None:
    machine.is_x86(V3)
    machine.has_cache(0, 1, "Instruction", "64K")
    machine.has_cache(1, 1, "Data", "48K")
    machine.has_cache(2, 2, "Unified", "2M")
    machine.patch.setattr("os.sched_getaffinity", lambda _: {0, 5, 6})
    target = detect_host()
    assert (target.l1_bytes, target.l2_bytes, target.cores) == (48 << 10, 2 << 20, 3)
    assert target.memory_bytes == 3 << 30


def test_machine_that_tells_nothing_gets_careful_values(machine: Machine) -> None:
    machine.is_x86("")
    (machine.folder / "cpuinfo").unlink()
    (machine.folder / "meminfo").unlink()
    target = detect_host()
    assert (target.cpu, target.l1_bytes, target.l2_bytes) == ("x86-64", 32 << 10, 256 << 10)
    assert target.memory_bytes == 1 << 30


def test_musl_host(machine: Machine) -> None:
    machine.is_x86(V3)
    machine.patch.setattr("platform.libc_ver", lambda: ("", ""))
    assert detect_host().zig_triple == "x86_64-linux-musl"


@pytest.mark.parametrize(
    ("part", "flags", "cpu", "features", "zig_cpu"),
    [
        ("0xd08", A72, "cortex-a72", ("-aes", "-sha2"), "cortex_a72-aes-sha2"),
        ("0xd03", f"{A72} aes sha2", "cortex-a53", (), "cortex_a53"),
        ("0xd0b", A76, "cortex-a76", (), "cortex_a76"),
        ("0xd0b", A72, "generic", ("+neon",), "generic"),
        ("0xd4f", A76, "generic", ("+neon",), "generic"),
        ("junk", A76, "generic", ("+neon",), "generic"),
    ],
)
def test_arm64_host_is_its_core_less_what_the_kernel_does_not_report(
    machine: Machine, part: str, flags: str, cpu: str, features: tuple[str, ...], zig_cpu: str
) -> None:
    machine.is_arm64(part, flags)
    target = detect_host()
    assert (target.cpu, target.features, target.zig_cpu) == (cpu, features, zig_cpu)
    assert target.runs_here()


def test_part_numbers_of_other_makers_are_not_arms(machine: Machine) -> None:
    machine.is_arm64("0xd08", A72, implementer="0x61")
    assert detect_host().cpu == "generic"


def test_riscv_host(machine: Machine) -> None:
    machine.patch.setattr("platform.machine", lambda: "riscv64")
    (machine.folder / "cpuinfo").write_text("hart\t: 0\nisa\t: rv64imafdc_zicsr\nmmu\t: sv39\n")
    assert detect_host().zig_cpu == load_target("riscv64-generic").zig_cpu
    assert load_target("riscv64-generic").runs_here()


@pytest.mark.parametrize(
    ("flags", "runs"),
    [(V2, {"x86-64-v2"}), (V3, {"x86-64-v2", "x86-64-v3"}), (f"{V4} x", {"x86-64-v4"})],
)
def test_code_of_a_higher_level_does_not_run_here(
    machine: Machine, flags: str, runs: set[str]
) -> None:
    machine.is_x86(flags)
    here = {
        name for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4") if load_target(name).runs_here()
    }
    assert here >= runs
    assert ("x86-64-v4" in here) == ("avx512f" in flags)
    assert not load_target("raspberrypi4").runs_here()


def test_code_for_raspberrypi5_does_not_run_on_raspberrypi4(machine: Machine) -> None:
    machine.is_arm64("0xd08", A72)
    assert load_target("raspberrypi4").runs_here()
    assert load_target("aarch64-generic").runs_here()
    assert not load_target("raspberrypi5").runs_here()
    assert not load_target("armv7-neon").runs_here()


def test_nothing_runs_on_another_system(machine: Machine) -> None:
    machine.is_x86(V4)
    machine.patch.setattr("sys.platform", "darwin")
    assert not load_target("x86-64-v2").runs_here()
