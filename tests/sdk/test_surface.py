"""What users call does not change by accident, and both clients have the same of it."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import gradsmith
from tests.sdk.surface import WRITTEN, public, surface


def test_the_public_surface_is_the_one_that_is_written_down() -> None:
    differs = difflib.unified_diff(WRITTEN.read_text().splitlines(), surface().splitlines(), "surface.txt", "now", n=0)
    told = "\n".join(differs)
    assert not told, f"{told}\nWhere that is meant: `python -m tests.sdk.surface`, and a line in CHANGELOG.md"


def parameters(method: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    blocking, awaited = gradsmith.Client("http://x"), gradsmith.AsyncClient("http://x")
    assert public(blocking) == public(awaited)
    for name in ("with_options", "close"):
        assert parameters(getattr(blocking, name)) == parameters(getattr(awaited, name))
    compared = 0
    for noun in (name for name in vars(blocking) if not name.startswith("_")):
        ours, theirs = getattr(blocking, noun), getattr(awaited, noun)
        assert public(ours) == public(theirs), noun
        for name in public(ours):
            assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name)), f"{noun}.{name}"
            assert getattr(ours, name).__doc__ == getattr(theirs, name).__doc__ is not None, f"{noun}.{name}"
            compared += 1
    assert compared > 25


def test_a_signature_says_what_a_call_gives() -> None:
    blocking, awaited = gradsmith.Client("http://x"), gradsmith.AsyncClient("http://x")
    raw = blocking.with_raw_response
    for method, gives in (
        (blocking.jobs.get, "Job"), (awaited.jobs.get, "Coroutine[Any, Any, Job]"), (raw.jobs.get, "RawResponse[Job]"),
        (blocking.jobs.list, "Page[Job]"), (awaited.jobs.list, "AsyncListing[Job]"),
        (blocking.jobs.stream, "Iterator[Event]"), (awaited.jobs.stream, "AsyncIterator[Event]"),
        (blocking.jobs.wait, "Job"), (awaited.jobs.wait, "Coroutine[Any, Any, Job]"),
    ):  # fmt: skip
        assert inspect.signature(method).return_annotation == gives
