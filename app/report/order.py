"""The order in which a result is read. Postgres keeps JSON as JSONB, which sorts keys by their length."""

from __future__ import annotations

from typing import Any

from app.report.words import LABELS

_ORDER = (
    "format", "job", "optimizer", "family", "overrides", "seed", "horizon", "on", "criteria", "test_tasks",
    "tuning_tasks", "coordinates_per_task", "training_memory_bytes", "price", "training", "selection",
    "verdict", "validation", "family_tier", "break_even", "tiers", "optimizers", "tuning", "stored", "comparisons",
    "seconds", "time_to_target", "paired", "anatomy", "steps", "coordinates", "part", "index", "coordinate", "after",
    "had", "gradient", "updates", "responses", "update", "tuned", "untuned",
    *LABELS, "best_baseline",
    "baseline", "curve", "area_curve", "schedule", "learning_rate", "final", "area", "runs", "grid", "diverged",
    "tasks",
    "step", "mean", "median", "q10", "q90", "low", "high", "interval",
    "ratio_of_means", "ratio_interval", "ratio_of_medians", "medians_interval", "share_won", "difference_interval",
    "medians_verdict", "certain",
    "held_out", "loss", "accuracy", "cost", "runtime", "pictures",
)  # fmt: skip
_RANK = {key: rank for rank, key in enumerate(_ORDER)}


def in_order(value: Any) -> Any:
    """`value` with the keys of every object in the order above; what it does not name comes last, by name."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (_RANK.get(key, len(_RANK)), key))
        return {key: in_order(value[key]) for key in keys}
    if isinstance(value, list):  # of numbers, mostly: a curve has many
        return [in_order(each) for each in value] if value and isinstance(value[0], dict) else value
    return value
