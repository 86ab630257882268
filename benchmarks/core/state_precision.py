"""What memory in bfloat16 costs a trained rule: loss curves of `LearnedOptimizer` on held-out quadratics, with the
rule's memory in float32 and in bfloat16. What two seeds of the training differ by is the measure of what matters.

    python -m benchmarks.core.state_precision [SEEDS] [META_STEPS]

Each seed trains a rule on the built-in quadratics and runs it twice on the same 1,024 functions of the test split.
"""

from __future__ import annotations

import sys

import torch

from gradsmith import LearnedOptimizer
from models.families import FAMILIES
from models.families.quadratic import QuadraticSpec
from models.families.quadratic.tasks import QuadraticFamily
from models.meta_train import TrainingResult, meta_train
from models.spec import EvaluationPlan, MetaTrainSpec, Resources, Split

FUNCTIONS, STEPS = 1_024, 100
SHOWN = (10, 30, 100)


def trained(seed: int, meta_steps: int) -> bytes:
    """The weights of a rule for the built-in quadratics."""
    family = FAMILIES["quadratic"]
    spec = MetaTrainSpec(
        family=family,
        seed=seed,
        recipe=family.recipe.model_copy(update={"meta_steps": meta_steps}),
        evaluate=False,
        evaluation=EvaluationPlan(),
        resources=Resources(),
    )
    *_, last = meta_train(spec)
    assert isinstance(last, TrainingResult)
    return last.weights


def curve(weights: bytes, state_dtype: torch.dtype) -> torch.Tensor:
    """The mean loss before each step and after the last, (STEPS + 1,)."""
    family = QuadraticFamily(QuadraticSpec(), {Split.TEST})
    [batch] = family.sample(Split.TEST, seed=0, trajectory=0, tasks=FUNCTIONS)
    theta = torch.nn.Parameter(batch.initial())
    optimizer = LearnedOptimizer([theta], weights, state_dtype=state_dtype)
    losses = []
    for step in range(STEPS + 1):
        found, theta.grad = batch.losses_and_gradient(theta.detach(), step)
        losses.append(found.mean())
        optimizer.step()
    return torch.stack(losses)


def main(seeds: int = 3, meta_steps: int = 300) -> None:
    """Print a table in Markdown."""
    torch.set_num_threads(1)
    print("| seed | " + " | ".join(f"loss after {step}" for step in SHOWN) + " | bfloat16 / float32, worst step |")
    print("|---" * (len(SHOWN) + 2) + "|")
    for seed in range(seeds):
        weights = trained(seed, meta_steps)
        full, half = (curve(weights, dtype) for dtype in (torch.float32, torch.bfloat16))
        pairs = " | ".join(f"{full[step]:.4f} / {half[step]:.4f}" for step in SHOWN)
        ratio = half / full
        worst = ratio[(ratio - 1).abs().argmax()]
        print(f"| {seed} | {pairs} | {worst:.4f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
