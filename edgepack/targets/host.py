"""This machine as a target, and whether it runs the code of another.

The detected CPU is a level of the architecture and not the exact model: two machines of one kind
then give the same bytes, and a package made on one runs on the other.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from edgepack.targets.profile import Target

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")

# x86-64 psABI, table 3.1: micro-architecture levels, by the names that /proc/cpuinfo uses
# (abm is lzcnt, pni is sse3). Each level includes the one before.
_X86_LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
_X86_VECTORS = {
    "x86-64": (128, 16),
    "x86-64-v2": (128, 16),
    "x86-64-v3": (256, 16),
    "x86-64-v4": (512, 32),
}

# MIDR part numbers of Arm's own cores (implementer 0x41), as in arch/arm64/include/asm/cputype.h.
_ARM_PARTS = {
    0xD03: "cortex-a53",
    0xD08: "cortex-a72",
    0xD0B: "cortex-a76",
    0xD41: "cortex-a78",
    0xD42: "cortex-a78ae",
}
# What the kernel reports for a core of which LLVM's name implies these instructions. LLVM's A53 and
# A72 include AES and SHA-2, which their makers may leave out, and Broadcom did in the BCM2837 and BCM2711.
_ARMV8_0 = {"asimd", "crc32"}
_ARMV8_2 = _ARMV8_0 | {"atomics", "asimdhp", "asimddp", "asimdrdm", "lrcpc", "aes", "sha2"}
_ARM_NEEDS = {
    "generic": {"asimd"},
    "cortex-a53": _ARMV8_0 | {"aes", "sha2"},
    "cortex-a72": _ARMV8_0 | {"aes", "sha2"},
    "cortex-a76": _ARMV8_2,
    "cortex-a78": _ARMV8_2,
    "cortex-a78ae": _ARMV8_2,
}
# Kernel names of LLVM features where they differ; "+" features that stand in neither are unknown here.
_KERNEL_NAMES = {
    "aarch64": {"neon": "asimd", "fp-armv8": "fp", "dotprod": "asimddp", "fullfp16": "asimdhp"}
    | {"lse": "atomics", "crc": "crc32", "rdm": "asimdrdm", "rcpc": "lrcpc"},
    "x86_64": {"avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16", "avxvnni": "avx_vnni"},
}


_IN_ORDER = ("cortex-a35", "cortex-a53", "cortex-a55", "cortex-a7", "generic", "generic-rv64")
"""Cores that issue in order, and names that may mean one."""


def detect_host() -> Target:
    """This machine as the target ``host``; its code runs on every machine of the same level."""
    arch = _arch()
    flags = _cpu_flags()
    features: tuple[str, ...] = ()
    if arch == "x86_64":
        cpu = _x86_level(flags)
        bits, registers = _X86_VECTORS[cpu]
    elif arch == "aarch64":
        cpu, features = _arm_core(flags)
        bits, registers = 128, 32
    elif arch == "arm":
        cpu, bits, registers = "cortex-a7", 128, 16
    else:
        cpu, features = "generic-rv64", ("+m", "+a", "+f", "+d", "+c")
        bits, registers = 32, 32
    libc, version = _libc(arch)
    return Target(
        name="host",
        description="This machine",
        arch=arch,
        triple="arm-linux-gnueabihf" if arch == "arm" else f"{arch}-linux-gnu",
        cpu=cpu,
        zig_cpu=_zig_cpu(arch, cpu, features),
        features=features,
        libc=libc,
        libc_version=version,
        float_abi="hard" if arch == "arm" else "",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        vector_bits=bits,
        vector_registers=registers,
        issue="in-order" if cpu in _IN_ORDER else "out-of-order",
        l1_bytes=_cache_bytes(1, 32 << 10),
        l2_bytes=_cache_bytes(2, 256 << 10),
        memory_bytes=_memory_limit(),
    )


def runs_natively(target: Target) -> bool:
    """Whether this machine's kernel and CPU run code of ``target``; in doubt, no."""
    if sys.platform != "linux" or target.arch != _arch():
        return False
    flags = _cpu_flags()
    if target.arch == "x86_64":
        levels = list(_X86_VECTORS)
        if target.cpu not in levels or levels.index(target.cpu) > levels.index(_x86_level(flags)):
            return False
    elif target.arch == "aarch64":
        removed = {feature[1:] for feature in target.features if feature[0] == "-"}
        if target.cpu not in _ARM_NEEDS or not _ARM_NEEDS[target.cpu] - removed <= flags:
            return False
    elif target.arch == "arm":
        return target.cpu == "cortex-a7" and {"neon", "vfpv4", "idiva"} <= flags
    else:
        return target.cpu == "generic-rv64" and set("imafdc") <= flags
    names = _KERNEL_NAMES[target.arch]
    added = {feature[1:] for feature in target.features if feature[0] == "+"}
    return {names.get(feature, feature) for feature in added} <= flags


def _arch() -> str:
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "x86_64"
    if machine in ("aarch64", "arm64"):
        return "aarch64"
    return "arm" if machine.startswith("arm") else machine if machine == "riscv64" else "x86_64"


def _cpuinfo(key: str) -> str:
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def _cpu_flags() -> frozenset[str]:
    isa = _cpuinfo("isa")
    if isa:  # rv64imafdc_zicsr…: one letter per base extension
        return frozenset(isa.removeprefix("rv64").split("_")[0])
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _x86_level(flags: frozenset[str]) -> str:
    level = "x86-64"
    for name, needed in _X86_LEVELS:
        if not needed <= flags:
            break
        level = name
    return level


def _arm_core(flags: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """LLVM's name of the core and the features it lacks; ``generic`` for one not in the table."""
    try:
        implementer, part = int(_cpuinfo("CPU implementer"), 0), int(_cpuinfo("CPU part"), 0)
    except ValueError:
        return "generic", ("+neon",)
    cpu = _ARM_PARTS.get(part, "generic") if implementer == 0x41 else "generic"
    lacking = _ARM_NEEDS[cpu] - flags
    if cpu == "generic" or lacking - {"aes", "sha2"}:
        return "generic", ("+neon",)
    return cpu, tuple(f"-{name}" for name in sorted(lacking))


def _zig_cpu(arch: str, cpu: str, features: tuple[str, ...]) -> str:
    name = cpu.replace("-", "_")
    if arch == "riscv64":
        return f"{name}+m+a+f+d+c"
    return name + "".join(feature for feature in features if feature != "+neon")


def _libc(arch: str) -> tuple[str, str]:
    """The oldest glibc there is for the architecture, not this one: its symbols are in every newer."""
    if platform.libc_ver()[0] != "glibc":
        return "musl", ""
    return "glibc", "2.27" if arch == "riscv64" else "2.17"


def _cache_bytes(level: int, fallback: int) -> int:
    for index in sorted(_CACHE.glob("index*")):
        try:
            if (index / "level").read_text().strip() != str(level):
                continue
            if (index / "type").read_text().strip() == "Instruction":
                continue
            match = re.fullmatch(r"(\d+)([KM]?)", (index / "size").read_text().strip())
        except OSError:
            continue
        if match and int(match[1]):
            return int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]]
    return fallback


def _memory_limit() -> int:
    """Half of the RAM, as in the profiles, to the GiB below so that firmware's share does not show."""
    try:
        match = re.search(r"^MemTotal:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        match = None
    total = int(match[1]) << 10 if match else 2 << 30
    return max((total // 2) >> 30, 1) << 30
