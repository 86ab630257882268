"""A trained rule as bytes, and back: safetensors with one metadata key, or two where the file has its card.

The file holds one tensor for each of the rule's parameters, and the metadata key `gradsmith` with canonical JSON:
`{"extra": {...}, "format_version": 2, "rule": {"kind": "lstm", "hidden_size": 20, ...}, "tensors_sha256": "..."}`. One
key, because safetensors writes several in no fixed order: the same rule must give the same bytes, and so the same
SHA-256. Format 1 is the same without `tensors_sha256`; it is read as ever. Several rules are one too, of the kind
`several`: each has its tensors under a prefix (`gradsmith.rules.RuleSet`). What needs no torch, such as the card that a
download brings, is in `gradsmith.rules.weights_file`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from gradsmith.rules.configs import written
from gradsmith.rules.rule_set import (  # before torch itself: it says how to install torch when that is missing
    Rules,
    assembled,
)

# isort: split
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from gradsmith.errors import CorruptWeights, NonFiniteWeights, ShapeMismatch, UnknownRule, UnsupportedFormat
from gradsmith.rules.origin import origin_of
from gradsmith.rules.weights_file import (
    FETCH_AGAIN,
    FORMAT_VERSION,
    METADATA_KEY,
    require_undamaged,
    split,
    tensors_sha256,
)
from gradsmith.rules.weights_file import metadata as metadata


def dumps(rule: Rules, extra: Mapping[str, str] | None = None) -> bytes:
    """The rule as safetensors bytes; the same rule and `extra` always give the same bytes.

    Weights are stored as float32; float64 stays float64. `extra` is free text for the reader (family, job).
    """
    tensors = {
        name: value.detach().to("cpu", torch.float64 if value.dtype == torch.float64 else torch.float32).contiguous()
        for name, value in sorted(rule.state_dict().items())
    }
    header = {
        "format_version": FORMAT_VERSION,
        "rule": written(rule.config()),
        "extra": dict(extra or {}),
        # safetensors has no checksum: a bit that flips on a disk would be another rule, and nobody would know
        "tensors_sha256": tensors_sha256(save_safetensors(tensors)),
    }
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return save_safetensors(tensors, metadata={METADATA_KEY: canonical})


def loads(data: bytes) -> Rules:
    """The rule, or the set of rules, that `dumps` wrote. Its `origin` is what the file says of it.

    Raises CorruptWeights, UnsupportedFormat, ShapeMismatch or NonFiniteWeights (all WeightsError); each message
    names the tensor or field, what was found, and what to do.
    """
    header = metadata(data)
    try:
        with torch.device("meta"):  # shapes without memory: a header that claims absurd sizes costs nothing
            rule = assembled(header["rule"])
    except UnknownRule as error:
        raise UnsupportedFormat(f"this weights file holds a rule that cannot be built here: {error}") from error
    try:
        tensors = load_safetensors(data)
    except SafetensorError as error:
        raise CorruptWeights(f"the weights file is damaged ({error}); {FETCH_AGAIN}") from error
    require_undamaged(data, header)
    _require_same_tensors(tensors, {name: tuple(value.shape) for name, value in rule.state_dict().items()})
    rule.load_state_dict(tensors, assign=True)
    rule.origin = origin_of(header["extra"], split(data)[1])
    return rule


def _require_same_tensors(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing, left_over = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or left_over:
        raise ShapeMismatch(
            f"the weights file does not fit its own rule: tensors missing: {', '.join(missing) or 'none'}; "
            f"left over: {', '.join(left_over) or 'none'}. {FETCH_AGAIN.capitalize()}"
        )
    dtypes = {value.dtype for value in found.values()}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise UnsupportedFormat(f"the weights are of type {names}; they must all be float32, or all float64")
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise ShapeMismatch(
                f"tensor {name!r} of the weights file has shape {tuple(found[name].shape)}; "
                f"the rule that its metadata names has {shape}. {FETCH_AGAIN.capitalize()}"
            )
        if not bool(found[name].isfinite().all()):
            bad = int((~found[name].isfinite()).sum())
            raise NonFiniteWeights(
                f"tensor {name!r} holds {bad} weights that are NaN or infinite: the run that made it diverged. "
                f"Use another optimizer, or train again with a smaller meta-learning rate"
            )


def load(path: str | PathLike[str]) -> Rules:
    """The rule in a weights file; no server is needed.

    Raises OSError when the file cannot be read, and what `loads` raises.
    """
    return loads(Path(path).read_bytes())
