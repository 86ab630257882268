"""Example values of the OpenAPI document, true to what the server answers (a test validates them)."""

from __future__ import annotations

from typing import Any

from models.families import FAMILIES

JOB_ID = "job_0198f0c2a4b07e3f9d5c1b2a3d4e5f60"
EVALUATION_ID = "job_0198f0c4d1e27a619c7e0f1b2a3c4d5e"
OPTIMIZER_ID = "opt_0198f0c3f00d7b21a1b2c3d4e5f60718"

_QUADRATIC = FAMILIES["quadratic"]

FAMILY: dict[str, Any] = _QUADRATIC.model_dump(mode="json", exclude={"overrides"}) | {
    "coordinates_per_task": _QUADRATIC.tasks.coordinates_per_task,
    "declared": False,
}
FAMILY_REQUEST: dict[str, Any] = {
    "name": "ridge",
    "title": "Ridge regression",
    "tasks": {
        "kind": "expression",
        "parameters": {"theta": {"kind": "normal", "shape": [10]}},
        "draws": {"A": {"kind": "normal", "shape": [20, 10]}, "y": {"kind": "normal", "shape": [20]}},
        "constants": {"weight": 0.1},
        "loss": "mean((A @ theta - y)**2) + weight * sum(theta**2)",
    },
}

DATASET: dict[str, Any] = {
    "name": "customers",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size_bytes": 48_213,
    "created_at": "2026-07-28T09:30:00Z",
    "format": "csv",
    "rows": 1200,
    "columns": [
        {
            "name": "income", "type": "number", "missing": 3, "infinite": 0, "low": 0.2, "high": 9.7, "mean": 4.1,
            "distinct": None, "examples": ["0.2", "0.31"],
        }
    ],
    "preview": [["c1", "0.2", "no"]],
    "inputs": ["income"],
    "target": "churned",
    "group": "customer",
    "classes": ["no", "yes"],
    "groups": {"count": 100, "smallest": 4, "median": 11.0, "largest": 30, "too_small": 0},
    "usable_rows": 1200,
}  # fmt: skip
META_TRAIN: dict[str, Any] = {"kind": "meta_train", "family": "quadratic"}
META_TRAIN_CHANGED: dict[str, Any] = {
    "kind": "meta_train",
    "family": "digits-mlp",
    "seed": 7,
    "recipe": {"meta_steps": 500, "rule": {"hidden_size": 16}},
    "evaluation": {"test_tasks": 256},
    "metadata": {"experiment": "smaller-rule"},
}
EVALUATE: dict[str, Any] = {"kind": "evaluate", "optimizer": "quadratic@best"}
PREVIEWED: dict[str, Any] = {"recipe": {"meta_steps": 300}, "evaluation": {"test_tasks": 128}}
PREVIEW: dict[str, Any] = {"kind": "preview", "family": "rosenbrock", "evaluation": {"tuning_tasks": 16}}
SWEEP: dict[str, Any] = {
    "kind": "sweep",
    "family": "quadratic",
    "seed": 7,
    "recipe": {"meta_steps": 300, "meta_learning_rate": [0.001, 0.003, 0.01], "rule": {"hidden_size": [10, 20]}},
}

