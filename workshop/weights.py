"""Weights files without torch, as `gradsmith.rules.weights.dumps` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gradsmith.rules.configs import configured, written
from gradsmith.rules.weight_shapes import weight_shapes
from gradsmith.rules.weights_file import tensors_sha256


def weights_file(
    rule: Mapping[str, Any] | None = None,
    *,
    extra: Mapping[str, str] | None = None,
    seed: int = 0,
    **tensors: NDArray[Any],
) -> bytes:
    """Random weights of a rule, by default the LSTM. tensors: those that are to be other ones"""
    config = configured(rule or {"kind": "lstm"}).plain()
    random = np.random.default_rng(seed)
    values = {name: random.normal(size=shape).astype(np.float32) for name, shape in weight_shapes(config).items()}
    values |= tensors
    header = {
        "extra": dict(extra or {}),
        "format_version": 2,
        "rule": written(config),
        "tensors_sha256": tensors_sha256(save(values)),
    }
    return save(values, metadata={"gradsmith": json.dumps(header, sort_keys=True, separators=(",", ":"))})
