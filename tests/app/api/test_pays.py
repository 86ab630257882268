"""Should I use it? Two sentences for every outcome, from the numbers of a verdict."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.report.pays import Advice, Subject, pays
from gradsmith.own_tasks import own_evaluation
from gradsmith.rules.weights_file import split
from tests.app.api.shelf import Shelf
from workshop.working import WEIGHTS, Worker, evaluation_result

OURS = Subject("quadratic@3", "quadratic", horizon=20, objective="area")
PAID = {
    "baseline": "adam", "reached": 0.97, "learned_seconds": 0.003, "baseline_seconds": 0.008, "saved_seconds": 0.005,
    "training_seconds": 29.0, "selection_seconds": 1.0, "tuning_runs": 9, "tuning_seconds": 0.07, "runs": 6000,
    "runs_beside_tuning": 5986, "never": None,
}  # fmt: skip


def found(verdict: str, ratio: float | None, baseline: str = "adam") -> dict[str, Any]:
    return {"baseline": baseline, "schedule": "linear", "verdict": verdict, "ratio_of_means": ratio, "certain": True}


def result(
    in_steps: dict[str, Any],
    in_seconds: dict[str, Any] | None = None,
    final: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A verdict over the curve, and at the end where `final` says another one."""
    told = evaluation_result() | {"break_even": PAID, "validation": None, "held_out": None}
    told["comparisons"]["best_baseline"] = {"area": in_steps, "final": final or in_steps}
    timed = in_seconds or in_steps
    told["seconds"]["comparisons"]["best_baseline"] = {"area": timed, "final": timed}
    return told | changes


def both_losses(learned: float, adam: float) -> dict[str, Any]:
    return {"learned": {"loss": learned, "accuracy": 0.9}, "adam": {"loss": adam, "accuracy": 0.9}}


def beside_fista(told: dict[str, Any], verdict: str, ratio: float) -> dict[str, Any]:
    told["tiers"] = {"untuned": ["fista"]}
    told["comparisons"]["fista"] = {"area": found(verdict, ratio, "fista"), "final": found("wins", 0.5, "fista")}
    return told


NEVER = PAID | {"runs": None, "runs_beside_tuning": None, "never": "not_faster", "learned_seconds": 0.009}
BEYOND = PAID | {"runs": None, "runs_beside_tuning": None, "never": "does_not_reach", "reached": 0.12}
WINS, TIES, LOSES = found("wins", 0.5), found("ties", 0.99), found("loses", 1.25, "nag")