JOB: dict[str, Any] = {
    "id": JOB_ID,
    "kind": "meta_train",
    "family": "quadratic",
    "status": "running",
    "status_reason": None,
    "attempt": 1,
    "queue_position": None,
    "progress": {"step": 412, "total": 1000, "eta_seconds": 14.2},
    "optimizer": None,
    "parent": None,
    "evaluation": None,
    "sweep": None,
    "trial": None,
    "metadata": {},
    "spec": {
        "kind": "meta_train",
        "family": _QUADRATIC.model_dump(mode="json"),
        "seed": 5577006791947779,
        "recipe": _QUADRATIC.recipe.model_dump(mode="json"),
        "evaluate": True,
        "evaluation": _QUADRATIC.evaluation.model_dump(mode="json"),
        "resources": {"device": "cpu", "threads": 1, "processes": 1, "backend": "auto"},
    },
    "price": {
        "predicted_seconds": 41.2,
        "actual_seconds": None,
        "rests_on": ["training: a calibration of 6 meta-steps on box by job_019ab8a57c3e7f1d9b0c2d4e6f8a1b3c"],
    },
    "runtime": {"torch": "2.13.0", "device": "cpu", "threads": 1},
    "created_at": "2026-11-24T09:00:00.000000Z",
    "started_at": "2026-11-24T09:00:00.412000Z",
    "finished_at": None,
}
QUEUED_JOB: dict[str, Any] = JOB | {
    "price": None,
    "status": "queued",
    "queue_position": 0,
    "progress": {"step": 0, "total": 1000, "eta_seconds": None},
    "runtime": {},
    "started_at": None,
}

CURVE: dict[str, Any] = {
    "job": JOB_ID,
    "attempt": 1,
    "status": "running",
    "total_points": 3,
    "step": [1, 2, 3],
    "loss": [11.2, None, 10.7],
    "gradient_norm": [0.4, None, 0.6],
    "validation": [None, None, 9.8],
    "learning_rate": [0.003, 0.003, 0.0029],
    "skipped": [False, True, False],
    "non_finite": [
        {"index": 1, "column": "loss", "value": "nan"},
        {"index": 1, "column": "gradient_norm", "value": "inf"},
    ],
}

COMPARISON: dict[str, Any] = {
    "ratio_of_means": 0.31,
    "ratio_interval": [0.25, 0.38],
    "ratio_of_medians": 0.12,
    "medians_interval": [0.08, 0.17],
    "share_won": 0.93,
    "difference_interval": [-1.2, -0.6],
    "verdict": "wins",
    "medians_verdict": "wins",
}
BREAK_EVEN: dict[str, Any] = {
    "baseline": "adam",
    "reached": 0.97,
    "learned_seconds": 0.0031,
    "baseline_seconds": 0.0078,
    "saved_seconds": 0.0047,
    "training_seconds": 29.1,
    "selection_seconds": 1.3,
    "trainings": 1,
    "tuning_runs": 9,
    "tuning_seconds": 0.071,
    "runs": 6469,
    "runs_beside_tuning": 6454,
    "never": None,
}

PRICE: dict[str, Any] = {
    "kind": "meta_train",
    "family": "quadratic",
    "coordinates_per_task": 10,
    "memory_bytes": 412_000_000,
    "seconds": {"training": 28.5, "selection": 1.3, "tuning": 6.1, "evaluation": 3.9, "total": 39.8},
    "rests_on": [
        f"training: measured on box by {JOB_ID} and 2 more",
        f"evaluation: measured on box by {EVALUATION_ID} and 2 more (6 of 6 baselines are stored)",
    ],
    "advice": None,
    "error": {"p10": 0.7, "p50": 0.98, "p90": 1.18, "jobs": 12},
    "queue": {"jobs": 1, "workers": 2, "seconds": 0.0},
    "notes": [],
    "spec": JOB["spec"],
}

PAYS = {
    "advice": "use",
    "answer": "Use it on quadratic: over the whole curve its loss is 0.52 times that of tuned Adam after as many steps "
    "and 0.71 times that of tuned Adam after as many seconds. Making it took 30.4 s, which 6,469 runs pay back (each "
    "run saves 4.7 ms to the final loss of tuned Adam); do not use it for more than 100 steps, which it was not "
    "trained for.",
}

