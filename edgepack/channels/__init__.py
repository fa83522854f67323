"""Ways to a device. A channel is a module with ``push``, entered by hand in CHANNELS."""

from __future__ import annotations

from edgepack.artefacts import PushResult, SignedPackage
from edgepack.channels import directory, s3, ssh
from edgepack.channels.channel import Channel, ChannelOptions, PackageContents
from edgepack.errors import ConfigError

__all__ = ["CHANNELS", "URL_FORMS", "Channel", "ChannelOptions", "PackageContents", "push"]

CHANNELS: dict[str, Channel] = {
    "ssh": ssh,
    "dir": directory,
    "file": directory,
    "s3": s3,
}
"""Channel by the scheme of its URLs."""

URL_FORMS = (
    "ssh://[user@]host[:port][/root]",
    "dir:PATH",
    "file:///PATH",
    "s3://bucket/prefix",
)
"""How a destination of each channel is written."""


def push(
    package: SignedPackage,
    url: str,
    *,
    contents: PackageContents,
    options: ChannelOptions | None = None,
) -> PushResult:
    """Carry ``package`` to ``url`` by the channel that the URL's scheme names.

    Raises:
        ConfigError: The URL is not one of any channel.
        ChannelError: The way failed.
        TrustError: The destination has a newer version, or does not trust this one.
        DeviceError: The device refused the package or failed.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in CHANNELS:
        raise ConfigError(f"{url!r} is no destination", f"Valid forms: {', '.join(URL_FORMS)}")
    return CHANNELS[scheme].push(
        package, url, contents=contents, options=options or ChannelOptions()
    )
