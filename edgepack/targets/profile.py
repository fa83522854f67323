"""Target: one machine type, checked once when it is made; owns the fields of ``targets/*.toml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgepack.errors import ConfigError
from edgepack.naming import NAME_RULE, is_name
from edgepack.targets.choices import did_you_mean

ISSUES = ("in-order", "out-of-order")
ARCHES = ("x86_64", "aarch64", "arm", "riscv64")
LIBCS = ("glibc", "musl")

_KIB, _GIB = 1 << 10, 1 << 30
_RANGES = {
    "cores": (1, 1024),
    "vector_bits": (32, 2048),
    "vector_registers": (8, 128),
    "l1_bytes": (4 * _KIB, _GIB),
    "l2_bytes": (4 * _KIB, _GIB),
    "memory_bytes": (_KIB * _KIB, 1 << 44),
}
_PATTERNS = {
    "triple": (r"[a-z0-9_]+(-[a-z0-9_]+){2,3}", "an LLVM triple such as aarch64-linux-gnu"),
    "cpu": (r"[A-Za-z0-9][A-Za-z0-9_.-]*", "an LLVM CPU name such as cortex-a72"),
    "zig_cpu": (r"[a-z0-9_]+([+-][a-z0-9_]+)*", "a zig CPU such as cortex_a72 or cortex_a72-aes"),
}
_LIBC_VERSION = re.compile(r"2\.[0-9]{1,2}")
_FEATURE = re.compile(r"[+-][A-Za-z0-9][A-Za-z0-9_.-]*")
_ARCH_OF_TRIPLE = re.compile(r"(x86_64|aarch64|arm|riscv64)(?:v[0-9][a-z0-9.]*)?")

# What stock qemu-user can pretend to be, so that code for a newer core stops with SIGILL.
_QEMU_CPUS = {
    "aarch64": ("cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76"),
    "arm": ("cortex-a7", "cortex-a8", "cortex-a9", "cortex-a15"),
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A machine type to compile for. Making one checks every field; a wrong one is a ConfigError.

    Sizes are in bytes. ``l1_bytes`` is the data cache of one core, ``l2_bytes`` what one core can
    use of the second level. ``memory_bytes`` bounds weights plus arena of one model.
    """

    name: str
    description: str
    arch: str
    """One of ARCHES."""
    triple: str
    """LLVM's triple, without a libc version: ``aarch64-linux-gnu``."""
    cpu: str
    """LLVM's CPU name: ``cortex-a72``."""
    zig_cpu: str
    """zig's CPU: LLVM's name with underscores, features added with ``+`` and removed with ``-``."""
    features: tuple[str, ...]
    """LLVM features beyond what ``cpu`` implies: ``+name`` or ``-name``."""
    libc: str
    """The C library of applications that embed the model: ``glibc`` or ``musl``."""
    libc_version: str
    """Lowest version of it that must do, such as ``2.31``; empty for musl."""
    float_abi: str
    """``hard`` on arm, empty elsewhere, where the architecture leaves no choice."""
    cores: int
    vector_bits: int
    """Width of a vector register; 32, one float32, where there are no vectors."""
    vector_registers: int
    issue: str
    """One of ISSUES: whether a core may run an instruction before an earlier one that waits."""
    l1_bytes: int
    l2_bytes: int
    memory_bytes: int

    def __post_init__(self) -> None:
        """Check every field on its own, then those that must agree."""
        for item in fields(self):
            _check_field(item.name, getattr(self, item.name))
        match = _ARCH_OF_TRIPLE.fullmatch(self.triple.split("-", 1)[0])
        if match is None or match[1] != self.arch:
            raise _wrong("triple", self.triple, f"a triple of arch {self.arch!r}")
        if self.vector_bits & (self.vector_bits - 1):
            raise _wrong("vector_bits", self.vector_bits, "a power of two")
        wanted_abi = "hard" if self.arch == "arm" else ""
        if self.float_abi != wanted_abi:
            raise _wrong("float_abi", self.float_abi, f"{wanted_abi!r} for arch {self.arch!r}")
        if self.libc == "musl" and self.libc_version:
            raise _wrong("libc_version", self.libc_version, "'' for musl")
        if self.libc == "glibc" and not _LIBC_VERSION.fullmatch(self.libc_version):
            raise _wrong("libc_version", self.libc_version, "a glibc version such as '2.31'")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in model.json and in ``--json`` output; features are a list."""
        return asdict(self) | {"features": list(self.features)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Target:
        """Make a target from exactly its fields; anything else is a ConfigError."""
        names = [item.name for item in fields(cls)]
        unknown = sorted(set(data) - set(names))
        if unknown:
            raise ConfigError(
                f"unknown key{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}",
                f"{did_you_mean(unknown[0], names)}Valid keys: {', '.join(names)}",
            )
        missing = [name for name in names if name not in data]
        if missing:
            raise ConfigError(
                f"missing key{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}",
                f"Every one of these keys is needed: {', '.join(names)}",
            )
        values = dict(data)
        if isinstance(values["features"], list):
            values["features"] = tuple(values["features"])
        return cls(**values)

    @property
    def l1_way_bytes(self) -> int:
        """Bytes of one way of the first cache level: lines so far apart share a set; at most.

        x86 finds the set by the place within a page, whatever the cache's size. Elsewhere there are
        two ways or more (Cortex-A72: two).
        """
        return 4 * _KIB if self.arch == "x86_64" else self.l1_bytes // 2

    @property
    def zig_triple(self) -> str:
        """zig's ``-target`` for code that applications embed, with the profile's libc."""
        if self.libc == "musl":
            return self.zig_static_triple
        return f"{self.arch}-linux-gnu{self._zig_abi_suffix}.{self.libc_version}"

    @property
    def zig_static_triple(self) -> str:
        """zig's ``-target`` for static executables (worker, agent): always musl."""
        return f"{self.arch}-linux-musl{self._zig_abi_suffix}"

    @property
    def _zig_abi_suffix(self) -> str:
        return "eabihf" if self.arch == "arm" else ""

    @property
    def qemu(self) -> str:
        """The qemu-user program that runs this code: ``qemu-aarch64-static``; empty if none can.

        qemu knows no AVX-512.
        """
        if self.arch == "x86_64" and self.vector_bits > 256:
            return ""
        return f"qemu-{self.arch}-static"

    @property
    def qemu_cpu(self) -> str:
        """The CPU for qemu-user (``-cpu``, QEMU_CPU): this one where qemu knows it, else ``max``."""
        if self.arch == "riscv64":
            vectors = f",v=true,vlen={self.vector_bits}" if "+v" in self.features else ""
            return f"rv64{vectors}"
        return self.cpu if self.cpu in _QEMU_CPUS.get(self.arch, ()) else "max"

    def runs_here(self) -> bool:
        """Whether this machine runs the target's code itself: same architecture, all features."""
        from edgepack.targets.host import runs_natively

        return runs_natively(self)


