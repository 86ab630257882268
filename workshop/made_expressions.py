"""Losses that are text, made by hypothesis: most fit together, some are broken in one place, some are junk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

Shape = tuple[int, ...]

SHAPES: tuple[Shape, ...] = ((), (2,), (3,), (2, 3))
WORDS = (
    *"+-*/@<>()[],:=.", "**", "<=", "1", "0.5", "2e3", "1e999", "theta", "A", "y", "sum", "where", "odeint", "f",
    "axis", "T", "__class__", "__import__('os')", "lambda", "import", "exec", "0x1", "é", "\x00", "\n", "'", "{", "if",
    "pi", "reshape", "zeros", "softmax", "theta.__dict__", "zeros(9999, 9999)", "odeint(f, theta, arange(5000))",
)  # fmt: skip

OF_ANY = ("tanh({0})", "sin({0})", "sigmoid({0})", "atan({0})", "softplus({0})", "square({0})", "huber({0}, delta=2)",
          "exp({0})", "log({0})", "sqrt({0})", "tan({0})", "-{0}", "({0} + {0})", "({0} - {0})", "({0} * {0})",
          "({0} / {0})", "({0} >= {0})", "({0} * {number})", "({0} ** 2)", "where({0} > {number}, {0}, {0})",
          "clip({0}, -1, 1)", "maximum({0}, {0})", "abs({0})")  # fmt: skip
OF: dict[Shape, tuple[str, ...]] = {
    (): ("sum({vector})", "mean({matrix})", "max({pair})", "logsumexp({vector})", "norm({pair})", "min({matrix})",
         "dot({vector}, {vector})", "{pair}[0]", "{vector}[-1]", "{matrix}[1, 2]"),
    (2,): ("({matrix} @ {vector})", "mean({matrix}, axis=1)", "[{number}, {number}]", "{vector}[1:]",
           "odeint(f, {pair}, linspace(0, 1, 4), substeps=2)[-1]", "odeint(g, {pair}, linspace(0, 1, 3), {number})[2]"),
    (3,): ("({pair} @ {matrix})", "softmax({vector})", "cumsum({vector}, axis=0)", "{matrix}[0]",
           "concat({pair}, [{number}])", "log_softmax({vector})"),
    (2, 3): ("outer({pair}, {vector})", "concat({matrix}[:1], {matrix}[1:])", "reshape({matrix}, 2, 3)",
             "{matrix}.T.T"),
}  # fmt: skip
"""Texts by the shape of their value. {0}: a text of that shape"""
MADE: dict[Shape, tuple[str, ...]] = {
    (): ("0.5", "3", "pi", "1e-3"),
    (2,): ("ones(2)", "c"),
    (3,): ("arange(3)", "linspace(0, 1, 3)"),
    (2, 3): ("zeros(2, 3)", "ones(2, 3)"),
}
_PLACES: dict[str, Shape] = {"number": (), "pair": (2,), "vector": (3,), "matrix": (2, 3)}
_DEEPEST = 3


@st.composite
def expression_specs(draw: st.DrawFn) -> dict[str, Any]:
    """The tasks of a family of the kind `expression`."""
    shape = st.sampled_from(SHAPES)
    parameters = {name: draw(shape) for name in ("theta", "W", "b")[: draw(st.integers(1, 3))]}
    draws = {name: draw(shape) for name in ("A", "y", "X")[: draw(st.integers(0, 3))]}
    names: dict[str, Shape] = {**parameters, **draws}
    definitions = ["f(s) = -s * 0.5", "g(t, s, p) = sin(t) - p * s"]
    for name in ("u", "v")[: draw(st.integers(0, 2))]:
        of = draw(shape)
        definitions.append(f"{name} = {_text(draw, of, names)}")
        names[name] = of
    loss = " + ".join([_text(draw, (), names), *(f"0.1 * sum({name})" for name in parameters)])
    match draw(st.sampled_from(("whole", "whole", "shapes", "loss", "loss", "definition", "junk"))):
        case "shapes":
            loss = _text(draw, (), dict.fromkeys(names, draw(shape)))
        case "loss":
            loss = _broken(draw, loss)
        case "definition":
            definitions[-1] = _broken(draw, definitions[-1])
        case "junk":
            loss = draw(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)))
        case _:
            pass
    each = st.sampled_from(["task", "task", "step"])
    return {
        "kind": "expression",
        "parameters": {name: {"kind": "normal", "shape": list(of)} for name, of in parameters.items()},
        "draws": {name: {"kind": "normal", "shape": list(of), "each": draw(each)} for name, of in draws.items()},
        "constants": {"c": [0.5, -1.5]},
        "definitions": definitions,
        "loss": loss,
    }


def _text(draw: st.DrawFn, shape: Shape, names: Mapping[str, Shape], depth: int = 0) -> str:
    """A text whose value has this shape. names: what it may read, with shapes"""
    if depth == _DEEPEST or draw(st.integers(0, 3)) == 0:
        return _one_of(draw, [*(name for name, other in names.items() if other == shape), *MADE[shape]])
    made = _one_of(draw, (*OF_ANY, *OF[shape]))
    for place, of in {"0": shape, **_PLACES}.items():
        while f"{{{place}}}" in made:
            made = made.replace(f"{{{place}}}", _text(draw, of, names, depth + 1), 1)
    return made


def _broken(draw: st.DrawFn, text: str) -> str:
    """The text with some characters cut out and a word put in their place."""
    at = draw(st.integers(0, len(text)))
    return text[:at] + _one_of(draw, ("", *WORDS)) + text[at + draw(st.integers(0, 3)) :]


def _one_of(draw: st.DrawFn, texts: Sequence[str]) -> str:
    return texts[draw(st.integers(0, len(texts) - 1))]