@pytest.mark.parametrize(
    ("told", "advice", "first", "second"),
    [
        pytest.param(
            result(WINS, found("wins", 0.8, "sgd"), held_out=both_losses(0.9, 1.0)), "use",
            "Use it on quadratic: over the whole curve its loss is 0.5 times that of tuned Adam (linear) after as many "
            "steps and 0.8 times that of tuned SGD after as many seconds; on held-out data its loss is 0.9 times that "
            "of Adam (linear) at the end.",
            "Making it took 30 s, which 6,000 runs pay back (each run saves 5 ms to the final loss of tuned Adam); do "
            "not use it for more than 20 steps, which it was not trained for.",
            id="wins",
        ),
        pytest.param(
            result(WINS, LOSES, break_even=NEVER), "use_by_steps",
            "Use it on quadratic only where computing the gradient takes most of the time: over the whole curve its "
            "loss is 0.5 times that of tuned Adam (linear) after as many steps and 1.25 times that of tuned NAG after "
            "as many seconds.",
            "Making it took 30 s, which never pays back, because it takes 9 ms to the final loss of tuned Adam, which "
            "takes 8 ms; do not use it for more than 20 steps, which it was not trained for.",
            id="loses in seconds",
        ),
        pytest.param(
            result(WINS, break_even=BEYOND), "use", "Use it on quadratic: over the whole curve",
            "Making it took 30 s, which never pays back, because it reaches the final loss of tuned Adam on 12 % of "
            "the tasks; do not use it for more than 20 steps, which it was not trained for.",
            id="never pays",
        ),
        pytest.param(
            result(LOSES, LOSES), "do_not_use",
            "Do not use it on quadratic: over the whole curve its loss is 1.25 times that of tuned NAG (linear) after "
            "as many steps and 1.25 times that of tuned NAG after as many seconds; take tuned NAG (linear) instead.",
            "Making it took 30 s, which 6,000 runs pay back",
            id="best is a tuned baseline",
        ),
        pytest.param(
            result(WINS, validation={"better": "tuned", "baseline": "soap"}), "use", "Use it on quadratic",
            "Making it took 30 s", id="best by validation is a tuned baseline",
        ),
        pytest.param(
            result(WINS, held_out=both_losses(1.2, 1.0)), "use", "; on held-out data its loss is 1.2 times",
            "not trained for, or where the loss on held-out data counts, which is worse.", id="held-out worse",
        ),
        pytest.param(
            result(TIES), "no_difference",
            "On quadratic it makes no difference: over the whole curve its loss is 0.99 times that of tuned Adam "
            "(linear), a tie, after as many steps and 0.99 times that of tuned Adam, a tie, after as many seconds.",
            "Making it took 30 s", id="ties",
        ),
        pytest.param(
            result(found("wins", None)), "use", "its loss is lower than that of tuned Adam (linear) after as many",
            "Making it took 30 s", id="losses without a ratio",
        ),
        pytest.param(
            result(WINS, on="held_out"), "use", "over the whole curve its loss on held-out data is 0.5 times",
            "Making it took 30 s", id="judged on held-out data",
        ),
        pytest.param(
            result(WINS, optimizers={"learned": {"diverged": 3}}), "use", "Use it",
            "not trained for, or where a run may not diverge, as 3 of 512 did.", id="divergences",
        ),
        pytest.param(
            result(WINS, break_even=PAID | {"training_seconds": None, "selection_seconds": None, "runs": None}), "use",
            "Use it", "What making it took was not recorded, and each run saves 5 ms", id="cost not recorded",
        ),
        pytest.param(
            result(WINS, break_even=PAID | {"trainings": 20}), "use", "Use it",
            "The 20 trainings of its sweep took 30 s, which 6,000 runs pay back", id="of a sweep",
        ),
        pytest.param(
            result(WINS, break_even=PAID | {"runs": 1}), "use", "Use it", "which 1 run pays back", id="one run",
        ),
        pytest.param(
            result(WINS, horizon=80), "use", "Use it", "for more than 80 steps, which were not measured.",
            id="wins beyond the trained horizon",
        ),
        pytest.param(
            beside_fista(result(WINS), "loses", 1.04), "do_not_use",
            "Do not use it on quadratic: over the whole curve its loss is 0.5 times that of tuned Adam (linear) after "
            "as many steps and 0.5 times that of tuned Adam after as many seconds; over the whole curve its loss is "
            "1.04 times that of FISTA, which nothing was tuned for; take FISTA instead.",
            "Making it took 30 s", id="loses to what nothing was tuned for",
        ),
        pytest.param(
            beside_fista(result(WINS), "wins", 0.9), "use", "after as many seconds.", "Making it took 30 s",
            id="beats what nothing was tuned for",
        ),
        pytest.param(
            result(found("loses", 1.0002, "lbfgs")), "do_not_use",
            "over the whole curve its loss is less than 0.1 % above that of tuned L-BFGS (linear) after as many steps",
            "Making it took 30 s", id="loses by next to nothing",
        ),
        pytest.param(
            result(LOSES, horizon=80), "do_not_use", "Do not use it", "for more than 20 steps, which it was not",
            id="loses beyond the trained horizon",
        ),
    ],
)  # fmt: skip
def test_each_outcome_has_its_two_sentences(told: dict[str, Any], advice: Advice, first: str, second: str) -> None:
    answer = pays(OURS, [told])
    assert answer.advice == advice
    sentences = re.split(r"(?<=\.) (?=[A-Z])", answer.answer)
    assert len(sentences) == 2, answer.answer
    assert first in sentences[0]
    assert second in sentences[1]


