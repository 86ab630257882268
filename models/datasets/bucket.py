"""Users' tables in an S3-compatible bucket, by boto3, which finds endpoint and credentials in the AWS_... variables.

A file that arrives waits on this machine's disk until it was looked into, and goes to the bucket by one PutObject: S3
has all of it then or nothing, and there is no multipart upload that a dead process could leave behind.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from models.datasets.arrival import Arrival, arriving, hash_of, remove_older
from models.errors import BlobsUnavailable, DatasetCorrupt, DatasetRefused

INSTALL = "pip install 'gradsmith-server[s3]'"
LARGEST_BYTES = 5 * 2**30
"""The most that S3 takes in one PutObject."""
UNUSED_SECONDS = 7 * 86_400.0
"""A fetched file that no job used for so long is removed at the next fetch."""
_PART_BYTES = 1 << 20
_BRIEF_SECONDS = 3.0
"""How long a connection, and an answer, may take while others wait for a lock that the caller holds."""


@dataclass(frozen=True)
class Place:
    """prefix: what every key begins with, "" or with a slash at its end"""

    bucket: str
    prefix: str

    @classmethod
    def named(cls, url: str) -> Self:
        """The place of s3://BUCKET/PREFIX. Raises ValueError."""
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9!_.*'()-]+)*)/?", url)
        if found is None:
            raise ValueError("it must be s3://BUCKET or s3://BUCKET/PREFIX, such as s3://gradsmith/production")
        prefix = found[2].removeprefix("/")
        return cls(found[1], f"{prefix}/" if prefix else "")

    def key(self, sha256: str) -> str:
        """Where these bytes are."""
        return f"{self.prefix}blobs/{sha256}"

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class BucketBlobs:
    """Blobs as objects of a bucket. folder: of this machine, for what arrives and what was fetched."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place = place
        self._coming = folder / ".arriving"  # both hidden from backups
        self._fetched = folder / ".fetched"

    @property
    def place(self) -> str:
        return str(self._place)

    def arriving(self) -> AbstractContextManager[Arrival]:
        return arriving(self._coming)

    def prepare(self, arrival: Arrival) -> None:
        """Send it, also where the same bytes are there already: a damaged object is mended so."""
        arrival.close(durably=False)
        if arrival.size > LARGEST_BYTES:
            raise DatasetRefused(
                f"The file has {arrival.size:,} bytes, and a bucket takes {LARGEST_BYTES:,} at once. Send less."
            )
        digest = base64.b64encode(bytes.fromhex(arrival.sha256)).decode()
        with arrival.path.open("rb") as stream, self._asked() as s3:
            # With its hash, so that the bucket refuses what was damaged on the way.
            s3.put_object(**self._at(arrival.sha256), Body=stream, ContentLength=arrival.size, ChecksumSHA256=digest)

    def keep(self, arrival: Arrival) -> None:
        if self._size(arrival.sha256) != arrival.size:
            self.prepare(arrival)

    def holds(self, sha256: str) -> bool:
        return self._size(sha256) is not None

    def local(self, sha256: str) -> Path:
        self._fetched.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._fetched / sha256
        with _alone(self._fetched / f"{sha256}.lock"):  # processes of one machine fetch it once
            if not path.is_file() or hash_of(path) != sha256:
                self._fetch(sha256, path)
                remove_older(self._fetched, UNUSED_SECONDS)
            os.utime(path)
        return path

    def remove(self, sha256: str) -> None:
        with self._asked(briefly=True) as s3:
            s3.delete_object(**self._at(sha256))
        (self._fetched / sha256).unlink(missing_ok=True)

    def stored(self) -> dict[str, int]:
        beginning = self._place.key("")
        with self._asked() as s3:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self._place.bucket, Prefix=beginning)
            objects = [each for page in pages for each in page.get("Contents", ())]
        return {each["Key"].removeprefix(beginning): each["Size"] for each in objects}

    def probe(self) -> None:
        at = {"Bucket": self._place.bucket, "Key": f"{self._place.prefix}.probe-{uuid.uuid4().hex}"}
        content = at["Key"].encode()
        with self._asked(briefly=True) as s3:
            s3.put_object(**at, Body=content)
            try:
                found = s3.get_object(**at)["Body"].read()
            finally:
                s3.delete_object(**at)
        if found != content:
            raise BlobsUnavailable(f"The bucket {self._place} gave back other bytes than it was given.")

    def _fetch(self, sha256: str, path: Path) -> None:
        """Raises FileNotFoundError, and DatasetCorrupt where the object has other bytes."""
        coming = path.with_name(uuid.uuid4().hex)
        found = hashlib.sha256()
        try:
            with self._asked() as s3, coming.open("xb") as out:
                try:
                    body = s3.get_object(**self._at(sha256))["Body"]
                except s3.exceptions.NoSuchKey:
                    raise FileNotFoundError(f"{self._place}/blobs/{sha256}") from None
                for part in body.iter_chunks(_PART_BYTES):
                    found.update(part)
                    out.write(part)
            if found.hexdigest() != sha256:
                raise DatasetCorrupt(
                    f"The object {self._place.key(sha256)} of the bucket {self._place.bucket} is damaged: its SHA-256 "
                    f"is {found.hexdigest()}"
                )
            coming.replace(path)
        finally:
            coming.unlink(missing_ok=True)

    def _size(self, sha256: str) -> int | None:
        """Bytes of the object; None where there is none."""
        with self._asked(briefly=True) as s3:
            try:
                size: int = s3.head_object(**self._at(sha256))["ContentLength"]
            except s3.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                return None
        return size

    def _at(self, sha256: str) -> dict[str, str]:
        return {"Bucket": self._place.bucket, "Key": self._place.key(sha256)}

    @contextmanager
    def _asked(self, *, briefly: bool = False) -> Iterator[Any]:
        """A client. What it raises within the context becomes BlobsUnavailable."""
        s3 = _clients(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None)[briefly]
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield s3
        except (BotoCoreError, ClientError) as error:
            said = " ".join(str(error).split()).rstrip(".")
            raise BlobsUnavailable(f"The bucket {self._place} cannot be used: {said}.") from error


@lru_cache(maxsize=8)
def _clients(endpoint: str | None) -> tuple[Any, Any]:
    """boto3's clients, which threads share: a patient one, and one for while others wait. Raises BlobsUnavailable where
    boto3 is not installed."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise BlobsUnavailable(f"A bucket needs boto3, which is not installed here: {INSTALL}.") from None
    shared = Config(
        max_pool_connections=50,
        # Hashes are checked above; servers that are not Amazon's know few of the checksums that boto3 adds by itself.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # BUCKET.localhost is no name that another server has.
        s3={"addressing_style": "auto" if endpoint is None else "path"},
    )
    patient = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard"})
    brief = Config(connect_timeout=_BRIEF_SECONDS, read_timeout=_BRIEF_SECONDS, retries={"total_max_attempts": 2})
    session = boto3.session.Session()
    made = [session.client("s3", endpoint_url=endpoint, config=shared.merge(each)) for each in (patient, brief)]
    return made[0], made[1]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Until the context ends, no other process is within it with this path."""
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
