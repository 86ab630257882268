"""What an evaluation's family tier computed, kept between evaluations as the runs of baselines are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from models.evaluation.baseline_runs import BaselineStore, computed_on
from models.measured import MeasuringProgress

T = TypeVar("T")
FORMAT = 1
"""Counts changes after which equal keys would give other results: of the meta-trainer, of the starting points."""


@dataclass(frozen=True)
class Kept(Generic[T]):
    """job: the one that had computed it, where it was there; None where it was computed here"""

    found: T
    job: str | None


def kept(
    store: BaselineStore | None,
    name: str,
    facts: dict[str, Any],
    where: tuple[torch.dtype, torch.device],
    computed: Generator[MeasuringProgress, None, T],
    coded: tuple[Callable[[bytes], T], Callable[[T], bytes]],
) -> Generator[MeasuringProgress, None, Kept[T]]:
    """What the store has, else what is computed, which then goes there.

    name: what it is, for people
    facts: what the result depends on, besides the machine
    coded: from bytes and to bytes
    """
    loaded, dumped = coded
    whole = {"format": FORMAT, "what": name, **facts, **computed_on(*where)}
    key = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    stored = None if store is None else store.get(key)
    if stored is not None:
        computed.close()
        return Kept(loaded(stored.content), stored.job)
    found = yield from computed
    if store is not None:
        store.put(key, name, dumped(found))
    return Kept(found, None)