def test_the_criterion_of_the_training_decides() -> None:
    mixed = result(WINS, final=LOSES)
    told = {objective: pays(replace(OURS, objective=objective), [mixed]) for objective in ("area", "final", "both")}
    assert {objective: each.advice for objective, each in told.items()} == {
        "area": "use", "final": "do_not_use", "both": "do_not_use"
    }  # fmt: skip
    assert "at the end" not in told["area"].answer
    assert "over the whole curve" not in told["final"].answer
    assert told["both"].answer.index("over the whole curve") < told["both"].answer.index("at the end")


def test_best_that_names_a_tuned_baseline_is_said() -> None:
    told = pays(OURS, [result(WINS, validation={"better": "tuned", "baseline": "soap"})])
    assert "; by validation tuned SOAP is better, so `quadratic@best` does not name it." in told.answer


def test_what_is_known_elsewhere_is_no_verdict_at_home() -> None:
    lost = result(LOSES, family="digits-mlp")
    nowhere, elsewhere = pays(OURS, []), pays(OURS, [lost])
    assert {nowhere.advice, elsewhere.advice} == {"unknown"}
    assert "only on digits-mlp" in elsewhere.answer
    for each in (nowhere, elsewhere):
        assert "`gradsmith evaluate quadratic@3`" in each.answer
    at_home = pays(OURS, [lost, result(WINS)])
    assert at_home.advice == "use"
    assert at_home.answer.endswith("not trained for, or on digits-mlp, where tuned baselines beat it.")
    changed = pays(replace(OURS, overrides={"dimension": 5}), [result(WINS)])
    assert changed.advice == "unknown", "measured on other tasks than those of its training"


def test_an_evaluation_with_fewer_baselines_takes_nothing_back() -> None:
    whole, later = result(LOSES), result(WINS)
    for name in [each for each in later["comparisons"] if each not in ("best_baseline", "adam")]:
        del later["comparisons"][name]
    whole["comparisons"] |= {name: {"area": LOSES, "final": LOSES} for name in ("nag", "muon")}
    told = pays(OURS, [later, whole])
    assert told.advice == "do_not_use"
    assert told.answer == pays(OURS, [whole]).answer, "the same family is no place elsewhere to avoid"
    again = result(WINS)
    again["comparisons"] |= {name: {"area": WINS, "final": WINS} for name in ("nag", "muon")}
    assert pays(OURS, [again, whole]).advice == "use", "the newest of equals"
    for other in ({"horizon": 5}, {"test_tasks": 2}, {"on": "held_out"}):
        assert pays(OURS, [later, whole | other]).advice == "use", "another question, or fewer tasks"
    assert pays(OURS, [later, whole | {"test_tasks": 9_000}]).advice == "do_not_use"


def test_a_baseline_that_is_better_on_most_tasks_is_named_though_its_mean_is_not() -> None:
    told = result(WINS, tiers={"tuned": ["adam"], "untuned": []})
    told["comparisons"]["adam"] = {metric: found("wins", 0.5) | {"share_won": 0.01} for metric in ("area", "final")}
    answer = pays(OURS, [told]).answer
    assert "; tuned Adam is better on 99 % of the tasks over the whole curve, though not on average" in answer
    told["comparisons"]["adam"] = {metric: found("wins", 0.5) | {"share_won": None} for metric in ("area", "final")}
    assert "most tasks" not in pays(OURS, [told]).answer, "an older version may have none"
    told["comparisons"]["adam"]["area"]["share_won"] = 0.6
    assert "over the whole curve, though" not in pays(OURS, [told]).answer


