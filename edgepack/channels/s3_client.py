"""The S3 client, and one clear line for each way in which S3 says no."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgepack.channels.channel import ChannelOptions
from edgepack.errors import ChannelError, ConfigError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 3

# S3's error codes, in the words of somebody who has to do something about it.
_REFUSALS = {
    "SignatureDoesNotMatch": ("the secret access key is wrong", "Check AWS_SECRET_ACCESS_KEY"),
    "InvalidAccessKeyId": ("the access key is not known there", "Check AWS_ACCESS_KEY_ID"),
    "ExpiredToken": ("the session token has expired", "aws sso login"),
    "InvalidToken": ("the session token is not valid", "Check AWS_SESSION_TOKEN"),
    "NoSuchBucket": ("there is no such bucket", "aws s3 mb s3://{bucket}"),
    "AccessDenied": ("access denied", "See the permissions that a push needs in docs/channels.md"),
    "403": ("access denied", "See the permissions that a push needs in docs/channels.md"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "timedatectl"),
    "PermanentRedirect": ("the bucket is in another region", "Set AWS_REGION"),
    "301": ("the bucket is in another region", "Set AWS_REGION"),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "Set AWS_REGION"),
    "QuotaExceeded": ("the storage is full", "Make room or raise the quota, and push again"),
    "BadDigest": ("an upload arrived damaged", "Push again"),
    "InvalidBucketName": ("the name is not one of a bucket", "Write s3://bucket/prefix"),
}


def connect(options: ChannelOptions) -> S3Client:
    """A client with bounded retries; ChannelError where boto3 is not installed."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise ChannelError("S3 needs boto3", "pip install 'edgepack[s3]'") from error
    config = Config(
        connect_timeout=options.connect_timeout,
        read_timeout=4 * options.connect_timeout,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        # We give SHA-256 checksums ourselves; many stores do not know the CRC trailers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        # A session of our own: the default one keeps the first credentials and is for one thread.
        return boto3.Session().client("s3", config=config)
    except ValueError as error:  # what botocore raises for an endpoint that is no URL
        raise ConfigError(f"S3: {_short(error)}", "Check AWS_ENDPOINT_URL_S3") from error


def error_code(error: ClientError) -> str:
    """S3's code such as ``NoSuchKey``; for answers without a body the HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def clear_errors(bucket: str) -> Iterator[None]:
    """Turn what boto3 raises into ChannelError, and its configuration errors into ConfigError."""
    try:
        from botocore import exceptions as boto
    except ImportError as error:
        raise ChannelError("S3 needs boto3", "pip install 'edgepack[s3]'") from error
    try:
        yield
    except boto.ClientError as error:
        code = error_code(error)
        text = error.response.get("Error", {}).get("Message") or f"S3 answered {code}"
        reason, hint = _REFUSALS.get(code, (text, ""))
        raise ChannelError(f"s3://{bucket}: {reason}", hint.format(bucket=bucket)) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise ChannelError(
            f"s3://{bucket}: no credentials",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        ) from error
    except (boto.HTTPClientError, boto.ConnectionError) as error:
        endpoint = getattr(error, "kwargs", {}).get("endpoint_url", "S3")
        raise ChannelError(
            f"s3://{bucket}: {endpoint} cannot be reached ({_short(error)})",
            "Check the network and AWS_ENDPOINT_URL_S3",
        ) from error
    except boto.BotoCoreError as error:
        raise ConfigError(
            f"s3://{bucket}: {_short(error)}", "Check ~/.aws/config and the AWS_ variables"
        ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
