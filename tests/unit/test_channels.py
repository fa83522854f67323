from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgepack.package
from edgepack.artefacts import PushResult, SignedPackage
from edgepack.channels import CHANNELS, URL_FORMS, ChannelOptions, PackageContents, push
from edgepack.errors import ConfigError, TrustError
from tests import package_samples

contents: PackageContents = edgepack.package


def signed_by_nobody(tmp_path: Path) -> SignedPackage:
    package = package_samples.write(tmp_path / "demo.epk")
    return SignedPackage(package=package, key_ids=(), trusted=False)


@pytest.mark.parametrize("url", ["", "demo", "ftp://host/x", "SSH://host", "http://host", ":x"])
def test_unknown_scheme_is_a_config_error_that_lists_the_valid_forms(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        push(signed_by_nobody(tmp_path), url, contents=contents)
    assert all(form in caught.value.hint for form in URL_FORMS)


def test_every_scheme_has_a_form_and_every_form_a_scheme() -> None:
    assert {form.partition(":")[0] for form in URL_FORMS} == set(CHANNELS)


@pytest.mark.parametrize("scheme", CHANNELS)
def test_every_channel_refuses_an_unsigned_package_before_it_goes_anywhere(
    tmp_path: Path, scheme: str
) -> None:
    url = {"ssh": "ssh://192.0.2.1/x", "s3": "s3://bucket/x"}.get(scheme, f"{scheme}:///proc/none")
    with pytest.raises(TrustError) as caught:
        push(signed_by_nobody(tmp_path), url, contents=contents)
    assert caught.value.check == "signature"
    assert "edgepack sign" in caught.value.hint


@pytest.mark.parametrize("scheme", CHANNELS)
def test_every_channel_is_a_module_with_push(scheme: str) -> None:
    declared: Callable[..., PushResult] = CHANNELS[scheme].push
    assert declared.__doc__
    assert ChannelOptions().install_timeout > ChannelOptions().connect_timeout


def test_channels_import_nothing_heavy_and_no_other_stage() -> None:
    script = (
        "import sys, edgepack.channels, edgepack.channels.device\n"
        "stages = 'importers quantize compiler toolchain package trust'.split()\n"
        "bad = ['paramiko', 'boto3', 'botocore', 'numpy', *[f'edgepack.{s}' for s in stages]]\n"
        "sys.exit(', '.join(name for name in bad if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
