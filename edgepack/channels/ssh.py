"""``ssh://[user@]host[:port][/root]``: straight into a device's store, where its agent installs it.

    1. the agent says what it is and what it has
    2. what cannot be installed is refused here, before anything is sent
    3. a thin package, with the blobs only that the device lacks, goes to ROOT/incoming/*.epk.part
    4. size compared, renamed to *.epk
    5. the agent verifies, runs the golden vectors, switches; its answer is ours

Until the agent switches the old version serves, whenever the connection is cut; what an earlier push
left behind is removed by the next.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from edgepack.artefacts import Package, PackagedTarget, PushResult, SignedPackage
from edgepack.channels.agent import Agent
from edgepack.channels.channel import (
    ChannelOptions,
    PackageContents,
    signature_envelope,
    target_blobs,
)
from edgepack.channels.device_status import DeviceStatus
from edgepack.channels.ssh_session import Progress, UploadFailedError, open_session
from edgepack.errors import ChannelError, DeviceError, TrustError
from edgepack.naming import parse_version

_SPARE_BYTES = 1 << 20
"""What the agent wants to be free beyond the blobs themselves."""


def push(
    package: SignedPackage, url: str, *, contents: PackageContents, options: ChannelOptions
) -> PushResult:
    """Install ``package`` on the device that ``url`` names.

    Raises:
        ConfigError: The URL or the SSH configuration is wrong.
        ChannelError: The device cannot be reached, or the connection was lost.
        TrustError: The device has a newer version, or does not trust the package's keys.
        DeviceError: Another target, no agent, no room, or golden vectors that do not come out right.
    """
    signature_envelope(package)
    inner = package.package
    with open_session(url, options) as (session, place):
        agent = Agent(session, place.root, url)
        status = agent.status()
        target = _target_for(inner, status, session.name)
        _refuse_to_go_back(inner, target, status, session.name)
        present = agent.blobs()
        _remove_leftovers(agent, inner)
        with tempfile.TemporaryDirectory(prefix="edgepack-push-") as folder:
            thin = Path(folder) / "thin.epk"
            written = contents.write_thin(inner, target.name, present, thin)
            sent_bytes = thin.stat().st_size
            needed = _room_needed(target, present, sent_bytes)
            if status.disk_free < needed:
                raise _no_room(session.name, status.disk_free, needed)
            upload = f"{place.root}/incoming/{_upload_name(inner)}"
            _upload(agent, thin, upload, needed, options.progress)
        try:
            answer = agent.call("install", upload, timeout=options.install_timeout)
        finally:
            _remove(agent, [upload])
    return PushResult(
        channel="ssh",
        destination=url,
        sent_blobs=written.sent_blobs,
        sent_bytes=sent_bytes,
        skipped_blobs=written.skipped_blobs,
        detail={
            "model": inner.name,
            "version": inner.version,
            "target": target.name,
            "previous": answer.get("previous"),
            "changed": answer.get("changed", True),
        },
    )


def _target_for(package: Package, status: DeviceStatus, device: str) -> PackagedTarget:
    """The package's target for this device."""
    names = ", ".join(target.name for target in package.targets)
    for target in package.targets:
        if target.name == status.target:
            if target.arch == status.arch:
                return target
            raise DeviceError(
                f"{device} is {status.arch}, but target {target.name} of the package is for "
                f"{target.arch}",
                "edgepack device setup URL --target TARGET, with the device's own target",
                check="target",
            )
    raise DeviceError(
        f"{device} is a {status.target}; {package.name} {package.version} is for {names}",
        f"edgepack compile MODEL --target {status.target}",
        check="target",
    )


def _refuse_to_go_back(
    package: Package, target: PackagedTarget, status: DeviceStatus, device: str
) -> None:
    """What the agent would refuse for its version: say so before anything is sent."""
    installed = next((model for model in status.models if model.name == package.name), None)
    if installed is None:
        return
    hint = "Compile it again with a higher --version"
    if parse_version(package.version) < parse_version(installed.floor):
        raise TrustError(
            f"{device} has had {package.name} {installed.floor}; {package.version} is lower",
            hint,
            check="version",
        )
    current = installed.current
    manifest = target.manifest.removeprefix("sha256:")
    if current and current.version == package.version and current.manifest != manifest:
        raise TrustError(
            f"{device} has {package.name} {package.version} with other contents",
            hint,
            check="version",
        )


def _room_needed(target: PackagedTarget, present: frozenset[str], upload: int) -> int:
    """Bytes for the upload and, beside it, for the blobs that the agent takes out of it."""
    blobs = (
        size
        for digest, size in target_blobs(target).items()
        if digest.removeprefix("sha256:") not in present
    )
    return upload + sum(blobs) + _SPARE_BYTES


def _no_room(device: str, free: int, needed: int) -> DeviceError:
    return DeviceError(
        f"{device} has no room: {free} bytes are free, {needed} are needed",
        "Make room on the device",
        check="disk",
    )


def _upload_name(package: Package) -> str:
    return f"{package.name}-{package.digest.removeprefix('sha256:')}.epk"


def _upload(agent: Agent, thin: Path, path: str, needed: int, progress: Progress | None) -> None:
    size, part = thin.stat().st_size, f"{path}.part"
    try:
        with thin.open("rb") as source:
            agent.session.upload(source, size, part, progress)
    except UploadFailedError as error:
        full = agent.status().disk_free < _SPARE_BYTES
        _remove(agent, [part])
        if full:  # SFTP itself says no more than "Failure"
            raise _no_room(agent.session.name, agent.status().disk_free, needed) from error
        raise DeviceError(
            f"{agent.session.name}: {part} cannot be written: {error}",
            "Check the owner and mode of its directory, and the user in the URL",
            check="disk",
        ) from error
    done = agent.session.run(["mv", "-f", "--", part, path])
    if done.status != 0:
        raise DeviceError(
            f"{agent.session.name}: {part} cannot be renamed: {done.last_words()}", check="disk"
        )


def _remove_leftovers(agent: Agent, package: Package) -> None:
    """Remove what pushes of this model that were cut off have left."""
    ours = re.compile(re.escape(package.name) + r"-[0-9a-f]{64}\.epk(\.part)?")
    folder = f"{agent.root}/incoming"
    listed = agent.session.run(["ls", "-1", "--", folder])
    names = filter(ours.fullmatch, listed.stdout.decode(errors="replace").splitlines())
    _remove(agent, [f"{folder}/{name}" for name in names])


def _remove(agent: Agent, paths: list[str]) -> None:
    """Tidy up as well as can be; the next push removes what stays."""
    if paths:
        try:
            agent.session.run(["rm", "-f", "--", *paths])
        except ChannelError:
            return
