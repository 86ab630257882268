"""Expressions: what is refused and where, and what is computed, against numpy, float64 autograd and closed forms."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.families import FAMILIES
from models.families.expression import ExpressionSpec
from models.families.expression.checking import Checker
from models.families.expression.compute import run
from models.families.expression.grammar import ExpressionError, parsed
from models.families.expression.operations import ELEMENTWISE, OPERATIONS
from models.families.expression.tasks import ExpressionBatch
from models.spec import Split
from models.tasks.catalogue import open_for_training
from models.tasks.conformance import CHECKS, Subject

LASSO: dict[str, Any] = {
    "kind": "expression",
    "parameters": {"x": {"kind": "constant", "shape": [60]}},
    "draws": {
        "dictionary": {"kind": "normal", "shape": [30, 60], "std": 30**-0.5},
        "support": {"kind": "bernoulli", "shape": [60], "probability": 0.1},
        "size": {"kind": "normal", "shape": [60]},
        "noise": {"kind": "normal", "shape": [30], "std": 0.01},
    },
    "constants": {"weight": 0.1},
    "definitions": ["measured = dictionary @ (support * size) + noise"],
    "loss": "sum((dictionary @ x - measured)**2) / 2 + weight * sum(abs(x))",
}

SHAPES = {"x": (3,), "y": (3,), "s": (), "A": (2, 3), "B": (3, 4)}


def spec(loss: str, **fields: Any) -> ExpressionSpec:
    declared: dict[str, Any] = {
        "parameters": {"theta": {"kind": "normal", "shape": [3]}},
        "draws": {"A": {"kind": "normal", "shape": [2, 3]}, "y": {"kind": "normal", "shape": [2]}},
    }
    return ExpressionSpec.model_validate(declared | fields | {"loss": loss})


def batch(of: ExpressionSpec, tasks: int = 4) -> ExpressionBatch:
    [found] = open_for_training(of).sample(Split.TRAIN, seed=1, trajectory=0, tasks=tasks, dtype=torch.float64)
    assert isinstance(found, ExpressionBatch)
    return found


def values() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(5, *shape, generator=generator, dtype=torch.float64) + 0.2 for name, shape in SHAPES.items()
    }


NUMPY: dict[str, Callable[[Any], Any]] = {
    "sum(A @ x)": lambda v: (v["A"] @ v["x"]).sum(),
    "sum(x @ B)": lambda v: (v["x"] @ v["B"]).sum(),
    "sum(A @ B)": lambda v: (v["A"] @ v["B"]).sum(),
    "x @ y": lambda v: v["x"] @ v["y"],
    "dot(x, y) - sum(outer(x, y))": lambda v: v["x"] @ v["y"] - np.outer(v["x"], v["y"]).sum(),
    "sum(A * x + s)": lambda v: (v["A"] * v["x"] + v["s"]).sum(),
    "sum(A.T * s)": lambda v: (v["A"].T * v["s"]).sum(),
    "-x[0]**2 + 2**-s": lambda v: -(v["x"][0] ** 2) + 2 ** -v["s"],
    "x[-1] + A[1, 0] + sum(A[:, 1:])": lambda v: v["x"][-1] + v["A"][1, 0] + v["A"][:, 1:].sum(),
    "mean(max(A, axis=0))": lambda v: v["A"].max(0).mean(),
    "min(A) + max(A) + norm(A)": lambda v: v["A"].min() + v["A"].max() + np.sqrt((v["A"] ** 2).sum()),
    "logsumexp(x)": lambda v: np.log(np.exp(v["x"]).sum()),
    "sum(log_softmax(A)[:, 0])": lambda v: (v["A"][:, 0] - np.log(np.exp(v["A"]).sum(1))).sum(),
    "sum(softmax(A, axis=0)[0])": lambda v: (np.exp(v["A"]) / np.exp(v["A"]).sum(0))[0].sum(),
    "sum(cumsum(x)) + sum(diff(y)**2)": lambda v: v["x"].cumsum().sum() + (np.diff(v["y"]) ** 2).sum(),
    "sum(concat(x, y, [s])**2)": lambda v: (v["x"] ** 2).sum() + (v["y"] ** 2).sum() + v["s"] ** 2,
    "sum(concat(A, A, axis=1) * 2)": lambda v: 4 * v["A"].sum(),
    "sum(reshape(A, 3, 2)[1])": lambda v: v["A"].reshape(3, 2)[1].sum(),
    "sum([x, y] @ x)": lambda v: (np.stack([v["x"], v["y"]]) @ v["x"]).sum(),
    "sum(where(x > y, x, y) - maximum(x, y))": lambda _: 0.0,
    "sum((x < y) + (x >= y))": lambda _: 3.0,
    "sum(clip(x, 0.3, 0.6))": lambda v: v["x"].clip(0.3, 0.6).sum(),
    "sum(minimum(x, s))": lambda v: np.minimum(v["x"], v["s"]).sum(),
    "sum(huber(x - y, delta=0.2))": lambda v: np.where(
        abs(v["x"] - v["y"]) < 0.2, (v["x"] - v["y"]) ** 2 / 2, 0.2 * (abs(v["x"] - v["y"]) - 0.1)
    ).sum(),
    "sum(eye(3) @ x) + sum(zeros(2, 2)) + sum(ones(4))": lambda v: v["x"].sum() + 4,
    "sum(arange(3) * x) + sum(linspace(-1, 1, 3) * y)": lambda v: (
        (np.arange(3) * v["x"]).sum() + (np.linspace(-1, 1, 3) * v["y"]).sum()
    ),
    "1.5e-1 * pi / 2 - .5 * (s - 1)": lambda v: 0.15 * math.pi / 2 - 0.5 * (v["s"] - 1),
    "s - 1 - 2 * 3 / 4 / 5": lambda v: v["s"] - 1 - 2 * 3 / 4 / 5,
}


@pytest.mark.parametrize("text", NUMPY)
def test_an_expression_means_what_it_means_in_numpy(text: str) -> None:
    program = Checker(SHAPES).finish(text)
    given_values = values()
    found = run(program, given_values)[program.result].expand(5)
    for task in range(5):
        truth = NUMPY[text]({name: value[task].numpy() for name, value in given_values.items()})
        assert float(found[task]) == pytest.approx(float(truth), rel=1e-12, abs=1e-14)


PYTHONS_OWN: dict[str, Callable[[float], float]] = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)), "square": lambda x: x * x,
    "relu": lambda x: max(x, 0.0), "sign": lambda x: math.copysign(1, x), "abs": abs,
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_functions_of_one_number_are_those_of_python(name: str) -> None:
    program = Checker({"s": ()}).finish(f"{name}(s)")
    truth = PYTHONS_OWN.get(name) or getattr(math, name)
    for x in (0.3, 1.7) if name in {"log", "sqrt"} else (0.3, 1.7, -0.4):
        found = run(program, {"s": torch.tensor([x], dtype=torch.float64)})[program.result]
        assert float(found) == pytest.approx(truth(x), rel=1e-9)


def test_every_function_is_tried_above() -> None:
    tried = " ".join(NUMPY)
    assert [name for name in OPERATIONS if f"{name}(" not in tried and name not in ELEMENTWISE] == []


REFUSED = {
    "sum(A @ thata)": (9, "did you mean 'theta'"),
    "sum(A @ y)": (7, "3 columns meet 2 rows"),
    "A @ theta": (3, "a loss is one number"),
    "theta + y": (7, "do not go together"),
    "sum(theta": (10, "the end stands where"),
    "sum(theta))": (11, "should end"),
    "sum(theta) ; 1": (12, "';' is no part"),
    "summ(theta)": (1, "did you mean 'sum'"),
    "sum": (1, "is a function; call it"),
    "sum(theta, y)": (1, "is called as sum(x, axis=0)"),
    "sum(theta, axis=1)": (1, "no axis 1"),
    "sum(theta, along=1)": (1, "no argument 'along'"),
    "theta[3]": (7, "outside of 3"),
    "sum(theta[2:1])": (11, "is empty"),
    "theta[0, 0]": (6, "2 indices for (3,)"),
    "theta[y]": (7, "stands where there should be a whole number"),
    "theta.data": (7, "only .T"),
    "sum(theta.T)": (10, "transposes a matrix"),
    "sum(zeros(0))": (5, "a side of an array"),
    "sum(zeros(2.5))": (5, "whole numbers"),
    "sum(zeros(theta))": (11, "a number is written out"),
    "sum(reshape(A, 5))": (5, "has 6 numbers"),
    "sum(ones(100000, 100000))": (5, "at most 4,000,000 fit"),
    "1e999": (1, "beyond the largest number"),
    "__import__('os')": (12, "is no part of an expression"),
    "theta.__class__": (7, "only .T"),
    "sum(theta ^ 2)": (11, "a power is written **"),
    "sum(theta) < 1 < 2": (16, "cannot be compared"),
    "odeint(theta, theta, y)": (8, "no function 'theta' among the definitions"),
    "(" * 60 + "1" + ")" * 60: (41, "levels deep"),
    "1" + " + 1" * 300: (719, "nested too deep"),
    "[theta, y][0][0]": (1, "entries of one shape"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_is_refused_at_its_column(text: str) -> None:
    column, reason = REFUSED[text]
    with pytest.raises(ValidationError) as refused:
        spec(text)
    [error] = refused.value.errors()
    assert error["loc"] == ("loss",)
    assert f"column {column}: " in error["msg"]
    assert reason in error["msg"]


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        (["z = theta + y"], "definition 1, column 11: the shapes (3,) and (2,)"),
        (["f(a) = a + nothing", "z = f(y)"], "definition 2, column 5: in f, column 12: there is no 'nothing'"),
        (["f(a, a) = a"], "definition 1, column 1: f has two arguments of one name"),
        (["y = theta"], "definition 1, column 1: the name 'y' is given twice"),
        (["sum = theta"], "definition 1, column 1: the name 'sum' means something already"),
        (["z == theta"], "definition 1, column 4: '=' stands where a value should be"),
        (["f(a) = f(a)", "z = f(y)"], "definition 2, column 5: in f, column 8"),
        (["f(s) = s[0]", "z = odeint(f, y, y)"], "definition 2, column 5: the state is (2,), and f gives a number"),
        (["f(s) = s", "z = odeint(f, y, y, steps=2)"], "definition 2, column 5: odeint has no argument 'steps'"),
        (["f(s) = s", "z = odeint(f, y, y, substeps=0)"], "substeps is a whole number from 1 to 1000"),
        (["f(s) = s", "z = odeint(f, y, linspace(0, 1, 9000))"], "operations, and at most 20,000 run"),
    ],
)
def test_wrong_definitions_are_refused(definitions: list[str], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        spec("sum(theta)", definitions=definitions)
    [error] = refused.value.errors()
    assert error["loc"] == ("definitions",)
    assert message in error["msg"], error["msg"]


def test_functions_that_call_one_another_cannot_outgrow_the_limits() -> None:
    lines = ["f0(a) = a + a", *(f"f{n}(a) = f{n - 1}(a) + f{n - 1}(a)" for n in range(1, 20)), "z = f19(y)"]
    with pytest.raises(ValidationError, match="more than 2000 operations"):
        spec("sum(theta)", definitions=lines)


WORDS = st.sampled_from(
    [*"+-*/@<>()[],:=.", "**", "<=", "1", "0.5", "2e3", "theta", "A", "y", "sum", "where", "odeint", "f", "axis", "T",
     "__class__", "lambda", "import", "exec", "0x1", "é", "\x00", "\n", "'", "{", "if", "pi", "reshape", "zeros",
     "softmax"]
)  # fmt: skip


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=25).map(" ".join)))
def test_any_text_is_computed_or_refused_with_a_column(text: str) -> None:
    checker = Checker({"theta": (3,), "A": (2, 3), "y": (2,)})
    checker.define("f(s) = -s")
    try:
        program = checker.finish(text)
    except ExpressionError as error:
        column = error.column
    else:
        column = 1
        inputs = {"theta": torch.rand(2, 3), "A": torch.rand(2, 2, 3), "y": torch.rand(2, 2)}
        assert run(program, inputs)[program.result].expand(2).shape == (2,)
    assert 1 <= column <= len(text) + 1


def trees() -> st.SearchStrategy[str]:
    """Expressions that are numbers, made of what fits."""
    leaves = st.sampled_from(["theta[0]", "sum(A)", "y[1]", "1.5", "norm(theta)", "mean(A @ theta - y)"])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from([" + ", " - ", " * "]), inner).map(lambda t: f"({''.join(t)})"),
            st.tuples(st.sampled_from(["tanh", "sigmoid", "sin", "softplus", "square"]), inner).map(
                lambda t: f"{t[0]}({t[1]})"
            ),
        ),
        max_leaves=8,
    )


@settings(max_examples=60, deadline=None)
@given(trees())
def test_whatever_is_accepted_takes_a_step(text: str) -> None:
    tasks = batch(spec(f"{text} + theta[0]"), 2)
    losses, gradient = tasks.losses_and_gradient(tasks.initial(), 0)
    product = tasks.hessian_vector(tasks.initial(), 0, torch.ones_like(gradient))
    assert losses.shape == (2,)
    assert bool(losses.isfinite().all())
    assert gradient.shape == product.shape == (6,)


PENDULUM = FAMILIES["pendulum"].tasks.model_dump_json().replace("[40]", "[6]").replace("8, 40", "8, 6")


@pytest.mark.parametrize("fields", [LASSO, json.loads(PENDULUM)], ids=["lasso", "pendulum"])
@pytest.mark.parametrize("promise", sorted(CHECKS.keys() - {"memory"}))
def test_expressions_keep_what_families_promise(fields: dict[str, Any], promise: str) -> None:
    """The pendulum with 6 observations in place of 40."""
    CHECKS[promise](Subject(ExpressionSpec.model_validate(fields)))


def test_the_lasso_is_the_lasso() -> None:
    tasks = batch(ExpressionSpec.model_validate(LASSO))
    drawn = tasks.buffers()
    x = torch.rand(4, 60, dtype=torch.float64)
    measured = drawn["dictionary"] @ (drawn["support"] * drawn["size"]).unsqueeze(2) + drawn["noise"].unsqueeze(2)
    residual = drawn["dictionary"] @ x.unsqueeze(2) - measured
    truth = residual.square().sum((1, 2)) / 2 + 0.1 * x.sum(1)
    losses, gradient = tasks.losses_and_gradient(x.flatten(), 0)
    assert torch.allclose(losses, truth, rtol=1e-12)
    closed = (drawn["dictionary"].transpose(1, 2) @ residual).squeeze(2) + 0.1
    assert torch.allclose(gradient.view(4, 60), closed, rtol=1e-10)


def solved(substeps: int, rate: float) -> float:
    """exp(-rate) by steps from 0 to 1."""
    told = spec(
        f"theta[0] * 0 + odeint(decay, 1, linspace(0, 1, 5), rate, substeps={substeps})[4]",
        constants={"rate": rate},
        definitions=["decay(s, r) = -r * s"],
    )
    tasks = batch(told, 1)
    return float(tasks.losses(tasks.initial(), 0))


def test_what_a_right_side_computes_of_neither_state_nor_time_is_computed_once() -> None:
    told = spec(
        "sum(odeint(decay, [1, 2], linspace(0, 1, 5), theta)[4])",
        definitions=["decay(t, s, p) = -exp(p[0]) * s + sin(t) * tanh(p[1])"],
    )
    once, stepped = told.divided
    [body] = [each.integration.body for each in stepped.instructions if each.integration]
    assert {"exp", "tanh"}.isdisjoint(each.operation for each in body.instructions)
    assert {"exp", "tanh"} <= {each.operation for each in stepped.instructions}, "they move with the parameters"
    fixed = spec("sum(theta) + odeint(decay, 1, linspace(0, 1, 3), y)[2]", definitions=["decay(s, r) = -exp(r[0]) * s"])
    once, _ = fixed.divided
    assert "exp" in {each.operation for each in once.instructions}
    tasks = batch(told, 2)
    theta = tasks.initial().double()
    p = theta.view(2, 3)

    def slope(t: float, s: torch.Tensor) -> torch.Tensor:
        return -p[:, :1].exp() * s + math.sin(t) * p[:, 1:2].tanh()

    s, h = torch.tensor([[1.0, 2.0]] * 2, dtype=torch.float64), 0.25
    for number in range(4):
        t = number * h
        first = slope(t, s)
        second = slope(t + h / 2, s + h / 2 * first)
        third = slope(t + h / 2, s + h / 2 * second)
        s = s + h / 6 * (first + 2 * second + 2 * third + slope(t + h, s + h * third))
    assert torch.allclose(tasks.losses(theta, 0), s.sum(dim=1), rtol=1e-12)


def test_differential_equations_converge_with_the_fourth_power_of_the_step() -> None:
    errors = [abs(solved(substeps, 2.0) - math.exp(-2.0)) for substeps in (1, 2, 4)]
    assert errors[0] < 1e-3
    for coarse, fine in itertools.pairwise(errors):
        assert 12 < coarse / fine < 20


def test_a_right_side_may_read_the_time_and_names_outside() -> None:
    """The integral of 2 a t from 0 to 3 is 9 a, which the method gives exactly."""
    told = spec(
        "odeint(slope, 0 * theta[0], linspace(0, 3, 4))[3]",
        constants={"a": 1.5},
        definitions=["slope(t, s) = 2 * a * t"],
    )
    assert float(batch(told, 1).losses(torch.zeros(3, dtype=torch.float64), 0)) == pytest.approx(13.5, rel=1e-14)


def test_what_is_drawn_at_each_step_differs_between_steps_and_not_between_calls() -> None:
    told = spec("sum((theta - noise)**2)", draws={"noise": {"kind": "normal", "shape": [3], "each": "step"}})
    tasks = batch(told)
    theta = tasks.initial()
    first, second = (tasks.losses(theta, step) for step in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, tasks.losses(theta, torch.tensor(0)))


DISTRIBUTIONS = {
    "normal": ({"mean": 2.0, "std": 0.5}, 2.0, 0.5),
    "uniform": ({"low": -1.0, "high": 3.0}, 1.0, 4 / math.sqrt(12)),
    "loguniform": ({"low": 1.0, "high": math.e}, math.e - 1, math.sqrt((math.e**2 - 1) / 2 - (math.e - 1) ** 2)),
    "integers": ({"low": 2, "high": 6}, 3.5, math.sqrt(15 / 12)),
    "bernoulli": ({"probability": 0.3}, 0.3, math.sqrt(0.21)),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_draws_have_the_moments_of_their_distribution(kind: str) -> None:
    fields, mean, std = DISTRIBUTIONS[kind]
    told = spec("sum(theta) + sum(d)", draws={"d": {"kind": kind, "shape": [5000], **fields}})
    drawn = batch(told).buffers()["d"]
    assert drawn.shape == (4, 5000)
    assert float(drawn.mean()) == pytest.approx(mean, abs=5 * std / math.sqrt(20_000))
    assert float(drawn.std()) == pytest.approx(std, rel=0.05)


def test_the_order_of_fields_does_not_change_the_tasks() -> None:
    """Postgres' JSONB hands keys back in an order of its own."""
    fields = ExpressionSpec.model_validate(LASSO).model_dump(mode="json")
    turned = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(fields.items())
    }
    one, other = (batch(ExpressionSpec.model_validate(each)) for each in (fields, turned))
    assert torch.equal(one.losses_and_gradient(one.initial(), 0)[0], other.losses_and_gradient(other.initial(), 0)[0])


