"""Ours, replaying every window whole: what growth is where nothing of a window is kept (docs/decisions/0026)."""

from __future__ import annotations

from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.ours import Ours, default_backend, rule_with
from benchmarks.core.problem import Loaded
from models.backends import NativeBackend


def make(loaded: Loaded, weights: Weights, threads: int) -> Ours:
    backend = default_backend(rule_with(weights), threads)
    without = NativeBackend(backend.rule, backend.kernel, kept_bytes=0) if isinstance(backend, NativeBackend) else None
    return Ours(loaded, weights, threads, backend=without)
