"""What a sweep tries next is a function of its children alone: whoever asks, whenever, in whatever order they ended."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from app.jobs.kinds.sweeping import SweepRequest, resolved
from app.jobs.sweeps.proposals import NothingFits, plan
from app.store.sweeps import Trial
from models.spec import SweepSpec

RATES = {"low": 1e-5, "high": 1.0, "log": True}


def sweep(**changes: Any) -> SweepSpec:
    body = {"kind": "sweep", "family": "quadratic", "seed": 3, **changes}
    return resolved(SweepRequest.model_validate(body), None, "auto")


def score_of(values: dict[str, Any]) -> float:
    """Lowest at a rate of 0.01 and a hidden size of 20."""
    rate = math.log10(values["recipe.meta_learning_rate"]) + 2
    return rate**2 + abs(values.get("recipe.rule.hidden_size", 20) - 20) / 40


def run(spec: SweepSpec, seed: int = 0) -> list[Trial]:
    """All trials, which end in an order that `seed` draws; after each, two that ask are told the same."""
    order, trials = random.Random(seed), list[Trial]()
    while not (wanted := plan(spec, trials)).ended:
        assert plan(spec, list(trials)) == wanted
        for each in wanted.proposals:
            trials.append(Trial(each.number, each.rung, each.values, "", "queued", None, None, None, True, None))
        active = [trial for trial in trials if not trial.ended]
        assert 0 < len(active) <= spec.parallel
        chosen = order.choice(active)
        found = score_of(dict(chosen.values)) + chosen.rung / 1000
        trials[chosen.number] = replace(chosen, status="succeeded", score=found)
    assert [trial.number for trial in trials] == list(range(spec.total))
    return trials


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_values_do_not_depend_on_who_ends_first(sampler: str) -> None:
    recipe = {"meta_learning_rate": RATES, "rule": {"hidden_size": {"low": 5, "high": 40}}}
    spec = sweep(sampler=sampler, trials=16, parallel=3, recipe=recipe)
    first, second = run(spec, seed=1), run(spec, seed=2)
    assert [trial.values for trial in first] == [trial.values for trial in second]
    assert all(isinstance(trial.values["recipe.rule.hidden_size"], int) for trial in first)
    rates = [trial.values["recipe.meta_learning_rate"] for trial in first]
    assert all(1e-5 <= rate <= 1 for rate in rates)
    assert len({str(trial.values) for trial in first}) == 16
    other = sweep(sampler=sampler, trials=16, parallel=3, recipe=recipe, seed=4)
    assert [trial.values for trial in run(other)] != [trial.values for trial in first]


def test_tpe_learns_from_what_earlier_trials_scored() -> None:
    def late(sampler: str) -> float:
        trials = run(sweep(sampler=sampler, trials=40, parallel=2, recipe={"meta_learning_rate": RATES}))
        scores = sorted(trial.score for trial in trials[20:] if trial.score is not None)
        return scores[len(scores) // 2]

    assert late("tpe") < 0.5 * late("random")


def test_tpe_waits_for_all_but_the_newest_trials() -> None:
    spec = sweep(sampler="tpe", trials=10, parallel=3, recipe={"meta_learning_rate": RATES})
    trials = [
        Trial(each.number, 0, each.values, "", "queued", None, None, None, True, None)
        for each in plan(spec, []).proposals
    ]
    assert len(trials) == 3
    trials[1] = replace(trials[1], status="succeeded", score=1.0)
    assert plan(spec, trials).proposals == []  # trial 3 looks at trial 0
    trials[0] = replace(trials[0], status="failed")
    assert [each.number for each in plan(spec, trials).proposals] == [3, 4]


def test_halving_takes_the_best_of_each_rung_on_with_more_meta_steps() -> None:
    rates = [10 ** (-k / 3) for k in range(9)]
    spec = sweep(recipe={"meta_steps": 90, "meta_learning_rate": rates}, halving={"rungs": 3, "reduction": 3})
    assert (spec.total, spec.rungs) == (13, ((9, 10), (3, 30), (1, 90)))
    trials = run(spec, seed=5)
    assert [trial.rung for trial in trials] == [0] * 9 + [1] * 3 + [2]
    best = sorted(trials[:9], key=lambda trial: trial.rank)[:3]
    assert [trial.values for trial in trials[9:12]] == [trial.values for trial in best]
    assert trials[12].values == best[0].values
    assert plan(spec, trials[:9]).proposals[0].training.recipe.meta_steps == 30
    assert plan(spec, trials[:12]).proposals[0].training.recipe.meta_steps == 90
    assert plan(spec, []).proposals[0].training.recipe.meta_steps == 10


def test_a_rung_is_smaller_where_trials_before_it_failed() -> None:
    spec = sweep(
        recipe={"meta_steps": 20, "meta_learning_rate": [0.1, 0.01, 0.001, 0.0001]},
        halving={"rungs": 2, "reduction": 2},
        parallel=8,
    )
    trials = [
        Trial(each.number, 0, each.values, "", "failed", "diverged", None, None, False, None)
        for each in plan(spec, []).proposals
    ]
    assert plan(spec, trials).ended
    trials[2] = replace(trials[2], status="succeeded", score=1.0, automatic=True)
    wanted = plan(spec, trials)
    assert ([each.number for each in wanted.proposals], wanted.total, wanted.ended) == ([4], 5, False)
    assert wanted.proposals[0].values == trials[2].values


def test_what_is_drawn_fits_a_training() -> None:
    """Of 50 lengths the eight that divide the horizon are trainings."""
    spec = sweep(
        sampler="random",
        trials=6,
        recipe={"horizon": 100, "unroll_steps": {"low": 1, "high": 50}},
    )
    drawn = [each.training.recipe.unroll_steps for each in plan(spec.model_copy(update={"parallel": 6}), []).proposals]
    assert len(drawn) == 6
    assert all(100 % steps == 0 for steps in drawn)
    hopeless = spec.model_copy(
        update={"given": {"horizon": 97}, "space": (spec.space[0].model_copy(update={"low": 2}),)}
    )
    with pytest.raises(NothingFits, match="97 is not a multiple of unroll_steps"):
        plan(hopeless, [])


def test_a_child_is_what_the_same_recipe_alone_would_be() -> None:
    """Defaults give way beside a swept value as they do beside one that a training names."""
    from app.jobs.kinds.training import MetaTrainRequest
    from app.jobs.kinds.training import resolved as training

    spec = sweep(recipe={"meta_steps": [10, 2000], "rule": {"kind": "mlp"}}, parallel=2, evaluate=False)
    for each, steps in zip(plan(spec, []).proposals, (10, 2000), strict=True):
        body = {"kind": "meta_train", "family": "quadratic", "seed": 3, "evaluate": False}
        body["recipe"] = {"meta_steps": steps, "rule": {"kind": "mlp"}}
        assert each.training == training(MetaTrainRequest.model_validate(body), None, "auto")
