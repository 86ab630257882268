"""A trained rule as bytes, and back: safetensors with one metadata key.

The file holds one tensor for each of the rule's parameters, and the metadata key `gradsmith` with canonical JSON:
`{"extra": {...}, "format_version": 2, "rule": {"kind": "lstm", "hidden_size": 20, ...}, "tensors_sha256": "..."}`. One
key, because safetensors writes several in no fixed order: the same rule must give the same bytes, and so the same
SHA-256. Format 1 is the same without `tensors_sha256`; it is read as ever. Several rules are one too, of the kind
`several`: each has its tensors under a prefix (`gradsmith.rules.RuleSet`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from gradsmith.rules.configs import read_back, written
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

FORMAT_VERSION = 2  # what is written
READABLE = (1, 2)
METADATA_KEY = "gradsmith"
_FETCH_AGAIN = "fetch it again"
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its header, little-endian


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
        "tensors_sha256": _tensors_sha256(save_safetensors(tensors)),
    }
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return save_safetensors(tensors, metadata={METADATA_KEY: canonical})


def loads(data: bytes) -> Rules:
    """The rule, or the set of rules, that `dumps` wrote.

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
        raise CorruptWeights(f"the weights file is damaged ({error}); {_FETCH_AGAIN}") from error
    _require_undamaged(data, header)
    _require_same_tensors(tensors, {name: tuple(value.shape) for name, value in rule.state_dict().items()})
    rule.load_state_dict(tensors, assign=True)
    return rule


def metadata(data: bytes) -> dict[str, Any]:
    """What a weights file says about itself: `format_version`, `rule` (its configuration) and `extra`.

    Raises CorruptWeights or UnsupportedFormat.
    """
    text = _safetensors_header(data).get("__metadata__", {}).get(METADATA_KEY)
    if text is None:
        raise UnsupportedFormat(
            f"a safetensors file, but not one of Gradsmith's: its metadata has no key {METADATA_KEY!r}. "
            f"Give the file of an optimizer, as GET /optimizers/<id> or gradsmith.rules.weights.dumps makes it"
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptWeights(f"the metadata {METADATA_KEY!r} of the weights file is no JSON; {_FETCH_AGAIN}") from error
    version = header.get("format_version") if isinstance(header, dict) else None
    if version not in READABLE or isinstance(version, bool):
        raise UnsupportedFormat(
            f"the weights file has format version {version!r}; this gradsmith reads "
            f"{' and '.join(map(str, READABLE))}. "
            "Update your checkout of Gradsmith and run pip install './sdk[torch]' in it"
        )
    if not isinstance(header.get("rule"), dict):
        raise CorruptWeights(f"the weights file does not say which rule it holds; {_FETCH_AGAIN}")
    return {"extra": {}, **header, "rule": read_back(header["rule"])}


def _tensors_sha256(data: bytes) -> str:
    """SHA-256 of what follows the header of a safetensors file: the numbers themselves, in their fixed order."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    return hashlib.sha256(memoryview(data)[_LENGTH_BYTES + length :]).hexdigest()


def _require_undamaged(data: bytes, header: Mapping[str, Any]) -> None:
    if header["format_version"] == 1:  # it has no checksum
        return
    expected, found = header.get("tensors_sha256"), _tensors_sha256(data)
    if found != expected:
        raise CorruptWeights(
            f"the numbers in the weights file are not those that were written (their SHA-256 is {found[:12]}..., and "
            f"its metadata says {str(expected)[:12]}...); {_FETCH_AGAIN}"
        )


def _safetensors_header(data: bytes) -> dict[str, Any]:
    """Checked by hand, because safetensors' own messages do not say what a user should do."""
    size = len(data)
    if size < _LENGTH_BYTES:
        raise CorruptWeights(f"the weights file has {size} bytes, too few for safetensors; {_FETCH_AGAIN}")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if data[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise CorruptWeights(f"not a safetensors file (it begins with {data[:16]!r}); give a file that Gradsmith wrote")
    if length > size - _LENGTH_BYTES:
        raise CorruptWeights(
            f"the weights file is truncated: its header alone needs {length} bytes and {size - _LENGTH_BYTES} are "
            f"there; {_FETCH_AGAIN}"
        )
    try:
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (ValueError, RecursionError) as error:
        raise CorruptWeights(f"the header of the weights file is no JSON ({error}); {_FETCH_AGAIN}") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise CorruptWeights(f"the header of the weights file is not a table of tensors; {_FETCH_AGAIN}")
    return header


def _require_same_tensors(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing, left_over = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or left_over:
        raise ShapeMismatch(
            f"the weights file does not fit its own rule: tensors missing: {', '.join(missing) or 'none'}; "
            f"left over: {', '.join(left_over) or 'none'}. {_FETCH_AGAIN.capitalize()}"
        )
    dtypes = {value.dtype for value in found.values()}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise UnsupportedFormat(f"the weights are of type {names}; they must all be float32, or all float64")
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise ShapeMismatch(
                f"tensor {name!r} of the weights file has shape {tuple(found[name].shape)}; "
                f"the rule that its metadata names has {shape}. {_FETCH_AGAIN.capitalize()}"
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
