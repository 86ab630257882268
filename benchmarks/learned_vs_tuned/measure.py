"""What is compared: rules of several meta-seeds, and baselines whose learning rates were tuned once, on validation
tasks; all of them run on the same test tasks, which were drawn once."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from gradsmith.rules import weights as rule_weights
from models.backends import backend_for
from models.baselines import BASELINES, TUNED
from models.curves import Curves
from models.evaluation.statistics import Bootstrap, Comparison, compare
from models.measured import CRITERIA, TUNING_TRAJECTORY
from models.meta_train import MetaStep, Restarted, TrainingResult, Validated, meta_train
from models.rollout import Learned, Sample, curves, run
from models.spec import FamilySpec, MetaTrainSpec, Resources, Split, overridden
from models.tasks.catalogue import open_for_testing, open_for_tuning
from models.tuning import Tuning, tune

EVALUATION_SEED = 0
NAMES = {"learned": "learned"} | {name: baseline.label for name, baseline in BASELINES.items()}
T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """One meta-seed: its rule, and what it took."""

    seed: int
    weights: bytes
    summary: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One meta-seed against the best tuned baseline on the held-out tasks, at the last step and over the area."""

    trained: Trained
    curves: Curves
    final: Comparison
    area: Comparison


def trained(
    family: FamilySpec, seed: int, *, meta_steps: int | None, threads: int, data_dir: Path | None, keep: Path | None
) -> Trained:
    """The rule of one meta-seed, told of on stderr. meta_steps: None for the recipe's; keep: the folder in which it is
    stored, and from which it is taken where it is."""
    changes = {} if meta_steps is None else {"meta_steps": meta_steps}
    recipe = overridden(family.recipe, changes)
    told = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()[:8]
    kept = None if keep is None else keep / f"{family.name}-{told}-{seed}.safetensors"
    if kept is not None and kept.exists():
        return Trained(seed, kept.read_bytes(), json.loads(kept.with_suffix(".json").read_text()))
    spec = MetaTrainSpec(
        family=family,
        seed=seed,
        recipe=recipe,
        evaluate=False,
        evaluation=family.evaluation,
        resources=Resources(threads=threads),
    )
    began, cpu = time.perf_counter(), time.process_time()
    result: TrainingResult | None = None
    for event in meta_train(spec, data_dir=data_dir):
        match event:
            case Validated(step=step, score=score):
                print(f"seed {seed}  meta-step {step:5d}  validation {score:.4g}", file=sys.stderr, flush=True)
            case Restarted(reason=reason):
                print(f"seed {seed}  {reason}", file=sys.stderr, flush=True)
            case MetaStep(step=step, skipped=True):
                print(f"seed {seed}  meta-step {step} skipped", file=sys.stderr, flush=True)
            case TrainingResult():
                result = event
    if result is None:
        raise RuntimeError("meta-training ended without a result")
    spent = {"wall_seconds": time.perf_counter() - began, "core_seconds": time.process_time() - cpu}
    summary = result.summary | spent | {"validation_score": result.validation_score}
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(result.weights)
        kept.with_suffix(".json").write_text(json.dumps(summary))
    return Trained(seed, result.weights, summary)


def baselines(family: FamilySpec, data_dir: Path | None) -> tuple[dict[str, Tuning], dict[str, dict[str, Curves]]]:
    """Each baseline tuned on validation tasks, and its final-tuned and area-tuned run on the test tasks."""
    plan = family.evaluation
    tuning_family, test_family = open_for_tuning(family.tasks, data_dir), open_for_testing(family.tasks, data_dir)
    sample = Sample(Split.VALIDATION, EVALUATION_SEED, TUNING_TRAJECTORY, plan.tuning_tasks)
    tunings: dict[str, Tuning] = {}
    found: dict[str, dict[str, Curves]] = {}
    for name in plan.baselines:
        tunings[name] = to_the_end(tune(TUNED[name], tuning_family, sample, plan.horizon, plan.schedules))
        found[name] = {
            criterion: curves(
                run(tunings[name].best(criterion), test_family, _test_sample(family), plan.horizon, held_out=True)
            )
            for criterion in CRITERIA
        }
        print(f"{name} tuned in {len(tunings[name].points)} runs", file=sys.stderr, flush=True)
    return tunings, found


def measured(
    family: FamilySpec, rules: list[Trained], tuned: dict[str, dict[str, Curves]], data_dir: Path | None
) -> list[Row]:
    """Each rule and the best of the tuned baselines on the same test tasks."""
    plan = family.evaluation
    bootstrap = Bootstrap(plan.test_tasks, plan.bootstrap_samples, EVALUATION_SEED)
    test_family = open_for_testing(family.tasks, data_dir)
    final = min((each["final"].final for each in tuned.values()), key=lambda losses: float(losses.mean()))
    area = min((each["area"].area for each in tuned.values()), key=lambda losses: float(losses.mean()))
    rows = []
    for one in rules:
        rule = rule_weights.loads(one.weights)
        optimizer = Learned(
            backend_for(rule, torch.float32, torch.device("cpu"), parts=family.tasks.parts()), horizon=plan.horizon
        )
        found = curves(run(optimizer, test_family, _test_sample(family), plan.horizon, held_out=True))
        rows.append(
            Row(
                one,
                found,
                compare(as_array(found.final), as_array(final), bootstrap),
                compare(as_array(found.area), as_array(area), bootstrap),
            )
        )
    return rows


def _test_sample(family: FamilySpec) -> Sample:
    return Sample(Split.TEST, EVALUATION_SEED, 0, family.evaluation.test_tasks)


def as_array(losses: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    return losses.numpy().astype(np.float64)


def to_the_end(work: Generator[object, None, T]) -> T:
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: T = end.value
            return found
