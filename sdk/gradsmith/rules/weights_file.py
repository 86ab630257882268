"""What a weights file says of itself, and whether it is whole. Needs no torch: servers and clients ask.

The file is safetensors: eight bytes for the length of a header, the header in JSON, the numbers. The header's metadata
has the key `gradsmith`, which `gradsmith.rules.weights` describes, and may have the key `gradsmith_card`: canonical
JSON of what is known of the optimizer, such as its horizon and its verdicts. The card is no part of the weights: taking
it out gives the very bytes that it was put into, whose SHA-256 it names.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradsmith.errors import CorruptWeights, NonFiniteWeights, ShapeMismatch, UnknownRule, UnsupportedFormat
from gradsmith.rules.configs import read_back
from gradsmith.rules.weight_shapes import Shapes, weight_shapes

FORMAT_VERSION = 2  # what is written
READABLE = (1, 2)
METADATA_KEY = "gradsmith"
CARD_KEY = "gradsmith_card"
FETCH_AGAIN = "fetch it again"
MOST_HEADER_BYTES = 1_000_000
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its header, little-endian
_ITEM_BYTES = {"F32": 4, "F64": 8}


@dataclass(frozen=True)
class WeightsFile:
    """A file that was checked.

    content: its bytes without the card
    rule: the configuration of its rule, or of several
    extra: free text of whoever wrote it, such as the family
    card: what is known of the optimizer; None where the file says nothing
    """

    content: bytes
    rule: dict[str, Any]
    extra: dict[str, Any]
    card: dict[str, Any] | None


def checked(data: bytes) -> WeightsFile:
    """The file, when it is whole and holds just what its rule has: names, shapes, one type, finite numbers, checksum.

    Raises CorruptWeights, UnsupportedFormat, ShapeMismatch or NonFiniteWeights (all WeightsError).
    """
    header, told = header_of(data), metadata(data)
    try:
        expected = weight_shapes(told["rule"])
    except UnknownRule as error:
        raise UnsupportedFormat(f"this weights file holds a rule that cannot be built here: {error}") from error
    _require_tensors(header, data, expected)
    require_undamaged(data, told)
    content, card = split(data)
    if data != _with_header(header, data):
        raise UnsupportedFormat(
            "the header of the weights file is not written as Gradsmith writes it, so that readers could take it for "
            "different things; write the rule with gradsmith.rules.weights.dumps"
        )
    return WeightsFile(content, told["rule"], dict(told["extra"]), card)


def metadata(data: bytes) -> dict[str, Any]:
    """What a weights file says about itself: `format_version`, `rule` (its configuration) and `extra`.

    Raises CorruptWeights or UnsupportedFormat.
    """
    text = header_of(data).get("__metadata__", {}).get(METADATA_KEY)
    if text is None:
        raise UnsupportedFormat(
            f"a safetensors file, but not one of Gradsmith's: its metadata has no key {METADATA_KEY!r}. "
            f"Give the file of an optimizer, as GET /optimizers/<id> or gradsmith.rules.weights.dumps makes it"
        )
    header = _json(text, f"the metadata {METADATA_KEY!r} of the weights file")
    version = header.get("format_version") if isinstance(header, dict) else None
    if version not in READABLE or isinstance(version, bool):
        raise UnsupportedFormat(
            f"the weights file has format version {version!r}; this gradsmith reads "
            f"{' and '.join(map(str, READABLE))}. "
            "Update your checkout of Gradsmith and run pip install './sdk[torch]' in it"
        )
    if not isinstance(header.get("rule"), dict) or not isinstance(header.get("extra", {}), dict):
        raise CorruptWeights(f"the weights file does not say which rule it holds; {FETCH_AGAIN}")
    return {"extra": {}, **header, "rule": read_back(header["rule"])}


def with_card(content: bytes, card: Mapping[str, Any]) -> bytes:
    """The file with the card, which also gets the SHA-256 of `content`. Raises as `header_of` does."""
    header = header_of(content)
    told = dict(card) | {"sha256": hashlib.sha256(content).hexdigest()}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
    metadata = {**header.get("__metadata__", {}), CARD_KEY: text}
    return _with_header({**header, "__metadata__": metadata}, content)


def split(data: bytes) -> tuple[bytes, dict[str, Any] | None]:
    """The file without its card, and the card; None where it has none.

    Raises CorruptWeights where the card is no JSON or another file's, and as `header_of` does.
    """
    header = header_of(data)
    text = header.get("__metadata__", {}).get(CARD_KEY)
    if text is None:
        return data, None
    card = _json(text, "the card in the weights file")
    kept = {name: value for name, value in header["__metadata__"].items() if name != CARD_KEY}
    content = _with_header({**header, "__metadata__": kept}, data)
    found = hashlib.sha256(content).hexdigest()
    if not isinstance(card, dict) or card.get("sha256") != found:
        names = card.get("sha256") if isinstance(card, dict) else card
        raise CorruptWeights(
            f"the card in the weights file is that of other weights, with SHA-256 {str(names)[:12]}..., and these have "
            f"{found[:12]}...; {FETCH_AGAIN}"
        )
    return content, card


def header_of(data: bytes) -> dict[str, Any]:
    """The header. Checked by hand, because safetensors' own messages do not say what a user should do.

    Raises CorruptWeights.
    """
    size = len(data)
    if size < _LENGTH_BYTES:
        raise CorruptWeights(f"the weights file has {size} bytes, too few for safetensors; {FETCH_AGAIN}")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if data[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise CorruptWeights(f"not a safetensors file (it begins with {data[:16]!r}); give a file that Gradsmith wrote")
    if length > size - _LENGTH_BYTES:
        raise CorruptWeights(
            f"the weights file is truncated: its header alone needs {length} bytes and {size - _LENGTH_BYTES} are "
            f"there; {FETCH_AGAIN}"
        )
    if length > MOST_HEADER_BYTES:
        raise CorruptWeights(f"the header of the weights file has {length:,} bytes; {MOST_HEADER_BYTES:,} are read")
    header = _json(data[_LENGTH_BYTES : _LENGTH_BYTES + length], "the header of the weights file")
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise CorruptWeights(f"the header of the weights file is not a table of tensors; {FETCH_AGAIN}")
    return header


def require_undamaged(data: bytes, told: Mapping[str, Any]) -> None:
    """Raises CorruptWeights where the numbers are not those that were written. told: the file's metadata"""
    if told["format_version"] == 1:  # it has no checksum
        return
    expected, found = told.get("tensors_sha256"), tensors_sha256(data)
    if found != expected:
        raise CorruptWeights(
            f"the numbers in the weights file are not those that were written (their SHA-256 is {found[:12]}..., and "
            f"its metadata says {str(expected)[:12]}...); {FETCH_AGAIN}"
        )


