"""The five families, as a user would declare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.own_problems import loops
from models.baselines import DEFAULT_TUNED

PLAN: Mapping[str, Any] = {"test_tasks": 128, "tuning_tasks": 32, "search": "halving"}
"""How each is measured: smaller than a family's own plan, so that all five take an hour on a busy core."""
ATOMS, MEASUREMENTS, L1 = 60, 30, 0.1


@dataclass(frozen=True)
class Problem:
    """words: what is fitted; tasks: without its table. table: of examples/tables.py, and the roles of its columns.
    fresh: tasks in plain torch, from the table's path or None, a seed and their number"""

    words: str
    tasks: Mapping[str, Any]
    fresh: Callable[[loops.Place, int, int], list[loops.Fit]]
    table: str | None = None
    roles: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


_WITH_LBFGS = {"baselines": [*DEFAULT_TUNED, "lbfgs"]}
"""L-BFGS suits a smooth convex loss, and is not in the usual tier of tables."""
_SWING = "swing(s, p) = [s[1], -exp(p[0]) * 0.3 * s[1] - exp(p[1]) * sin(s[0])]"
PROBLEMS: Mapping[str, Problem] = {
    "clinics": Problem(
        words="logistic regression for each of 200 clinics made from scikit-learn's breast-cancer data",
        tasks={"kind": "regression", "loss": "logistic", "l2": 0.01},
        fresh=loops.clinics,
        table="clinics.csv",
        roles={"target": "diagnosis", "group": "clinic"},
        evaluation=_WITH_LBFGS,
    ),
    "wine": Problem(
        words="softmax regression on 64 wines that each task draws",
        tasks={"kind": "regression", "loss": "softmax", "l2": 0.01, "most_rows": 64},
        fresh=loops.wines,
        table="wine.csv",
        roles={"target": "kind"},
        evaluation=_WITH_LBFGS,
    ),
    "autoencoder": Problem(
        words="a sigmoid autoencoder 64-16-64 of 8x8 digits, minibatches of 128",
        tasks={"kind": "autoencoder", "dataset": "digits", "hidden": [16], "batch_size": 128},
        fresh=loops.autoencoders,
    ),
    "lasso": Problem(
        words=f"lasso: {MEASUREMENTS} measurements of a sparse vector of {ATOMS} through a random dictionary",
        tasks={"kind": "lasso", "dimension": ATOMS, "measurements": MEASUREMENTS, "l1": L1},
        fresh=loops.lassos,
    ),
    "pendulum": Problem(
        words=f"damping and stiffness of a pendulum from {loops.SEEN} noisy angles, an expression with `odeint`",
        tasks={
            "kind": "expression",
            "parameters": {"guess": {"kind": "normal", "shape": [2], "std": 0.3}},
            "draws": {
                "truth": {"kind": "normal", "shape": [2], "std": 0.5},
                "angle": {"kind": "uniform", "low": 0.5, "high": 2.0},
                "noise": {"kind": "normal", "shape": [loops.SEEN], "std": 0.05},
            },
            "definitions": [
                _SWING,
                f"times = linspace(0, {loops.SECONDS}, {loops.SEEN})",
                "start = [angle, 0]",
                "observed = odeint(swing, start, times, truth)[:, 0] + noise",
            ],
            "loss": "mean((odeint(swing, start, times, guess)[:, 0] - observed)**2)",
        },
        fresh=loops.pendulums,
        recipe={"horizon": 50, "unroll_steps": 10},
        evaluation={"horizon": 50},
    ),
}
