from __future__ import annotations

import sys
from pathlib import Path

import pytest

import edgepack.package
from edgepack.channels import push
from edgepack.channels.s3 import split_url
from edgepack.errors import ChannelError, ConfigError
from edgepack.trust import new_key, verify
from tests import package_samples


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://models", "models", ""),
        ("s3://models/", "models", ""),
        ("s3://models/fleet/a/", "models", "fleet/a"),
        ("s3://my.bucket-1/x_y", "my.bucket-1", "x_y"),
    ],
)
def test_urls(url: str, bucket: str, prefix: str) -> None:
    assert split_url(url) == (bucket, prefix)


@pytest.mark.parametrize(
    "url", ["s3:", "s3://", "s3:bucket", "s3:///x", "s3://b/../x", "s3://b/a//b", "s3://b/a b"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError):
        split_url(url)


def test_missing_boto3_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = package_samples.write(tmp_path / "a.epk")
    signed = verify(package_samples.signed(package, new_key("ed25519")), [])
    for name in [name for name in sys.modules if name.startswith(("boto3", "botocore"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(ChannelError) as caught:
        push(signed, "s3://bucket/x", contents=edgepack.package)
    assert caught.value.hint == "pip install 'edgepack[s3]'"
