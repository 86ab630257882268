"""The weights file: the same rule gives the same bytes, and every damage has a name."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

import gradsmith
from gradsmith.errors import (
    CorruptWeights,
    NonFiniteWeights,
    ShapeMismatch,
    UnsupportedFormat,
    WeightsError,
)
from gradsmith.rules import Rule, build
from gradsmith.rules.weights import dumps, loads, metadata


def make_rule(**settings: object) -> Rule:
    rule = build({"kind": "lstm", **settings})
    rule.initialise(torch.Generator().manual_seed(0))
    return rule


GOOD = dumps(make_rule())


def rewritten(*, header: Callable[[dict[str, object]], object] | None = None, **tensors: Tensor | None) -> bytes:
    """The good file with its metadata or tensors changed; None removes a tensor; `__` in a name stands for a dot."""
    contents = load_safetensors(GOOD)
    for name, value in tensors.items():
        name = name.replace("__", ".")
        if value is None:
            del contents[name]
        else:
            contents[name] = value
    described = metadata(GOOD) | {"tensors_sha256": checksum(contents)}
    described = header(described) if header else described
    return save_safetensors(contents, metadata={"gradsmith": json.dumps(described)})


def checksum(contents: dict[str, Tensor]) -> str:
    data = save_safetensors(contents)
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("config", [{}, {"input": "raw", "hidden_size": 4, "layers": 1, "output_scale": 1.0}])
def test_a_rule_comes_back_bit_for_bit(dtype: torch.dtype, config: dict[str, object]) -> None:
    rule = make_rule(**config).to(dtype)
    back = loads(dumps(rule))
    assert back.config() == rule.config()
    assert back.state_dict().keys() == rule.state_dict().keys()
    for name, value in rule.state_dict().items():
        assert back.state_dict()[name].dtype == dtype
        assert torch.equal(back.state_dict()[name], value)
    gradient = torch.randn(9, dtype=dtype)
    assert torch.equal(
        back(gradient, back.initial_state(9, dtype=dtype))[0], rule(gradient, rule.initial_state(9, dtype=dtype))[0]
    )


def test_the_same_rule_gives_the_same_bytes() -> None:
    extra = {name: name for name in "zyxwvutsrq"}
    files = {dumps(make_rule(), dict(sorted(extra.items(), reverse=order))) for order in (False, True) for _ in "123"}
    assert len(files) == 1
    assert dumps(loads(GOOD)) == GOOD


def test_metadata_says_what_is_inside() -> None:
    described = metadata(dumps(make_rule(), {"family": "quadratic"}))
    assert described["format_version"] == 2
    assert described["rule"] == make_rule().config()
    assert described["extra"] == {"family": "quadratic"}


def test_a_file_is_read_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "rule.safetensors"
    path.write_bytes(GOOD)
    assert dumps(gradsmith.load(path)) == GOOD
    with pytest.raises(FileNotFoundError):
        gradsmith.load(tmp_path / "missing.safetensors")


def test_half_precision_is_stored_as_float32() -> None:
    assert load_safetensors(dumps(make_rule().bfloat16()))["readout_weight"].dtype == torch.float32


NAN = torch.full((20,), float("nan"))

DAMAGE: dict[str, tuple[bytes, type[WeightsError], str]] = {
    "empty": (b"", CorruptWeights, "0 bytes"),
    "html": (b"<!doctype html><html>not found</html>", CorruptWeights, "not a safetensors file.*doctype"),
    "cut in its header": (GOOD[:50], CorruptWeights, "truncated.*fetch it again"),
    "cut in its tensors": (GOOD[:-7], CorruptWeights, "damaged.*fetch it again"),
    "bytes appended": (GOOD + b"\0\0\0\0", CorruptWeights, "damaged"),
    "header of absurd length": ((2**62).to_bytes(8, "little") + GOOD[8:], CorruptWeights, "4611686018427387904"),
    "header no JSON": (GOOD[:9] + b"!" + GOOD[10:], CorruptWeights, "no JSON"),
    "nested without end": ((20_000).to_bytes(8, "little") + b"{" + b"[" * 19_999, CorruptWeights, "no JSON"),
    "another program's": (save_safetensors({"x": torch.zeros(2)}), UnsupportedFormat, "not one of Gradsmith's"),
    "newer version": (
        rewritten(header=lambda h: {**h, "format_version": 3}),
        UnsupportedFormat,
        "version 3; this gradsmith reads 1 and 2.*pip install",
    ),
    "no checksum": (
        rewritten(header=lambda h: {name: value for name, value in h.items() if name != "tensors_sha256"}),
        CorruptWeights,
        r"metadata says None\.\.\..*fetch it again",
    ),
    "no version": (rewritten(header=lambda h: {"rule": h["rule"]}), UnsupportedFormat, "version None"),
    "metadata a list": (rewritten(header=lambda h: [h]), UnsupportedFormat, "version None"),
    "no rule": (rewritten(header=lambda h: {**h, "rule": None}), CorruptWeights, "which rule"),
    "unknown rule": (
        rewritten(header=lambda h: {**h, "rule": {"kind": "rnnprop"}}),
        UnsupportedFormat,
        "'rnnprop'.*pip install",
    ),
    "absurd size": (
        rewritten(header=lambda h: {**h, "rule": {"kind": "lstm", "hidden_size": 10**12}}),
        UnsupportedFormat,
        "hidden_size.*1000000000000",
    ),
    "large size": (
        rewritten(header=lambda h: {**h, "rule": {"kind": "lstm", "hidden_size": 256, "layers": 4}}),
        ShapeMismatch,
        "missing: layers.2.bias",
    ),
    "missing tensor": (rewritten(readout_bias=None), ShapeMismatch, "missing: readout_bias"),
    "extra tensor": (rewritten(surplus=torch.zeros(2)), ShapeMismatch, "left over: surplus"),
    "wrong shape": (
        rewritten(layers__1__bias=torch.zeros(79)),
        ShapeMismatch,
        r"'layers.1.bias'.*\(79,\).*\(80,\)",
    ),
    "wrong dtype": (rewritten(readout_bias=torch.zeros(1, dtype=torch.int64)), UnsupportedFormat, "int64"),
    "nan": (rewritten(readout_weight=NAN), NonFiniteWeights, "'readout_weight' holds 20 weights"),
    "infinity": (rewritten(readout_bias=torch.tensor([float("inf")])), NonFiniteWeights, "'readout_bias' holds 1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_has_a_name_and_a_next_step(name: str) -> None:
    data, error, message = DAMAGE[name]
    with pytest.raises(error, match=message):
        loads(data)


def test_a_file_of_the_format_before_is_read_as_it_was_written_and_written_in_todays() -> None:
    """`format_1.safetensors` was written by the code of format 1."""
    old = (Path(__file__).parent / "format_1.safetensors").read_bytes()
    described = metadata(old)
    assert (described["format_version"], described["extra"]) == (1, {"family": "quadratic"})
    rule = loads(old)
    assert rule.config() == described["rule"]
    assert "head" not in old.decode("latin-1"), "a setting that came later means what the file did"
    assert rule.config()["hidden_size"] == 4
    tensors = load_safetensors(old)
    assert tensors.keys() == rule.state_dict().keys()
    assert all(torch.equal(rule.state_dict()[name], value) for name, value in tensors.items())
    new = dumps(rule, described["extra"])
    assert metadata(new)["format_version"] == 2
    assert dumps(loads(new), described["extra"]) == new


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_bit_that_flips_in_the_numbers_is_noticed(data: st.DataObject) -> None:
    begin = 8 + int.from_bytes(GOOD[:8], "little")
    damaged = bytearray(GOOD)
    damaged[data.draw(st.integers(begin, len(GOOD) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptWeights, match="not those that were written"):
        loads(bytes(damaged))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_of_the_header_escapes_the_tree(data: st.DataObject) -> None:
    """One byte of the header changed: the rule still loads, or the error is one of ours."""
    length = int.from_bytes(GOOD[:8], "little")
    position = data.draw(st.integers(0, 8 + length - 1))
    damaged = bytearray(GOOD)
    damaged[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WeightsError):
        loads(bytes(damaged))