def _check_field(key: str, value: object) -> None:
    if key in _RANGES:
        _check_number(key, value)
    elif key == "features":
        _check_features(value)
    elif isinstance(value, str):
        _check_text(key, value)
    else:
        raise _wrong(key, value, "a string")


def _check_number(key: str, value: object) -> None:
    low, high = _RANGES[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(key, value, "an integer")
    if not low <= value <= high:
        raise _wrong(key, value, f"an integer from {low} to {high}")


def _check_features(value: object) -> None:
    if not isinstance(value, tuple):
        raise _wrong("features", value, "a list of strings")
    for feature in value:
        if not isinstance(feature, str) or not _FEATURE.fullmatch(feature):
            raise _wrong("features", feature, "LLVM features such as '+neon' or '-aes'")


def _check_text(key: str, value: str) -> None:
    choices = {"arch": ARCHES, "libc": LIBCS, "issue": ISSUES}.get(key)
    if choices and value not in choices:
        raise _wrong(key, value, f"one of {', '.join(choices)}", did_you_mean(value, choices))
    if key in _PATTERNS and not re.fullmatch(_PATTERNS[key][0], value):
        raise _wrong(key, value, _PATTERNS[key][1])
    if key == "name" and not is_name(value):
        raise _wrong(key, value, NAME_RULE)
    if key == "description" and not (value.strip() and value.isprintable()):
        raise _wrong(key, value, "one line of text")


def _wrong(key: str, value: object, expected: str, hint: str = "") -> ConfigError:
    return ConfigError(f"{key}: {value!r} is not valid; it must be {expected}", hint.strip())
