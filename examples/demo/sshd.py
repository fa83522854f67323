"""A private SSH server on a loopback port, with keys of its own: the way to the demo's device."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


@contextlib.contextmanager
def private_sshd(folder: Path, host: str) -> Iterator[Path]:
    """Run sshd until the end of the block; yields an ssh_config that knows it as ``host``."""
    programs = {name: shutil.which(name, path=_PATH) for name in ("sshd", "ssh-keygen")}
    sshd, keygen = programs["sshd"], programs["ssh-keygen"]
    if sshd is None or keygen is None:
        sys.exit("the demo pushes over SSH: apt-get install openssh-server openssh-client")
    folder.mkdir(mode=0o700)
    for name in ("host_key", "client_key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    port = _free_port()
    _write_configs(folder, host, port)
    if os.getuid() == 0:  # where sshd separates privileges; its unit makes it otherwise
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
        try:
            _wait_for_banner(server, port, folder / "sshd.log")
            yield folder / "ssh_config"
        finally:
            server.terminate()
            server.wait(timeout=10)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _write_configs(folder: Path, host: str, port: int) -> None:
    user = getpass.getuser()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"PidFile {folder}/sshd.pid\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"AllowUsers {user}\nStrictModes no\nUsePAM no\nUseDNS no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\n"
    )
    key = (folder / "host_key.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    (folder / "ssh_config").write_text(
        f"Host {host}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
        f"  IdentityFile {folder}/client_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n"
    )


def _wait_for_banner(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and server.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
        ):
            if connection.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    sys.exit(f"sshd did not start: {log.read_text().strip()}")