def test_what_was_not_learned_says_so() -> None:
    adam = {"baseline": "adam", "learning_rate": 0.1, "schedule": "cosine", "steps": 20}
    tuned = pays(replace(OURS, tuned=adam), [result(WINS)])
    assert tuned.advice == "use"
    assert "it is Adam with the learning rate 0.1 and a cosine schedule" in tuned.answer
    assert "no training to pay back" in tuned.answer
    schedule = pays(replace(OURS, stands_for="opt_9"), [])
    assert "in the place of `opt_9`" in schedule.answer
    poor = pays(replace(OURS, shortfall="worse_than_standing_still: ..."), [result(WINS)])
    assert poor.advice == "do_not_use"


def test_record_and_card_answer_with_the_same_words(shelf: Shelf) -> None:
    record = shelf.api.get("/optimizers/quadratic@1/record").json()
    assert record["pays"]["advice"] == "use"
    assert record["evaluations"][0]["pays"] == record["pays"]
    card = shelf.api.get("/optimizers/quadratic@1/card").text
    assert f"## Should I use it?\n\n{record['pays']['answer']}\n" in card
    assert shelf.api.get("/optimizers/quadratic@2/record").json()["pays"]["advice"] == "unknown"


def test_an_evaluation_of_an_older_version_has_an_answer(api: httpx.Client, worker: Callable[..., Worker]) -> None:
    old = evaluation_result(verdict="loses")
    for part in ("seconds", "break_even", "validation", "time_to_target"):
        del old[part]
    job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 1}).json()["id"]
    made = worker(job).finish_training(WEIGHTS, 1.0)
    assert made.follow_up is not None
    worker(made.follow_up.id).finish_evaluation(old)
    told = api.get("/optimizers/quadratic@1/record").json()["pays"]
    assert told["advice"] == "do_not_use"
    assert "(seconds were not measured)" in told["answer"]
    assert "What it costs was not measured" in told["answer"]


def test_a_record_answers_by_all_that_its_strictest_evaluation_compared_with(
    api: httpx.Client, worker: Callable[..., Worker]
) -> None:
    """What nothing was tuned for, a baseline that is better on most tasks, and no evaluation with fewer baselines."""
    whole, few = evaluation_result(), evaluation_result()
    seen = whole["comparisons"]["adam"]
    worse = {metric: found | {"verdict": "loses"} for metric, found in seen.items()}
    mostly = {metric: found | {"verdict": "wins", "share_won": 0.02} for metric, found in seen.items()}
    whole["comparisons"] |= {"fista": worse, "lbfgs": mostly}
    whole["tiers"] = {"tuned": [*whole["tiers"]["tuned"], "lbfgs"], "untuned": ["fista"]}
    few["comparisons"] = {name: few["comparisons"][name] for name in ("adam", "best_baseline")}
    job = api.post("/jobs", json={"kind": "meta_train", "family": "quadratic", "seed": 5}).json()["id"]
    made = worker(job).finish_training(WEIGHTS, 1.0)
    assert made.follow_up is not None
    worker(made.follow_up.id).finish_evaluation(whole)
    asked = {"kind": "evaluate", "optimizer": "quadratic@1", "family": "quadratic"}
    worker(api.post("/jobs", json=asked).json()["id"]).finish_evaluation(few)

    record = api.get("/optimizers/quadratic@1/record").json()
    assert [each["decides"] for each in record["evaluations"]] == [False, True], "newest first"
    assert record["pays"] == record["evaluations"][1]["pays"]
    assert record["pays"]["advice"] == "do_not_use"
    assert "FISTA, which nothing was tuned for; take FISTA instead" in record["pays"]["answer"]
    assert "tuned L-BFGS is better on 98 % of the tasks" in record["pays"]["answer"]
    assert record["evaluations"][0]["pays"]["advice"] == "use"
    assert record["pays"]["answer"] in api.get("/optimizers/quadratic@1/card").text
    counts = own_evaluation(record["evaluations"], record["family"], record["overrides"])
    assert counts is not None
    assert counts["job"] == made.follow_up.id, "lists go by the same one"
    _, card = split(api.get("/optimizers/quadratic@1/file").content)
    assert card is not None
    assert [each["decides"] for each in card["evaluations"]] == [False, True], "and so does the warning of its file"
