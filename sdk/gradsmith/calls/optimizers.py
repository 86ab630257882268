"""The registry of trained optimizers."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, overload

import httpx

from gradsmith.answers import items, record
from gradsmith.calls.base import M, Resource, call, given, listing, path
from gradsmith.errors import IntegrityFailed, InvalidResponse
from gradsmith.executors import Async, RawAsync, RawResponse, RawSync, Sync
from gradsmith.programs import Call, Items
from gradsmith.types import Optimizer

WEIGHTS_MEDIA_TYPE = "application/vnd.safetensors"


class Optimizers(Resource[M]):
    """`client.optimizers`. A reference is an id ("opt_...") or "<family>@<version>", "...@best", "...@latest", or an
    alias of yours."""

    @listing
    def list(
        self,
        *,
        family: str | None = None,
        alias: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Call[Items[Optimizer]]:
        """The registry, newest first.

        alias: those that it names now; without `family`, in every family
        tags: labels (`metadata`) of the job that made it, all of which must be there; None stands for any value
        limit: so many a page
        """
        tag = [name if value is None else f"{name}={value}" for name, value in (tags or {}).items()]
        params = given({"family": family, "alias": alias, "tag": tag or None, "limit": limit, "after": after})
        return Call("GET", "/optimizers", items(Optimizer.from_json), params=params)

    @call
    def get(self, reference: str) -> Call[Optimizer]:
        """The record of an optimizer: hash, scores, what training cost. Raises NotFound."""
        return Call("GET", path("optimizers", reference), record(Optimizer.from_json))

    @call
    def card(self, reference: str) -> Call[str]:
        """Its model card, as Markdown: how it was made, how it compares, where not to use it. Raises NotFound."""
        return Call("GET", path("optimizers", reference, "card"), _text, accept="text/markdown")

    # A method with overloads keeps them in no ParamSpec, so they are written out for each executor.
    @overload
    def pull(self: Optimizers[Sync], reference: str, path: None = None) -> bytes: ...
    @overload
    def pull(self: Optimizers[Sync], reference: str, path: str | os.PathLike[str]) -> Path: ...
    @overload
    def pull(self: Optimizers[Async], reference: str, path: None = None) -> Coroutine[Any, Any, bytes]: ...
    @overload
    def pull(self: Optimizers[Async], reference: str, path: str | os.PathLike[str]) -> Coroutine[Any, Any, Path]: ...
    @overload
    def pull(self: Optimizers[RawSync], reference: str) -> RawResponse[bytes]: ...
    @overload
    def pull(self: Optimizers[RawAsync], reference: str) -> Coroutine[Any, Any, RawResponse[bytes]]: ...
    def pull(self: Optimizers[Any], reference: str, path: str | os.PathLike[str] | None = None) -> Any:
        """Fetch the weights: gives the bytes, or writes them to `path` and gives that.

        The bytes are checked against the server's SHA-256 before anything is written, and the file appears whole or
        not at all. Raises NotFound, and IntegrityFailed when they do not match.
        """
        return self._executor.call(_pulled(reference, None if path is None else Path(path)))


def _pulled(reference: str, to: Path | None) -> Call[bytes | Path]:
    def read(response: httpx.Response) -> bytes | Path:
        content = _checked(reference, response)
        return content if to is None else _write_whole(to, content)

    where = path("optimizers", reference)
    return Call("GET", where, read, accept=WEIGHTS_MEDIA_TYPE, blocking=to is not None)


def _text(response: httpx.Response) -> str:
    return response.text


def _checked(reference: str, response: httpx.Response) -> bytes:
    promised = response.headers.get("ETag", "").removeprefix("W/").strip('"')
    if not promised.startswith("sha256:"):
        raise InvalidResponse(
            f"the answer for {reference!r} carries no SHA-256 to check it by (ETag {promised!r}); is a Gradsmith "
            f"server at {response.request.url.host}?"
        )
    found = hashlib.sha256(response.content).hexdigest()
    if promised != f"sha256:{found}":
        raise IntegrityFailed(
            f"the weights of {reference!r} arrived damaged: SHA-256 {found}, but the server names {promised}. "
            f"Pull again"
        )
    return response.content


def _write_whole(path: Path, content: bytes) -> Path:
    """Write beside the target, then rename: whoever looks sees the old file or the new one, never half of one."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