def test_what_depends_on_no_parameter_is_computed_once() -> None:
    once, stepped = FAMILIES["pendulum"].tasks.divided  # type: ignore[attr-defined]
    assert [each.operation for each in stepped.instructions].count("odeint") == 1
    assert "odeint" in [each.operation for each in once.instructions]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": {}}, "at least 1 item"),
        ({"parameters": {"A": {"kind": "normal"}}}, "the name A is declared twice"),
        (
            {"parameters": {name: {"kind": "normal", "shape": [3]} for name in ("theta", "b")}},
            "depend on the parameter b",
        ),
        ({"parameters": {"theta": {"kind": "cauchy"}}}, "does not match any of the expected tags"),
        ({"parameters": {"__x": {"kind": "normal"}}}, "should match pattern"),
        ({"parameters": {"theta": {"kind": "normal", "shape": [10000, 10000]}}}, "at most 1000000 fit"),
        ({"constants": {"c": [[1, 2], [3]]}}, "rows of a matrix are of one length"),
        ({"draws": {"u": {"kind": "uniform", "low": 2, "high": 1}}}, "low comes first"),
    ],
)
def test_wrong_declarations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec("sum(theta)", **fields)


def test_a_node_says_where_it_begins() -> None:
    node = parsed("1 + sum(2 * x)")
    assert (node.kind, node.column) == ("+", 3)
    assert (node.inputs[1].text, node.inputs[1].column) == ("sum", 5)
