"""A whole arm64 machine: Debian's kernel under qemu-system-aarch64, with a disk that stays.

Debian packages: qemu-system-arm, qemu-utils, qemu-user-static, e2fsprogs, cpio. No root, no KVM. The
image is built once in 20 seconds and kept in the cache directory; a boot takes about
3, with systemd 6.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgepack import toolchain
from tests.integration.machines.ports import free_ports, wait_until
from tests.integration.machines.sshd import SSHServer, keygen

PROGRAMS = (
    "qemu-system-aarch64",
    "qemu-img",
    "qemu-aarch64-static",
    "mke2fs",
    "cpio",
    "apt-get",
    "ssh-keygen",
)
SYSTEMD = "/lib/systemd/systemd"
_SCRIPT = Path(__file__).parent / "build_arm64.sh"


def image() -> Path:
    """The folder with kernel, initramfs, disk and host key, built if the script has changed."""
    name = "arm64-" + hashlib.sha256(_SCRIPT.read_bytes()).hexdigest()[:16]
    folder = toolchain.cache_directory() / "tests" / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as built:
            done = subprocess.run(["bash", _SCRIPT, built], capture_output=True, text=True)
            assert done.returncode == 0, f"{_SCRIPT.name} failed: {done.stderr[-2000:]}"
            with contextlib.suppress(OSError):  # another test run was faster
                Path(built).rename(folder)
            Path(built).mkdir(exist_ok=True)
    return folder


@dataclass
class Machine:
    """One machine with a disk of its own; off until ``boot``."""

    folder: Path
    image: Path
    port: int
    http_port: int
    """Of the served API."""
    init: str
    """The first process: a script that starts the agent at boot, or systemd, which starts units."""
    boots: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def server(self) -> SSHServer:
        """How it is reached: as host ``device``, user root."""
        return SSHServer(self.folder, self.port, "root")

    def boot(self, clock: str = "utc") -> None:
        """Switch it on, and wait until its init has come through.

        ``clock`` is what its clock shows then: ``1970-01-01T00:01:00``, or what qemu's -rtc base takes.
        """
        assert self._process is None
        self.boots += 1
        console = self.folder / f"console-{self.boots}.log"
        process = self._process = subprocess.Popen(
            [*self._command(), "-rtc", f"base={clock}", "-serial", f"file:{console}"]
        )

        def is_ready() -> bool:
            assert process.poll() is None, f"qemu has ended: {console.read_text()[-2000:]}"
            return console.exists() and "MACHINE READY" in console.read_text(errors="replace")

        wait_until(is_ready, 90, "the machine boots")

    def cut_power(self) -> None:
        """What was not written to the disk is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def reboot_in_order(self, shut_down: Callable[[], object]) -> None:
        """``shut_down`` tells the machine to reboot; what runs there may end as it likes to."""
        process = self._process
        assert process is not None
        shut_down()
        wait_until(lambda: process.poll() is not None, 60, "the machine goes down")
        self._process = None
        self.boot()

    def _command(self) -> list[str]:
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-m", "512"]
        command += ["-display", "none", "-monitor", "none", "-no-reboot"]
        command += ["-kernel", f"{self.image}/vmlinuz", "-initrd", f"{self.image}/initrd.cpio"]
        command += ["-append", f"console=ttyAMA0 quiet panic=-1 PID1={self.init}"]
        disks = (("disk.qcow2", "qcow2", "off"), ("authorized_keys.img", "raw", "on"))
        for name, form, readonly in disks:
            file = f"file={self.folder}/{name},format={form},readonly={readonly}"
            command += ["-drive", f"{file},if=none,id={form}"]
            command += ["-device", f"virtio-blk-pci,drive={form}"]
        forward = f"hostfwd=tcp:127.0.0.1:{self.port}-:22"
        forward += f",hostfwd=tcp:127.0.0.1:{self.http_port}-:8080"
        command += ["-netdev", f"user,id=net,restrict=on,{forward}"]
        return [*command, "-device", "virtio-net-pci,netdev=net,romfile="]


@contextlib.contextmanager
def machine(folder: Path, init: str = "/sbin/edge-init") -> Iterator[Machine]:
    """A machine whose disk is an overlay in ``folder``."""
    source = image()
    (folder / "hostkey.pub").write_bytes((source / "hostkey.pub").read_bytes())
    keys = folder / "authorized_keys.img"
    keys.write_bytes(keygen(folder / "client").with_suffix(".pub").read_bytes())
    os.truncate(keys, 4096)
    overlay = ["-b", f"{source}/disk.ext4", "-F", "raw", f"{folder}/disk.qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *overlay], check=True)
    port, http_port = free_ports(2)
    found = Machine(folder, source, port, http_port, init)
    try:
        yield found
    finally:
        found.cut_power()