def tensors_sha256(data: bytes) -> str:
    """SHA-256 of what follows the header of a safetensors file: the numbers themselves, in their fixed order."""
    return hashlib.sha256(_numbers(data)).hexdigest()


def _numbers(data: bytes) -> memoryview:
    return memoryview(data)[_LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little") :]


def _with_header(header: Mapping[str, Any], data: bytes) -> bytes:
    """`data` with another header, written as safetensors does."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return b"".join((len(text).to_bytes(_LENGTH_BYTES, "little"), text, _numbers(data)))


def _json(text: Any, what: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptWeights(f"{what} is no JSON ({error}); {FETCH_AGAIN}") from error


def _require_tensors(header: Mapping[str, Any], data: bytes, expected: Shapes) -> None:
    found = {name: entry for name, entry in header.items() if name != "__metadata__"}
    missing, left_over = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or left_over:
        raise ShapeMismatch(
            f"the weights file does not fit its own rule: tensors missing: {', '.join(missing) or 'none'}; "
            f"left over: {', '.join(left_over)[:500] or 'none'}. {FETCH_AGAIN.capitalize()}"
        )
    types = {str(entry.get("dtype")) if isinstance(entry, dict) else "none" for entry in found.values()}
    if len(types) > 1 or not types <= _ITEM_BYTES.keys():
        raise UnsupportedFormat(
            f"the weights are of type {', '.join(sorted(types))[:100]}; they must all be F32 (float32), or all F64"
        )
    numbers, end = _numbers(data), 0
    spans = {name: _span(name, entry, expected[name]) for name, entry in found.items()}
    for name, (first, last) in sorted(spans.items(), key=lambda each: each[1]):
        if first != end:
            raise CorruptWeights(f"the numbers of the tensor {name!r} do not follow the others; {FETCH_AGAIN}")
        end = last
    if end != len(numbers):
        raise CorruptWeights(
            f"the weights file is truncated or too long: its tensors have {end:,} bytes and {len(numbers):,} are "
            f"there; {FETCH_AGAIN}"
        )
    for name, (first, last) in spans.items():
        values = numbers[first:last].cast("f" if types == {"F32"} else "d")
        if bad := sum(not math.isfinite(value) for value in values):
            raise NonFiniteWeights(
                f"tensor {name!r} holds {bad} weights that are NaN or infinite: the run that made it diverged. "
                f"Use another optimizer, or train again with a smaller meta-learning rate"
            )


def _span(name: str, entry: Mapping[str, Any], expected: tuple[int, ...]) -> tuple[int, int]:
    """Where the tensor's numbers are, in bytes."""
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if (
        not isinstance(shape, list)
        or [type(each) for each in shape] != [int] * len(expected)
        or tuple(shape) != expected
    ):
        raise ShapeMismatch(
            f"tensor {name!r} of the weights file has shape {str(shape)[:100]}; the rule that its metadata names has "
            f"{expected}. {FETCH_AGAIN.capitalize()}"
        )
    size = math.prod(expected) * _ITEM_BYTES[entry["dtype"]]
    if isinstance(offsets, list) and [type(each) for each in offsets] == [int, int]:
        first, last = offsets
        if first >= 0 and last - first == size:
            return first, last
    raise CorruptWeights(f"tensor {name!r} needs {size} bytes, not {str(offsets)[:100]}; {FETCH_AGAIN}")
