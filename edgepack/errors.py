"""Every error that a user can meet, and the exit code each class answers with.

    EdgepackError          1   anything below; never raised itself
    ├── ConfigError        3   a setting, an option, a target profile, edgepack.toml
    ├── ModelError         4   the source model: not readable, not supported, shapes missing
    ├── CompileError       5   lowering or code generation failed, or the numbers are wrong
    ├── ToolchainError     6   zig, qemu-user or another tool is missing or failed
    ├── PackageError       7   an .epk that is not one: truncated, malformed, wrong contents
    ├── TrustError         8   a key, a signature, a digest or a version is refused
    ├── ChannelError       9   the way to the device: connection, credentials, storage
    └── DeviceError       10   the device itself refused or failed: disk, architecture, golden vectors

Exit code 2 is the command line's own (usage). A foreign exception is wrapped once, where it
enters, with ``raise ... from error``. ``message`` says what is wrong and where; ``hint`` says what
to do next, as a command to type where there is one.
"""

from __future__ import annotations


class EdgepackError(Exception):
    """Base of the tree: one clear line, a hint, and the exit code of its class."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(EdgepackError):
    """A setting, an option or a target profile is wrong."""

    exit_code = 3


class ModelError(EdgepackError):
    """The source model cannot be read or is not supported."""

    exit_code = 4


class CompileError(EdgepackError):
    """Compilation failed, or the compiled model computes other numbers than the reference."""

    exit_code = 5


class ToolchainError(EdgepackError):
    """A tool that edgepack runs is missing or failed."""

    exit_code = 6


class PackageError(EdgepackError):
    """A file is not a well-formed package."""

    exit_code = 7


class TrustError(EdgepackError):
    """A check of trust failed; ``check`` names it.

    ``check`` is one of ``package``, ``digest``, ``signature``, ``key``, ``statement``, ``version``.
    """

    exit_code = 8

    def __init__(self, message: str, hint: str = "", *, check: str = "signature") -> None:
        super().__init__(message, hint)
        self.check = check


class ChannelError(EdgepackError):
    """The way to the device failed: connection, credentials, storage."""

    exit_code = 9


class DeviceError(EdgepackError):
    """The device refused or failed; ``check`` names the agent's check where it gave one."""

    exit_code = 10

    def __init__(self, message: str, hint: str = "", *, check: str = "") -> None:
        super().__init__(message, hint)
        self.check = check
