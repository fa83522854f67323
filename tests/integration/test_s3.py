from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

import edgepack.package
from edgepack import captures
from edgepack.artefacts import Package, PushResult, SignedPackage
from edgepack.channels import ChannelOptions, PackageContents, push
from edgepack.channels.channel import package_blobs
from edgepack.errors import ChannelError, ConfigError, TrustError
from edgepack.trust import new_key, verify
from tests import package_samples
from tests.capture_samples import segment
from tests.integration.machines import ceph, sshd
from tests.integration.machines.local_device import agent_binary, local_device
from tests.integration.machines.models import compile_linear
from tests.integration.machines.models import signed as signed_model
from tests.integration.machines.ports import free_ports
from tests.integration.machines.proxy import cutter

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.needs(*ceph.PROGRAMS)
KEY = new_key("ecdsa-p256")
BIG = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(40 << 15))  # 40 MiB


@pytest.fixture(scope="module")
def gateway() -> Iterator[ceph.Gateway]:
    # Not tmp_path: a Unix socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ceph") as folder, ceph.gateway(Path(folder)) as found:
        yield found


@pytest.fixture(autouse=True)
def credentials(gateway: ceph.Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL_S3": gateway.endpoint,
        "AWS_ACCESS_KEY_ID": gateway.access_key,
        "AWS_SECRET_ACCESS_KEY": gateway.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(credentials: None) -> Iterator[S3Client]:
    import boto3

    client = boto3.client("s3")
    yield client
    client.close()


@pytest.fixture
def bucket(s3: S3Client, request: pytest.FixtureRequest) -> str:
    name = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    s3.create_bucket(Bucket=name)
    return name


def signed(path: Path, version: str = "1.2.0", **changes: Any) -> SignedPackage:
    package = package_samples.write(path, version=version, **changes)
    return verify(package_samples.signed(package, KEY), [])


def publish(
    package: SignedPackage, bucket: str, contents: PackageContents = edgepack.package
) -> PushResult:
    return push(package, f"s3://{bucket}/fleet", contents=contents)


def objects(s3: S3Client, bucket: str) -> dict[str, bytes]:
    listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {
        entry["Key"]: s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in listed
    }


def pointer(s3: S3Client, bucket: str) -> bytes:
    return s3.get_object(Bucket=bucket, Key="fleet/models/demo.json")["Body"].read()


def test_layout_is_blobs_by_digest_and_the_envelope_as_pointer(
    tmp_path: Path, s3: S3Client, bucket: str
) -> None:
    package = signed(tmp_path / "a.epk")
    result = publish(package, bucket)
    there = objects(s3, bucket)
    assert there.pop("fleet/models/demo.json") == package.package.envelope
    assert set(there) == {f"fleet/blobs/sha256/{d[7:]}" for d in package_blobs(package.package)}
    for key, content in there.items():
        assert key.endswith(hashlib.sha256(content).hexdigest())
    assert (result.sent_blobs, result.skipped_blobs) == (len(there), 0)


def test_second_push_sends_nothing_and_a_new_version_only_what_is_new(
    tmp_path: Path, s3: S3Client, bucket: str
) -> None:
    package = signed(tmp_path / "a.epk")
    publish(package, bucket)
    again = publish(package, bucket)
    assert (again.sent_blobs, again.detail["changed"]) == (0, False)
    newer = signed(tmp_path / "b.epk", version="1.3.0")
    result = publish(newer, bucket)
    assert (result.sent_blobs, result.skipped_blobs) == (3, 3)  # worker, weights, golden stay
    assert pointer(s3, bucket) == newer.package.envelope


@pytest.mark.parametrize(("version", "weights"), [("1.1.9", b"old"), ("1.2.0", b"other")])
def test_lower_version_and_other_contents_of_the_same_version_are_refused(
    tmp_path: Path, s3: S3Client, bucket: str, version: str, weights: bytes
) -> None:
    publish(signed(tmp_path / "a.epk"), bucket)
    before = objects(s3, bucket)
    with pytest.raises(TrustError) as caught:
        publish(signed(tmp_path / "b.epk", version=version, weights=weights), bucket)
    assert caught.value.check == "version"
    assert objects(s3, bucket) == before


def test_large_blob_travels_in_parts_and_arrives_whole(
    tmp_path: Path, s3: S3Client, bucket: str
) -> None:
    package = signed(tmp_path / "a.epk", weights=BIG)
    publish(package, bucket)
    key = f"fleet/blobs/sha256/{package.package.targets[0].weights[7:]}"
    answer = s3.get_object(Bucket=bucket, Key=key)
    assert answer["ETag"].rstrip('"').endswith("-3")
    assert answer["Body"].read() == BIG


class Hooked:
    """Package contents that call ``hook`` when a blob is opened, and read through ``wrap``."""

    def __init__(
        self, hook: Callable[[], object], wrap: Callable[[BinaryIO], BinaryIO] = lambda blob: blob
    ) -> None:
        self.hook, self.wrap = hook, wrap

    def open_blob(self, package: Package, digest: str) -> BinaryIO:
        self.hook()
        return self.wrap(edgepack.package.open_blob(package, digest))

    write_thin = staticmethod(edgepack.package.write_thin)


class Breaks(io.BytesIO):
    """A blob that cannot be read beyond its first 20 MiB."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 20 << 20:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_upload_in_parts_that_breaks_off_leaves_nothing_behind(
    tmp_path: Path, s3: S3Client, bucket: str
) -> None:
    package = signed(tmp_path / "a.epk", weights=BIG)
    broken = Hooked(lambda: None, lambda blob: cast("BinaryIO", Breaks(blob.read())))
    with pytest.raises(OSError, match="Input/output"):
        publish(package, bucket, broken)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    assert "fleet/models/demo.json" not in objects(s3, bucket)
    publish(package, bucket)
    assert pointer(s3, bucket) == package.package.envelope


@pytest.mark.parametrize("before", [True, False], ids=["replacing", "first"])
def test_pointer_that_another_push_changed_meanwhile_is_not_overwritten(
    tmp_path: Path, s3: S3Client, bucket: str, before: bool
) -> None:
    if before:
        publish(signed(tmp_path / "a.epk"), bucket)
    other = signed(tmp_path / "other.epk", version="1.4.0", weights=b"other")
    interloper = Hooked(lambda: publish(other, bucket))
    mine = signed(tmp_path / "b.epk", version="1.3.0", weights=b"mine")
    with pytest.raises(ChannelError, match="another push") as caught:
        publish(mine, bucket, interloper)
    assert caught.value.hint == "Try again"
    assert pointer(s3, bucket) == other.package.envelope
    with pytest.raises(TrustError):
        publish(mine, bucket)


def test_of_pushes_at_once_exactly_those_that_won_say_so(
    tmp_path: Path, s3: S3Client, bucket: str
) -> None:
    """With the highest version last in line, no lower one may be there in the end once it won."""
    publish(signed(tmp_path / "a.epk"), bucket)
    packages = [
        signed(tmp_path / f"{n}.epk", version=f"1.3.{n}", weights=b"%d" % n) for n in range(5)
    ]
    start = threading.Barrier(len(packages))
    won: list[SignedPackage] = []
    lost: list[Exception] = []

    def one(package: SignedPackage) -> None:
        start.wait(30)
        try:
            publish(package, bucket)
            won.append(package)
        except (ChannelError, TrustError) as error:
            lost.append(error)

    threads = [threading.Thread(target=one, args=(package,)) for package in packages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) + len(lost) == len(packages)
    assert won
    last = max(won, key=lambda package: package.package.version)
    assert pointer(s3, bucket) == last.package.envelope


def test_damaged_object_is_named(tmp_path: Path, s3: S3Client, bucket: str) -> None:
    package = signed(tmp_path / "a.epk")
    key = f"fleet/blobs/sha256/{package.package.targets[0].weights[7:]}"
    s3.put_object(Bucket=bucket, Key=key, Body=b"cut")
    with pytest.raises(ChannelError, match="is damaged") as caught:
        publish(package, bucket)
    assert f"aws s3 rm s3://{bucket}/{key}" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "secret access key is wrong"),
        ({"AWS_ACCESS_KEY_ID": "NOBODY"}, "access key is not known"),
        ({"AWS_ACCESS_KEY_ID": "STRANGER", "AWS_SECRET_ACCESS_KEY": "no-secret"}, "access denied"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials"),
    ],
)
def test_credentials_that_are_refused_are_one_clear_line(
    tmp_path: Path,
    s3: S3Client,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    reason: str,
) -> None:
    package = signed(tmp_path / "a.epk")
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ChannelError, match=reason) as caught:
        publish(package, bucket)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert objects(s3, bucket) == {}


def test_missing_bucket_is_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="no such bucket") as caught:
        publish(signed(tmp_path / "a.epk"), "nobodys-bucket")
    assert caught.value.hint == "aws s3 mb s3://nobodys-bucket"


def test_unreachable_endpoint_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    with pytest.raises(ChannelError, match=f"127.0.0.1:{port}.* cannot be reached"):
        publish(signed(tmp_path / "a.epk"), "bucket")


def test_endpoint_that_is_none_is_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(ConfigError, match="endpoint"):
        publish(signed(tmp_path / "a.epk"), "bucket")


def test_missing_profile_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="nobody"):
        publish(signed(tmp_path / "a.epk"), "bucket")


@pytest.mark.parametrize("limit", [0, 500, 5_000, 1_000_000])
def test_connection_cut_in_the_upload_keeps_the_old_pointer(
    tmp_path: Path,
    s3: S3Client,
    bucket: str,
    gateway: ceph.Gateway,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
) -> None:
    old = signed(tmp_path / "a.epk")
    publish(old, bucket)
    newer = signed(tmp_path / "b.epk", version="1.3.0", weights=BIG[: 3 << 20])
    with cutter(int(gateway.endpoint.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        proxy.limit = limit
        with pytest.raises(ChannelError, match="cannot be reached"):
            push(
                newer,
                f"s3://{bucket}/fleet",
                contents=edgepack.package,
                options=ChannelOptions(connect_timeout=2),
            )
        assert proxy.cuts
        assert pointer(s3, bucket) == old.package.envelope
        proxy.limit = None
        publish(newer, bucket)
    assert pointer(s3, bucket) == newer.package.envelope


@pytest.mark.needs(*sshd.PROGRAMS)
def test_device_pulls_from_a_bucket_whose_policy_lets_it_read(
    tmp_path: Path, s3: S3Client, bucket: str, gateway: ceph.Gateway
) -> None:
    package = signed_model(compile_linear(tmp_path, "1.0.0", "host", seed=1))
    publish(package, bucket)
    source = f"{gateway.endpoint}/{bucket}/fleet"
    with sshd.ssh_server(tmp_path) as server, local_device(server) as device:
        code, answer = device.agent("pull", source, "linear")
        assert (code, answer["ok"]) == (ChannelError.exit_code, False), "not open yet"
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(read_policy(bucket)))
        code, answer = device.agent("pull", source, "linear")
        assert code == 0, answer
        newer = signed_model(compile_linear(tmp_path, "1.1.0", "host", seed=2))
        publish(newer, bucket)
        assert device.agent("pull", source)[0] == 0
        assert device.version() == "1.1.0"


def test_bucket_with_a_read_policy_is_a_web_root(
    tmp_path: Path, s3: S3Client, bucket: str, gateway: ceph.Gateway
) -> None:
    """The policy of docs/channels.md opens the prefix, and nothing beside it, to devices."""
    package = signed(tmp_path / "a.epk")
    publish(package, bucket)
    s3.put_object(Bucket=bucket, Key="private", Body=b"not for devices")
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(read_policy(bucket)))
    url = f"{gateway.endpoint}/{bucket}"
    with urllib.request.urlopen(f"{url}/fleet/models/demo.json", timeout=10) as answer:
        assert answer.read() == package.package.envelope
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        urllib.request.urlopen(f"{url}/private", timeout=10)
    caught.value.close()


def test_agent_pushes_captures_by_a_presigned_form(
    tmp_path: Path, s3: S3Client, bucket: str, gateway: ceph.Gateway
) -> None:
    """One signature, made by who has the keys, for all that is below a prefix and for nothing else."""
    prefix = "captures/"
    form = s3.generate_presigned_post(
        bucket, prefix + "${filename}", Conditions=[["starts-with", "$key", prefix]]
    )
    root = tmp_path / "device"
    for numbers in ([1, 2, 3], [1025, 1026]):
        segment(root / "captures" / "m", numbers, model="m", size=3)
    settings = {"url": f"{gateway.endpoint}/{bucket}", "form": form["fields"]}
    (root / "push.json").write_text(json.dumps(settings))
    command = [str(agent_binary("host")), "--root", str(root), "capture", "push"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"ok": True, "records": 5}), done
    device = (root / "captures" / ".device").read_text()
    assert list(objects(s3, bucket)) == [
        f"captures/{device}/m/000000000001-000000000003.epc",
        f"captures/{device}/m/000000001025-000000001026.epc",
    ]
    (tmp_path / "came").mkdir()
    for key, content in objects(s3, bucket).items():
        (tmp_path / "came" / Path(key).name).write_bytes(content)
    came = list(captures.read(tmp_path / "came"))
    assert [record.number for record in came] == [1, 2, 3, 1025, 1026]

    (root / "captures" / "m" / "pushed").unlink()
    form["fields"]["key"] = "elsewhere/${filename}"
    (root / "push.json").write_text(json.dumps(settings))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "answers 403" in done.stdout) == (9, True), done


def documented_policies(bucket: str) -> list[dict[str, Any]]:
    """Those of docs/channels.md: what a push needs, what devices need."""
    text = (Path(__file__).parents[2] / "docs/channels.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    return [
        json.loads(block.replace("BUCKET", bucket).replace("PREFIX", "fleet")) for block in blocks
    ]


def read_policy(bucket: str) -> dict[str, Any]:
    return documented_policies(bucket)[1]


def test_documented_permissions_are_enough_for_a_push_and_no_more(
    tmp_path: Path,
    s3: S3Client,
    bucket: str,
    gateway: ceph.Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = documented_policies(bucket)[0]
    for statement in policy["Statement"]:
        statement["Principal"] = {"AWS": ["arn:aws:iam:::user/stranger"]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", gateway.stranger_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", gateway.stranger_secret_key)
    publish(signed(tmp_path / "a.epk"), bucket)
    newer = signed(tmp_path / "b.epk", version="1.3.0", weights=BIG)
    assert publish(newer, bucket).detail["changed"] is True
    assert publish(newer, bucket).detail["changed"] is False
    with pytest.raises(ChannelError, match="access denied"):
        push(newer, f"s3://{bucket}/elsewhere", contents=edgepack.package)
