"""What a worker does to the stores, without training anything, and results to store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import save

from app.settings import Settings
from app.store import events, leases, outcomes
from app.store.curves import Points
from app.store.events import EventId, JobEvent
from app.store.leases import Lease
from app.store.outcomes import Outcome
from app.store.sessions import Database
from app.streams import Publisher

WEIGHTS = save({"weight": np.arange(64, dtype=np.float32)}, metadata={"gradsmith": '{"format_version":1}'})


def points(*steps: int, loss: float | None = None) -> Points:
    return Points(
        step=list(steps),
        loss=[10.0 / step if loss is None else loss for step in steps],
        gradient_norm=[1.0 for _ in steps],
        validation=[0.5 if step % 5 == 0 else None for step in steps],
        learning_rate=[1e-3 / step for step in steps],
        skipped=[step % 7 == 0 for step in steps],
    )


@dataclass
class Worker:
    """What a worker does to the stores, without training anything."""

    settings: Settings
    database: Database
    job_id: str
    attempt: int = 1
    sequence: int = 0
    sent: list[JobEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lease = Lease(self.job_id, self.attempt, "test:1")
        with self.database.write() as session:
            assert leases.claim(session, self.lease, 60.0, {"torch": "2.13.0", "threads": 1}) is not None
            self.sequence = events.next_id(session, self.job_id, self.attempt).sequence - 1
        self.publisher = Publisher(self.settings, self.job_id)

    def next_id(self) -> EventId:
        self.sequence += 1
        return EventId(self.attempt, self.sequence)

    def event(self, kind: Any, data: dict[str, Any]) -> JobEvent:
        return JobEvent.of(self.next_id(), kind, data)

    def metrics(self, *steps: int, loss: float | None = None) -> JobEvent:
        return JobEvent.metrics(self.next_id(), points(*steps, loss=loss))

    def publish(self, *sent: JobEvent) -> None:
        for event in sent:
            self.publisher.publish(event)
            self.sent.append(event)

    def record(self, *stored: JobEvent) -> None:
        with self.database.write() as session:
            leases.record(session, self.lease, stored)

    def progress(self, step: int, total: int = 1000, eta_seconds: float = 5.0) -> None:
        with self.database.write() as session:
            leases.progress(session, self.lease, step, total, eta_seconds)

    def finish_training(
        self, weights: bytes = WEIGHTS, score: float | None = 1.0, *, shortfall: str | None = None, **card: Any
    ) -> Outcome:
        with self.database.write() as session:
            outcome = outcomes.finish_training(
                session,
                self.lease,
                self.next_id(),
                weights=weights,
                validation_score=score,
                card=card,
                shortfall=shortfall,
            )
        self.publish(outcome.event)
        return outcome

    def finish_evaluation(self, result: dict[str, Any]) -> Outcome:
        with self.database.write() as session:
            outcome = outcomes.finish_with_result(session, self.lease, self.next_id(), result=result)
        self.publish(outcome.event)
        return outcome

    def fail(self, reason: str) -> None:
        with self.database.write() as session:
            event = leases.fail(session, self.lease, reason, self.next_id())
        self.publish(event)

    def close(self) -> None:
        self.publisher.close()


def evaluation_result(family: str = "quadratic", horizon: int = 20, verdict: str = "wins") -> dict[str, Any]:
    """A small result in the form that models.evaluation gives."""
    rates = {"learned": 0.3, "adam": 0.12, "rmsprop": 0.1, "nag": 0.08, "sgd": 0.04}
    steps = np.arange(horizon + 1)

    def measured(rate: float) -> dict[str, Any]:
        mean = 10.0 * np.exp(-rate * steps) + 0.01
        rows = {"mean": 1.0, "median": 0.7, "q10": 0.3, "q90": 1.9, "low": 0.9, "high": 1.1}
        curve = {name: (mean * factor).tolist() for name, factor in rows.items()}
        final = {name: curve[name][-1] for name in ("mean", "median", "q10", "q90")}
        final["interval"] = [curve["low"][-1], curve["high"][-1]]
        return {"curve": {"step": steps.tolist(), **curve}, "final": final, "area": final, "diverged": 0}

    found = {
        "ratio_of_means": 0.31,
        "ratio_interval": [0.25, 0.38],
        "ratio_of_medians": 0.12,
        "medians_interval": [0.08, 0.17],
        "share_won": 0.93,
        "difference_interval": [-1.2, -0.6],
        "verdict": verdict,
        "medians_verdict": verdict,
    }
    baselines = [name for name in rates if name != "learned"]
    grid = [
        {"schedule": "constant", "learning_rate": 10 ** (k / 4), "final": 1.0, "area": 2.0, "diverged": int(k > 0)}
        for k in range(-6, 2)
    ]
    tuned = {
        "learning_rate": {"final": 0.1, "area": 0.178},
        "schedule": {"final": "constant", "area": "constant"},
        "runs": len(grid),
        "grid": grid,
    }
    timed = {name: {"median": 2e-5, "low": 1.9e-5, "high": 2.3e-5} for name in rates}
    at_once = {"final": found | {"certain": True}, "area": found | {"certain": False}}
    ratio = np.linspace(1.0, 4.0, 13)
    heights = {name: np.minimum(1.0, 2.5 * rate * (1 - 0.9 / ratio)) for name, rate in rates.items()}
    profile = {name: {"score": float(each.mean()), "profile": each.tolist()} for name, each in heights.items()}
    easy = np.exp(np.linspace(-2, 2, 60))  # 60 tasks, the learned one's losses up to twice or down to a tenth
    pairs = {"learned": (easy * np.exp(np.sin(np.arange(60) * 7) - 0.8)).tolist(), "best_baseline": easy.tolist()}
    moving = {name: rates[name] for name in ("learned", "rmsprop", "adam")}
    return {
        "format": 3,
        "family": family,
        "overrides": {},
        "seed": 7,
        "horizon": horizon,
        "on": "training",
        "criteria": {"final": "mean loss of the last 5 steps", "area": "mean loss of all steps after the start"},
        "test_tasks": 512,
        "tuning_tasks": 128,
        "tiers": {"tuned": baselines, "untuned": []},
        "stored": {"tuning": {}, "test": {}, "targets": {}},
        "optimizers": {name: measured(rate) for name, rate in rates.items()},
        "tuning": dict.fromkeys(baselines, tuned),
        "comparisons": {name: {"final": found, "area": found} for name in baselines}
        | {"best_baseline": dict.fromkeys(("final", "area"), found | {"baseline": "adam"})},
        "verdict": {"final": verdict, "area": verdict},
        "paired": dict.fromkeys(("final", "area"), {"baseline": "adam"} | pairs),
        "seconds": {
            "coordinates": 10,
            "gradient": timed["learned"],
            "step": timed,
            "run": {name: 0.001 * (1 + rate) for name, rate in rates.items()},
            "comparisons": {
                name: {"learned_steps": {"median": 18, "low": 17, "high": horizon}, **at_once} for name in baselines
            }
            | {"best_baseline": {metric: each | {"baseline": "adam"} for metric, each in at_once.items()}},
            "verdict": {"final": verdict, "area": verdict},
        },
        "time_to_target": {
            "baseline": "adam",
            "up_to": 4.0,
            "targets": [
                {
                    "fraction": 1.0,
                    "step": horizon,
                    "loss": 0.9,
                    "reached": dict.fromkeys(rates, 0.5),
                    "median_steps": dict.fromkeys(rates),
                }
            ],
            "problems": 512,
            "ratio": ratio.tolist(),
            "steps": profile,
            "seconds": profile,
        },
        "validation": {
            "criterion": "area of 128 tasks after 100 steps",
            "learned": 2.41,
            "baseline": "adam",
            "learning_rate": 0.178,
            "schedule": "linear",
            "steps": horizon,
            "tuned": 1.63,
            "standing_still": 30.1,
            "better": "tuned",
        },
        "anatomy": {
            "optimizers": {
                name: {"learning_rate": 0.1, "schedule": "constant", "tuned": True} for name in ("rmsprop", "adam")
            },
            "steps": horizon,
            "coordinates": [{"part": "theta", "index": [place]} for place in (3, 5, 8)],
            "updates": {name: [(-rate * np.exp(-rate * steps[1:])).tolist()] * 3 for name, rate in moving.items()},
            "responses": [
                {
                    "coordinate": 1,
                    "after": after,
                    "had": 0.4,
                    "gradient": [-1.0, 0.0, 1.0],
                    "update": {name: [rate, 0.0, -rate] for name, rate in moving.items()},
                }
                for after in (0, horizon // 2)
            ],
        },
        "break_even": {
            "baseline": "adam",
            "reached": 0.9,
            "learned_seconds": 0.0005,
            "baseline_seconds": 0.0011,
            "saved_seconds": 0.0006,
            "training_seconds": 31.5,
            "selection_seconds": 2.5,
            "trainings": 1,
            "tuning_runs": 9,
            "tuning_seconds": 0.0099,
            "runs": 56_667,
            "runs_beside_tuning": 56_651,
            "never": None,
        },
        "cost": {
            "seconds": 12.3,
            "gradient_evaluations": {"tuning": 123_456, "test": 51_200},
            "phases": {"learned": 0.4, "tuning": {"adam": 8.0}, "test": {"adam": 1.5}, "besides": 2.4},
        },
        "runtime": {"torch": "2.13.0", "device": "cpu", "threads": 1},
    }


def preview_result(family: str = "rosenbrock") -> dict[str, Any]:
    """A small result in the form that models.preview gives."""
    found = evaluation_result(family)
    shared = {name: found[name] for name in ("family", "seed", "horizon", "on", "criteria", "tuning_tasks", "runtime")}
    cost = {"seconds": 1.2, "gradient_evaluations": {"tuning": 12_345}}
    return shared | {
        "format": 2,
        "overrides": {},
        "criteria": {"final": "mean loss of the last 5 steps", "area": "mean loss of all steps after the start"},
        "coordinates_per_task": 10,
        "training_memory_bytes": 350_000_000,
        "optimizers": {"adam": found["optimizers"]["adam"]},
        "tuning": {"adam": found["tuning"]["adam"]},
        "stored": {"tuning": {}},
        "cost": cost,
    }