OPTIMIZER: dict[str, Any] = {
    "id": OPTIMIZER_ID,
    "family": "quadratic",
    "version": 1,
    "reference": "quadratic@1",
    "aliases": ["best", "latest", "prod"],
    "tags": {"experiment": "smaller-rule"},
    "job": JOB_ID,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size_bytes": 21_204,
    "validation_score": 2.41,
    "overrides": {},
    "automatic": True,
    "tuned": False,
    "stands_for": None,
    "pays": PAYS,
    "card": {"seconds": 31.5, "best_step": 950, "skipped_steps": 0},
    "description": "A smaller rule.",
    "archived_at": None,
    "uploaded": None,
    "evaluations": [
        {
            "job": EVALUATION_ID,
            "family": "quadratic",
            "overrides": {},
            "verdict": {"final": "wins", "area": "wins"},
            "verdict_in_seconds": {"final": "wins", "area": "ties"},
            "break_even": BREAK_EVEN,
            "best_baseline": {
                "final": COMPARISON | {"baseline": "adam"},
                "area": COMPARISON | {"baseline": "adam", "ratio_of_means": 0.52, "ratio_interval": [0.47, 0.57]},
            },
            "decides": True,
            "pays": PAYS,
            "created_at": "2026-11-24T09:01:10.000000Z",
        }
    ],
    "created_at": "2026-11-24T09:00:32.000000Z",
}

ANATOMY: dict[str, Any] = {
    "optimizer": OPTIMIZER_ID,
    "job": EVALUATION_ID,
    "family": "quadratic",
    "overrides": {},
    "seed": 0,
    "optimizers": {"adam": {"learning_rate": 0.316, "schedule": "constant", "tuned": True}},
    "steps": 3,
    "coordinates": [{"part": "theta", "index": [3]}],
    "updates": {"learned": [[-0.21, -0.13, -0.04]], "adam": [[-0.316, -0.29, -0.25]]},
    "responses": [
        {
            "coordinate": 0,
            "after": 0,
            "had": 6.2,
            "gradient": [-18.6, 0.0, 18.6],
            "update": {"learned": [0.31, 0.0, -0.31], "adam": [0.316, 0.0, -0.316]},
        }
    ],
}

ALIAS: dict[str, Any] = {
    "family": "quadratic",
    "alias": "prod",
    "reference": "quadratic@prod",
    "optimizer": OPTIMIZER_ID,
    "version": 1,
    "created_at": "2026-11-24T09:02:00.000000Z",
    "updated_at": "2026-11-24T09:02:00.000000Z",
    "etag": '"1-9f86d081884c7d65"',
}
ALIAS_TARGET: dict[str, Any] = {"optimizer": "quadratic@1"}

# A pattern says which ids can name anything at all: others are answered 404 too.
_IN_PATHS: dict[str, dict[str, Any]] = {
    "job_id": {
        "description": "The `id` of a job.",
        "example": JOB_ID,
        "schema": {"pattern": "^job_[0-9a-f]{32}$"},
    },
    "reference": {
        "description": "An optimizer's id, `<family>@<version>` or `<family>@<alias>`.",
        "example": "quadratic@best",
        "schema": {"minLength": 1},
    },
    "name": {"description": "The name of a family.", "example": "quadratic", "schema": {"minLength": 1}},
    "dataset": {"description": "The name of a data set.", "example": "customers", "schema": {"minLength": 1}},
    "alias": {"example": "production"},
    "key_id": {"example": "key_0198f0c2a4b07e3f9d5c1b2a3d4e5f60", "schema": {"pattern": "^key_[0-9a-f]{32}$"}},
}
PARAMETERS: dict[str, dict[str, dict[str, Any]]] = {
    "path": _IN_PATHS,
    "query": {"job": {"example": [JOB_ID]}, "name": {"example": "customers"}},
}
"""What stands in paths, and the queries that a request cannot do without."""

BUILT_IN_DATASET: dict[str, Any] = {
    "name": "mnist",
    "ready": False,
    "fetchable": True,
    "alternative": False,
    "families": ["mnist-mlp"],
    "download": {
        "status": "running",
        "file": "train-images-idx3-ubyte",
        "received_bytes": 4_194_304,
        "total_bytes": 9_912_422,
        "error": None,
    },
}
