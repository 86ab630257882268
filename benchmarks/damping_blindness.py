"""What a step of an optimizer is worth along fresh and stale directions: the truth, and what meta-gradients say.

    ./run bench damping_blindness [--tasks N] [--seed N]

The rule is Adam at 0.05 plus e_1 g / s + e_2 m(.9) / s + e_3 m(.97) / s, all e at zero: g is the gradient, m a running
mean of gradients, s the root of the running mean square. The table has the derivative of the summed loss of 100 steps
on digits with respect to each e. The truth comes from central differences of the loss itself, at e = +-0.001; the rest
from the product's own meta-gradients, detached and exact, in windows of several lengths, all in float64. Prints the
table in Markdown and draws docs/images/damping-blindness.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from benchmarks.core.environment import ROOT
from gradsmith.rules import Rule, Segments, State
from gradsmith.rules.configs import Costs, RuleConfig
from models.backends import TorchBackend
from models.families import FAMILIES
from models.meta_loss import MetaLoss
from models.rollout import Learned
from models.spec import Split
from models.tasks.base import TaskBatch
from models.tasks.catalogue import open_for_training
from models.unroll import begin, unroll_window

HORIZON = 100
RATE = 0.05
DECAYS, SQUARES = (0.9, 0.97), 0.99
DIRECTIONS = ("g / s (fresh)", "m(.9) / s", "m(.97) / s (stale)")
DIFFERENCE = 1e-3
Estimate = tuple[str, MetaLoss, int]
"""Its name, how, and the inner steps of a window."""

ESTIMATES: tuple[Estimate, ...] = (
    ("detached, 20 steps", MetaLoss("detached"), 20),
    ("detached, 100 steps", MetaLoss("detached"), 100),
    ("exact, 20 steps", MetaLoss("exact"), 20),
    ("exact, 50 steps", MetaLoss("exact"), 50),
    ("exact, 100 steps", MetaLoss("exact"), 100),
)
TRUTH = "truth"
PICTURE = ROOT / "docs/images/damping-blindness.png"


@dataclass(frozen=True, kw_only=True)
class DirectionsConfig(RuleConfig):
    """Has no settings."""

    kind: ClassVar[str] = "directions"

    def in_words(self) -> str:
        return "Adam plus a share of each direction"

    def costs(self, tensors: float = 0.0) -> Costs:  # noqa: ARG002
        return Costs(state=4, step=12, largest=3, autograd=24, replay=0, record=0, sizes=None)


@final
class Directions(Rule):
    """-RATE (m(.9) / s + the sum of e_k and its direction), with m_b the running mean of gradients and s the root of
    that of their squares. The rules that are trained count s as a constant; here nothing is held constant.

    Its memory: means (N, 2), squares (N, 1) and the number of steps (N, 1).
    """

    kind: ClassVar[str] = DirectionsConfig.kind
    coordinatewise = True
    settings = DirectionsConfig()

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Parameter(torch.zeros(len(DIRECTIONS), dtype=torch.float64))

    def initial_state(
        self,
        coordinates: int,
        *,
        tensors: int = 1,  # noqa: ARG002
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> State:
        return tuple(torch.zeros(coordinates, width, dtype=dtype, device=device) for width in (len(DECAYS), 1, 1))

    def forward(
        self,
        gradient: Tensor,
        state: State,
        segments: Segments | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, State]:
        means, squares, count = state
        now, decays = gradient[:, None], torch.tensor(DECAYS, dtype=gradient.dtype)
        count = count + 1
        means = decays * means + (1 - decays) * now
        squares = SQUARES * squares + (1 - SQUARES) * now * now
        least = torch.finfo(gradient.dtype).tiny  # the root's derivative at 0 is infinite
        size = (squares / (1 - SQUARES**count)).clamp(min=least).sqrt() + 1e-8
        directions = torch.cat((now, means / (1 - decays**count)), dim=1) / size
        return -RATE * (directions[:, 1] + directions @ self.e), (means, squares, count)

    def config(self) -> dict[str, object]:
        return self.settings.plain()

    def initialise(self, generator: torch.Generator) -> None:  # noqa: ARG002
        nn.init.zeros_(self.e)


def measure(
    tasks: TaskBatch, horizon: int = HORIZON, estimates: Sequence[Estimate] = ESTIMATES
) -> dict[str, list[float]]:
    """d(summed loss) / d(e) of each direction: the truth, and every estimate."""
    rule = Directions()
    backend = TorchBackend(rule)
    found = {TRUTH: _truth(tasks, horizon, rule, backend)}
    for name, meta_loss, steps in estimates:
        total, position = torch.zeros_like(rule.e), begin(tasks, backend)
        for _ in range(horizon // steps):
            window, position = unroll_window(tasks, position, steps, backend, meta_loss)
            total += window.gradient
        found[name] = total.tolist()
    return found


def _truth(tasks: TaskBatch, horizon: int, rule: Directions, backend: TorchBackend) -> list[float]:
    slopes = []
    for number in range(len(DIRECTIONS)):
        sides = []
        for e in (DIFFERENCE, -DIFFERENCE):
            with torch.no_grad():
                rule.e[number] = e
            sides.append(_summed_loss(tasks, horizon, backend))
        with torch.no_grad():
            rule.e[number] = 0.0
        slopes.append((sides[0] - sides[1]) / (2 * DIFFERENCE))
    return slopes


def _summed_loss(tasks: TaskBatch, horizon: int, backend: TorchBackend) -> float:
    """The losses at theta_1 .. theta_horizon, added up; the mean over tasks."""
    theta, stepper, total = tasks.initial(), Learned(backend).start(tasks), torch.zeros(tasks.tasks, dtype=tasks.dtype)
    for step in range(horizon):
        _, gradient = tasks.losses_and_gradient(theta, step)
        stepper.step(theta, gradient)
        total += tasks.losses(theta, step + 1)
    return float(total.mean())


def table(found: dict[str, list[float]]) -> str:
    """A row for each direction, and the ratio of the first to the last."""
    rows = [f"| direction | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    for number, direction in enumerate(DIRECTIONS):
        rows.append(f"| {direction} | {' | '.join(f'{slopes[number]:.1f}' for slopes in found.values())} |")
    rows.append(f"| fresh over stale | {' | '.join(f'**{_ratio(slopes):.2f}**' for slopes in found.values())} |")
    return "\n".join(rows)


def _ratio(slopes: Sequence[float]) -> float:
    return slopes[0] / slopes[-1]


def draw(found: dict[str, list[float]], path: Path = PICTURE) -> Path:
    """Where it was written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colors = (  # the truth, two detached ones, three exact ones
        "#111827",
        "#fca5a5",
        "#dc2626",
        "#bfdbfe",
        "#60a5fa",
        "#1d4ed8",
    )
    figure = Figure(figsize=(8, 4.5), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.11, 0.88, 0.69))
    width = 0.8 / len(found)
    for place, ((name, slopes), color) in enumerate(zip(found.items(), colors, strict=False)):
        centres = [number + (place - (len(found) - 1) / 2) * width for number in range(len(DIRECTIONS))]
        label = f"{name}: fresh / stale {_ratio(slopes):.1f}"
        axes.bar(centres, [-slope for slope in slopes], width * 0.92, color=color, label=label)
    axes.set_xticks(range(len(DIRECTIONS)), DIRECTIONS)
    axes.set_ylabel("loss saved by a share of the direction", color="#374151")
    axes.tick_params(colors="#374151", length=0)
    axes.grid(True, axis="y", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=9, labelcolor="#374151")
    figure.text(0.09, 0.925, "Damping blindness", fontsize=14, fontweight="bold", color="#111827")
    says = (
        "Without second derivatives a meta-gradient values a stale momentum like a fresh gradient (digits, 100 steps)"
    )
    figure.text(0.09, 0.86, says, fontsize=9.5, color="#4b5563")
    figure.savefig(path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fresh and stale directions: the truth against meta-gradients.")
    parser.add_argument("--tasks", type=int, default=16, help="tasks that are averaged over (16)")
    parser.add_argument("--seed", type=int, default=5, help="which tasks (5)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    family = open_for_training(FAMILIES["digits-mlp"].tasks)
    [tasks] = family.sample(Split.TRAIN, seed=options.seed, trajectory=0, tasks=options.tasks, dtype=torch.float64)
    found = measure(tasks)
    print(table(found))
    print(f"\n{draw(found).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
