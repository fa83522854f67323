"""``s3://bucket/prefix``: a bucket that devices pull from, over HTTP or presigned URLs.

The layout is pointer.py's. Blobs are put with ``If-None-Match: *`` and never replaced. The pointer
comes last, by a conditional put: of two pushes at once, one gets a ChannelError, and none is lost.
Endpoint, region and credentials come from where boto3 takes them: AWS_ENDPOINT_URL_S3,
AWS_PROFILE, ~/.aws, instance roles.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.artefacts import Package, PushResult, SignedPackage
from edgepack.channels.channel import (
    ChannelOptions,
    PackageContents,
    package_blobs,
    signature_envelope,
)
from edgepack.channels.pointer import blob_path, pointer_path, read_pointer, refuse_to_go_back
from edgepack.channels.s3_client import clear_errors, connect, error_code
from edgepack.errors import ChannelError, ConfigError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_PART_BYTES = 16 << 20
"""A larger object goes up in parts; 10,000 parts are S3's limit, so 160 GB are ours."""
_BUCKET = re.compile(r"[a-z0-9A-Z][a-z0-9A-Z._-]{1,254}")
_KEY = re.compile(r"[A-Za-z0-9!_.*'()/-]*")
_PRECONDITION = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket, the folder in it, and the client that speaks to it."""

    client: S3Client
    name: str
    prefix: str

    def key(self, path: str) -> str:
        """The object key of a path of the pull source."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def url(self, path: str = "") -> str:
        """The same for people."""
        return f"s3://{self.name}/{self.key(path)}".rstrip("/")


def push(
    package: SignedPackage, url: str, *, contents: PackageContents, options: ChannelOptions
) -> PushResult:
    """Publish ``package`` in the bucket that ``url`` names.

    Raises:
        ConfigError: The URL names no bucket, or boto3's own configuration is wrong.
        ChannelError: No credentials, no such bucket, no access, no connection; or another push
            replaced the pointer meanwhile.
        TrustError: The bucket offers a newer version, or other contents of this version.
    """
    name, prefix = split_url(url)
    envelope = signature_envelope(package)
    inner = package.package
    blobs = package_blobs(inner)
    with clear_errors(name), contextlib.closing(connect(options)) as client:
        bucket = Bucket(client=client, name=name, prefix=prefix)
        path = pointer_path(inner.name)
        old = _get(bucket, path)
        if old is not None:
            there = read_pointer(old.body, bucket.url(path))
            refuse_to_go_back(inner, there, bucket.url())
        sent = _put_blobs(bucket, inner, blobs, contents, options.progress)
        changed = old is None or old.body != envelope
        if changed:
            _replace_pointer(bucket, path, envelope, old)
    return PushResult(
        channel="s3",
        destination=bucket.url(),
        sent_blobs=len(sent),
        sent_bytes=sum(sent.values()),
        skipped_blobs=len(blobs) - len(sent),
        detail={
            "model": inner.name,
            "version": inner.version,
            "pointer": bucket.url(path),
            "changed": changed,
        },
    )


def split_url(url: str) -> tuple[str, str]:
    """Bucket and prefix (without slashes around it, possibly empty) of ``s3://bucket/prefix``."""
    rest = url.removeprefix("s3://")
    name, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if rest == url or not _BUCKET.fullmatch(name):
        raise ConfigError(f"{url!r} names no bucket", "Write s3://bucket/prefix")
    if not _KEY.fullmatch(prefix) or {"", ".", ".."} & set(prefix.split("/") if prefix else ()):
        raise ConfigError(
            f"the prefix in {url!r} is not fit for every S3",
            "Use letters, digits and ! _ . * ' ( ) - between single slashes",
        )
    return name, prefix


@dataclass(frozen=True, kw_only=True)
class _Object:
    body: bytes
    etag: str


def _get(bucket: Bucket, path: str) -> _Object | None:
    """A small object whole, or None where there is none."""
    from botocore.exceptions import ClientError

    try:
        answer = bucket.client.get_object(Bucket=bucket.name, Key=bucket.key(path))
        return _Object(body=answer["Body"].read(), etag=answer["ETag"])
    except ClientError as error:
        if error_code(error) in ("NoSuchKey", "404"):
            return None
        raise


