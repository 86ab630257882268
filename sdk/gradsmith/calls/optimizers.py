"""The registry of trained optimizers."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, overload

import httpx

from gradsmith.answers import items, nothing, record
from gradsmith.calls.base import M, Resource, call, given, listing, path
from gradsmith.errors import IntegrityFailed, InvalidResponse
from gradsmith.executors import Async, RawAsync, RawResponse, RawSync, Sync
from gradsmith.programs import Call, Items
from gradsmith.types import Optimizer

WEIGHTS_MEDIA_TYPE = "application/vnd.safetensors"
_RECORD = record(Optimizer.from_json)


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
        archived: bool = False,
        limit: int = 20,
        after: str | None = None,
    ) -> Call[Items[Optimizer]]:
        """The registry, newest first.

        alias: those that it names now; without `family`, in every family
        tags: labels (`metadata`) of the job that made it, all of which must be there; None stands for any value
        archived: also those that were archived
        limit: so many a page
        """
        tag = [name if value is None else f"{name}={value}" for name, value in (tags or {}).items()]
        asked = {"family": family, "alias": alias, "tag": tag or None, "archived": True if archived else None}
        params = given(asked | {"limit": limit, "after": after})
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
    def pull(self: Optimizers[Sync], reference: str, path: None = None, *, card: bool = True) -> bytes: ...
    @overload
    def pull(self: Optimizers[Sync], reference: str, path: str | os.PathLike[str], *, card: bool = True) -> Path: ...
    @overload
    def pull(
        self: Optimizers[Async], reference: str, path: None = None, *, card: bool = True
    ) -> Coroutine[Any, Any, bytes]: ...
    @overload
    def pull(
        self: Optimizers[Async], reference: str, path: str | os.PathLike[str], *, card: bool = True
    ) -> Coroutine[Any, Any, Path]: ...
    @overload
    def pull(self: Optimizers[RawSync], reference: str, *, card: bool = True) -> RawResponse[bytes]: ...
    @overload
    def pull(
        self: Optimizers[RawAsync], reference: str, *, card: bool = True
    ) -> Coroutine[Any, Any, RawResponse[bytes]]: ...
    def pull(
        self: Optimizers[Any], reference: str, path: str | os.PathLike[str] | None = None, *, card: bool = True
    ) -> Any:
        """Fetch the weights with their card: gives the bytes, or writes them to `path` and gives that. The card is what
        is known now, such as verdicts: `LearnedOptimizer` warns by it, and `upload` brings it to another server.

        card: False: the weights alone, whose SHA-256 is `Optimizer.sha256`

        The bytes are checked against the server's SHA-256 before anything is written, and the file appears whole or
        not at all. Raises NotFound, and IntegrityFailed when they do not match.
        """
        return self._executor.call(_pulled(reference, None if path is None else Path(path), card=card))

    @call
    def upload(
        self,
        path: str | os.PathLike[str],
        *,
        family: str | None = None,
        source: str | None = None,
        description: str | None = None,
    ) -> Call[Optimizer]:
        """Bring a weights file: one that `pull` fetched from another server, or that `gradsmith.rules.weights.dumps`
        wrote. It is checked, and kept whole or not at all. `latest` and `best` pass over it until it was evaluated:
        `client.jobs.create("evaluate", optimizer=found.id)`.

        family: default: the one that the file names, which must be known to the server
        source: where it comes from, in your words; default: the file's name

        The same file again gives the same optimizer. It is sent once: after ConnectionFailed the same call finds what
        was kept, or sends it again. Raises InvalidRequest, which says what is wrong with the file, and OSError.
        """
        file = Path(path)
        params = given({"family": family, "source": source or file.name[-128:], "description": description})
        return Call("POST", "/optimizers", _RECORD, params=params, file=file, repeatable=False)

    @call
    def update(self, reference: str, *, description: str) -> Call[Optimizer]:
        """Describe it in your own words. Raises NotFound."""
        return Call("PATCH", path("optimizers", reference), _RECORD, body={"description": description})

    @call
    def archive(self, reference: str, *, archived: bool = True) -> Call[Optimizer]:
        """Let lists, "latest" and "best" pass over it; with `archived=False`, no longer. Raises NotFound."""
        return Call("PATCH", path("optimizers", reference), _RECORD, body={"archived": archived})

    @call
    def delete(self, reference: str) -> Call[None]:
        """Forget it. Raises NotFound, and Conflict where an alias, a job or an evaluation needs it."""
        return Call("DELETE", path("optimizers", reference), nothing, repeatable=False)


def _pulled(reference: str, to: Path | None, *, card: bool) -> Call[bytes | Path]:
    def read(response: httpx.Response) -> bytes | Path:
        content = _checked(reference, response)
        return content if to is None else _write_whole(to, content)

    where = path("optimizers", reference, "file" if card else "weights")
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
