"""What each of two real ranks does for test_parallel.py: `torchrun ... ranks.py FOLDER`, findings into FOLDER."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from gradsmith.rules import build
from models import meta_train, parallel
from models.backends import backend_for
from models.errors import RankLost
from models.meta_train import MetaStep, TrainingResult, TrajectoryEnd, Validated
from models.parallel import Team, join, mean_over_tasks, refuse_drift
from models.spec import MetaTrainSpec, Split, share
from models.tasks.catalogue import open_for_training
from models.training import trainer
from models.training.trainer import Trainer
from models.unroll import begin, unroll_window

WINDOW = 6


def window_mean(team: Team, spec: MetaTrainSpec, tasks: int) -> tuple[float, torch.Tensor]:
    """Loss and meta-gradient of one float64 window on `tasks` tasks, by plain autograd."""
    rule = build(spec.recipe.rule.config).double()
    rule.initialise(torch.Generator().manual_seed(3))
    own = share(tasks, team.size, team.rank)
    [batch] = open_for_training(spec.family.tasks).sample(
        Split.TRAIN, seed=spec.seed, trajectory=0, first=own.start, tasks=len(own), dtype=torch.float64
    )
    backend = backend_for(rule, torch.float64, torch.device("cpu"), wanted="reference")
    window, _ = unroll_window(batch, begin(batch, backend), WINDOW, backend)
    return mean_over_tasks(team, window.losses, window.gradient, tasks)


def validation_losses(team: Team, spec: MetaTrainSpec) -> list[list[float]]:
    """Of the untrained rule: each task's mean loss and its first."""
    trained = Trainer(spec, [open_for_training(spec.family.tasks)], torch.device("cpu"), 1, team)
    trained.fresh()
    losses, _seconds = returned(trained.validation.losses(0, 0.0))
    standing_still, area, _final = losses[0]
    return [area.tolist(), standing_still.tolist()]


def returned(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def whole_run(team: Team | None, spec: MetaTrainSpec, resume: bytes | None = None) -> tuple[dict, bytes, bytes]:
    """The steps, the first checkpoint, and the weights."""
    events = list(meta_train.meta_train(spec, resume=resume, team=team))
    steps = [asdict(event) for event in events if isinstance(event, MetaStep)]
    scores = [event.score for event in events if isinstance(event, Validated)]
    end = next(event for event in events if isinstance(event, TrajectoryEnd))
    assert isinstance(events[-1], TrainingResult)
    summary = {"steps": steps, "scores": scores, "skipped": events[-1].summary["skipped_steps"]}
    summary["gradients"] = events[-1].summary["cost"]["training"]["gradient_evaluations"]
    summary["processes"] = events[-1].summary["runtime"]["processes"]
    return summary, end.checkpoint(), events[-1].weights


def poisoned_run(team: Team, spec: MetaTrainSpec) -> dict:
    """A run whose third window is not finite on the last rank alone."""
    plain, seen = trainer.mean_over_tasks, []

    def poisoned(team, losses, gradient, tasks):
        seen.append(gradient)
        if len(seen) == 3 and team.rank == team.size - 1:
            gradient[0] = float("nan")
        return plain(team, losses, gradient, tasks)

    trainer.mean_over_tasks = poisoned
    try:
        return whole_run(team, spec)[0]
    finally:
        trainer.mean_over_tasks = plain


def lost(act) -> str:
    try:
        act()
    except RankLost as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    team = join("cpu")
    spec = MetaTrainSpec.model_validate_json((folder / "spec.json").read_text())
    wide = MetaTrainSpec.model_validate_json((folder / "wide.json").read_text())
    found: dict = {}
    for tasks in (4, 3):
        loss, gradient = window_mean(team, spec, tasks)
        found[f"window/{tasks}"] = [loss, gradient.tolist()]
    found["validation"] = validation_losses(team, wide)
    found["run"], checkpoint, weights = whole_run(team, spec)
    found["weights"] = weights.hex()
    (folder / f"checkpoint{team.rank}").write_bytes(checkpoint)
    found["resumed"] = whole_run(team, spec, (folder / "lone_checkpoint").read_bytes())[0]
    found["poisoned"] = poisoned_run(team, spec)
    found["same"] = lost(lambda: refuse_drift(team, torch.ones(3)))
    found["drift"] = lost(lambda: refuse_drift(team, torch.ones(3), torch.ones(3) + team.rank * 1e-7))
    parallel.PATIENCE_SECONDS = 0.5
    team.sum_(torch.zeros(1))
    if team.rank == 1:
        time.sleep(3)  # hangs, as far as rank 0 can see
    started = time.monotonic()
    found["late"] = lost(lambda: team.sum_(torch.zeros(1)))
    found["waited"] = time.monotonic() - started
    (folder / f"found{team.rank}.json").write_text(json.dumps(found))
    os._exit(0)  # the group is broken, on purpose: nothing of it is worth a goodbye


if __name__ == "__main__":
    main(Path(sys.argv[1]))