def _put_blobs(
    bucket: Bucket,
    package: Package,
    blobs: dict[str, int],
    contents: PackageContents,
    progress: Callable[[int, int], None] | None,
) -> dict[str, int]:
    """Upload what is not there; returns sizes by digest of what was."""
    missing = {
        digest: size for digest, size in blobs.items() if _size(bucket, blob_path(digest)) != size
    }
    done, total = 0, sum(missing.values())
    sent = {}
    for digest, size in missing.items():
        if _put_blob(bucket, package, digest, size, contents):
            sent[digest] = size
        done += size
        if progress:
            progress(done, total)
    return sent


def _size(bucket: Bucket, path: str) -> int | None:
    """Size of an object; None where it is not there, or where we may not know (no s3:ListBucket)."""
    from botocore.exceptions import ClientError

    try:
        return bucket.client.head_object(Bucket=bucket.name, Key=bucket.key(path))["ContentLength"]
    except ClientError as error:
        if error_code(error) in ("404", "403", "NoSuchKey"):
            return None
        raise


def _put_blob(
    bucket: Bucket, package: Package, digest: str, size: int, contents: PackageContents
) -> bool:
    """Put one blob; False where somebody else has put it meanwhile, or we might not see it."""
    from botocore.exceptions import ClientError

    key = bucket.key(blob_path(digest))
    try:
        with contents.open_blob(package, digest) as blob:
            if size <= _PART_BYTES:
                bucket.client.put_object(
                    Bucket=bucket.name,
                    Key=key,
                    Body=blob.read(),
                    IfNoneMatch="*",
                    ChecksumSHA256=_base64(bytes.fromhex(digest.removeprefix("sha256:"))),
                )
            else:
                _put_in_parts(bucket, key, blob.read)
        return True
    except ClientError as error:
        if error_code(error) not in _PRECONDITION:
            raise
    there = _size(bucket, blob_path(digest))
    if there not in (size, None):
        raise ChannelError(
            f"{bucket.url(blob_path(digest))} has {there} bytes in the bucket, {size} in the "
            "package: the object is damaged",
            f"Remove it and push again: aws s3 rm {bucket.url(blob_path(digest))}",
        )
    return False


def _put_in_parts(bucket: Bucket, key: str, read: Callable[[int], bytes]) -> None:
    """Upload in parts, one in memory at a time; the object appears with the last call or never."""
    where: dict[str, Any] = {"Bucket": bucket.name, "Key": key}
    upload = bucket.client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
    parts: list[CompletedPartTypeDef] = []
    try:
        while chunk := read(_PART_BYTES):
            number = len(parts) + 1
            checksum = _base64(hashlib.sha256(chunk).digest())
            answer = bucket.client.upload_part(
                **where, UploadId=upload, PartNumber=number, Body=chunk, ChecksumSHA256=checksum
            )
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
        bucket.client.complete_multipart_upload(
            **where, UploadId=upload, IfNoneMatch="*", MultipartUpload={"Parts": parts}
        )
    except BaseException:
        _abort(bucket, where, upload)
        raise


def _abort(bucket: Bucket, where: dict[str, Any], upload: str) -> None:
    """Give back the room that the parts take; where that fails, the first error counts."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        bucket.client.abort_multipart_upload(**where, UploadId=upload)
    except (BotoCoreError, ClientError):
        return


def _replace_pointer(bucket: Bucket, path: str, envelope: bytes, old: _Object | None) -> None:
    """Put the pointer if it still is what we read, then read it back.

    RFC 9110 quotes entity tags. Ceph 16 answers 412 to a quoted If-Match and takes a bare one: so
    after a 412 with nothing changed we ask once more with the bare tag.
    """
    if old is None:
        _put_pointer(bucket, path, envelope, IfNoneMatch="*")
    elif not _put_pointer(bucket, path, envelope, IfMatch=old.etag) and _get(bucket, path) == old:
        _put_pointer(bucket, path, envelope, IfMatch=old.etag.strip('"'))
    # What is there now decides: a put may have arrived though its answer was lost and the retry was
    # refused, and a store that knows no conditions may have let a later push overwrite this one.
    there = _get(bucket, path)
    if there is None or there.body != envelope:
        raise ChannelError(f"{bucket.url(path)} was changed by another push meanwhile", "Try again")


def _put_pointer(bucket: Bucket, path: str, envelope: bytes, **condition: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        bucket.client.put_object(
            Bucket=bucket.name,
            Key=bucket.key(path),
            Body=envelope,
            ContentType="application/json",
            CacheControl="no-cache",
            ChecksumSHA256=_base64(hashlib.sha256(envelope).digest()),
            **condition,  # type: ignore[arg-type]
        )
        return True
    except ClientError as error:
        if error_code(error) in _PRECONDITION:
            return False
        raise


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
