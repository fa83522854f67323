"""A real OpenSSH server on a loopback port, with keys of its own; ~/.ssh is not touched.

Debian packages: openssh-server, openssh-client.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.integration.machines.ports import free_ports, listens, wait_until

PROGRAMS = ("sshd", "ssh-keygen", "ssh-agent", "ssh-add")

_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/hostkey
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers {user}
MaxStartups 100
SetEnv SHLVL=2
{more}
"""
# SHLVL: bash under sshd reads the user's .bashrc, but at its first level only.
_CLIENT = """
Host {alias}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {identity}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {known_hosts}
  GlobalKnownHostsFile none
"""


def keygen(path: Path, passphrase: str = "") -> Path:
    """A new Ed25519 key pair at ``path`` and ``path``.pub."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase]
    command += ["-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True)
    return path


@dataclass(frozen=True)
class SSHServer:
    """A running server, and the client configuration that leads to it as host ``device``."""

    folder: Path
    port: int
    user: str

    @property
    def identity(self) -> Path:
        """The private key that may log in."""
        return self.folder / "client"

    @property
    def host_key(self) -> str:
        """Type and base64 of the server's public key."""
        return " ".join((self.folder / "hostkey.pub").read_text().split()[:2])

    def known_hosts(self, name: str, port: int, key: str | None = None) -> Path:
        """A known_hosts file that has the server's key (or ``key``) under ``[127.0.0.1]:port``."""
        file = self.folder / name
        file.write_text(f"[127.0.0.1]:{port} {key or self.host_key}\n")
        return file

    def client_config(
        self,
        name: str,
        *,
        port: int | None = None,
        identity: Path | None = None,
        known_hosts: Path | None = None,
        more: str = "",
    ) -> Path:
        """An OpenSSH client configuration in which this server is called ``device``."""
        port = port or self.port
        file = self.folder / f"{name}.conf"
        known_hosts = known_hosts or self.known_hosts(f"{name}.known_hosts", port)
        text = _CLIENT.format(
            alias="device",
            port=port,
            user=self.user,
            identity=identity or self.identity,
            known_hosts=known_hosts,
        )
        file.write_text(text + more)
        return file


@contextlib.contextmanager
def ssh_server(folder: Path, *, sftp: bool = True, more: str = "") -> Iterator[SSHServer]:
    """Start sshd in ``folder`` and end it afterwards."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (port,) = free_ports(1)
    keygen(folder / "hostkey")
    keygen(folder / "client")
    (folder / "authorized_keys").write_bytes((folder / "client.pub").read_bytes())
    if sftp:
        more += "\nSubsystem sftp internal-sftp\n"
    config = folder / "sshd_config"
    user = getpass.getuser()
    config.write_text(_SERVER.format(port=port, folder=folder, user=user, more=more))
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=log)
        try:
            wait_until(lambda: listens(port) or process.poll() is not None, 20, "sshd listens")
            assert process.poll() is None, (folder / "sshd.log").read_text()
            yield SSHServer(folder, port, user)
        finally:
            process.terminate()
            process.wait(20)
