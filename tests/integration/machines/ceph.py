"""A real S3 that checks signatures: one Ceph monitor, one OSD in memory, one RADOS gateway.

Debian packages: ceph-mon, ceph-osd, ceph-common, radosgw. Up in about 15 seconds, 165 MB.
"""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.integration.machines.ports import free_ports, listens, wait_until

PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "radosgw", "radosgw-admin", "monmaptool")

_CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
keyring = {folder}/keyring
auth allow insecure global id reclaim = false
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon max pg per osd = 1000
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
mon cluster log file = {folder}/log/cluster.log
mon data = {folder}/mon
mon data avail crit = 1
mon data avail warn = 2
[osd]
osd objectstore = memstore
memstore device bytes = 1073741824
osd data = {folder}/osd
osd numa auto affinity = false
osd max object name len = 460
osd max object namespace len = 64
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
rgw dns name = localhost
rgw gc max objs = 1
rgw lc max objs = 1
rgw md log max shards = 1
rgw data log num shards = 1
rgw usage max shards = 1
rgw usage max user shards = 1
rgw objexp hints num shards = 1
rgw reshard num logs = 1
"""

_CAPS = {
    "mon.": ["--cap", "mon", "allow *"],
    "client.admin": ["--cap", "mon", "allow *", "--cap", "osd", "allow *"],
    "osd.0": ["--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"],
    "client.rgw.a": ["--cap", "mon", "allow rw", "--cap", "osd", "allow rwx"],
}


@dataclass(frozen=True)
class Gateway:
    """An S3 endpoint with one user who may do everything, and one who owns nothing."""

    endpoint: str
    access_key: str
    secret_key: str
    stranger_access_key: str
    stranger_secret_key: str


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """Start Ceph in ``folder`` (a short path: it holds Unix sockets) and end it afterwards."""
    for name in ("mon", "osd", "run", "log", "rgw"):
        (folder / name).mkdir()
    v2, v1, port = free_ports(3)
    fsid = str(uuid.uuid4())
    config = folder / "ceph.conf"
    config.write_text(_CONFIG.format(folder=folder, fsid=fsid, v2=v2, v1=v1, port=port))
    with contextlib.ExitStack() as stack:

        def run(program: str, *arguments: str | Path) -> None:
            command = [program, *map(str, arguments)]
            with (folder / "log/commands.log").open("ab") as log:
                subprocess.run(command, check=True, stdout=log, stderr=log, timeout=60)

        def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
            command = ["nice", program, "-f", "-c", str(config), *arguments]
            log = stack.enter_context((folder / f"log/{program}.out").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(_end, process)
            return process

        ceph = ("ceph", "-c", config, "--connect-timeout", "20")
        for name, caps in _CAPS.items():
            create = [] if (folder / "keyring").exists() else ["-C"]
            run("ceph-authtool", *create, folder / "keyring", "--gen-key", "-n", name, *caps)
        addresses = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, folder / "monmap")
        keys = ("--keyring", folder / "keyring")
        run("ceph-mon", "-c", config, "--mkfs", "-i", "a", "--monmap", folder / "monmap", *keys)
        start("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        run(*ceph, "osd", "new", osd)
        run(*ceph, "auth", "import", "-i", folder / "keyring")
        run(*ceph, "osd", "require-osd-release", "pacific", "--yes-i-really-mean-it")
        run("ceph-osd", "-c", config, "-i", "0", "--mkfs", "--osd-uuid", osd)
        start("ceph-osd", "-i", "0")
        rgw = start("radosgw", "-n", "client.rgw.a")
        wait_until(lambda: listens(port) or rgw.poll() is not None, 60, "radosgw listens")
        users = {"edgepack": ("EDGEACCESS", "edge-secret"), "stranger": ("STRANGER", "no-secret")}
        for name, (access, secret) in users.items():
            credentials = (f"--access-key={access}", f"--secret-key={secret}")
            admin = ("radosgw-admin", "-c", config, "user", "create", f"--uid={name}")
            run(*admin, f"--display-name={name}", *credentials)
        yield Gateway(f"http://127.0.0.1:{port}", *users["edgepack"], *users["stranger"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing in it is worth keeping: kill it."""
    process.kill()
    process.wait(20)
