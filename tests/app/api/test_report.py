"""Pictures, page and card, also where results are ugly: nulls, zeros, few baselines, hostile names."""

from __future__ import annotations

import io
import json
import struct
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from app.report import evaluation_figure, figures
from app.report import kept as report_kept
from app.report.card import CardFacts, card_markdown
from app.report.claims import break_even_sentence
from app.report.kept import kept
from app.report.order import in_order
from app.report.page import evaluation_page
from app.report.words import NOTHING, headline, number, percent, seconds, subtitle
from models.families import FAMILIES
from workshop.working import evaluation_result

MICRO = "\N{MICRO SIGN}s"


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def curve(points: int, **changes: Any) -> dict[str, Any]:
    step = np.arange(1, points + 1)
    columns = {"step": step, "loss": 10.0 / step, "validation": np.where(step % 50 == 0, 1.0, np.nan)}
    return columns | changes


def ugly(**changes: Any) -> dict[str, Any]:
    """What a diverged optimizer leaves: nulls where numbers were not finite."""
    result = evaluation_result()
    diverged = result["optimizers"]["sgd"]
    for values in diverged["curve"].values():
        values[5:] = [None] * len(values[5:])
    diverged["final"] = dict.fromkeys(diverged["final"]) | {"interval": [None, None]}
    diverged["diverged"] = 512
    found = result["comparisons"]["sgd"]["final"]
    found |= {"ratio_of_means": None, "ratio_interval": [None, None], "difference_interval": None, "share_won": None}
    return result | changes


def before_format_3() -> dict[str, Any]:
    """A result as version 2 wrote it."""
    result = evaluation_result()
    for key in ("criteria", "seconds", "time_to_target", "validation", "break_even"):
        del result[key]
    for compared in result["comparisons"].values():
        for found in compared.values():
            found.pop("medians_interval", None)
            found.pop("medians_verdict", None)
    return result


@pytest.mark.parametrize(
    "columns",
    [
        curve(1),
        curve(3),
        curve(1000),
        curve(100, loss=np.full(100, np.nan)),
        curve(100, loss=np.zeros(100)),
        curve(100, loss=np.full(100, 2.0)),
        curve(100, loss=-np.ones(100), validation=np.full(100, np.inf)),
        curve(100, loss=np.geomspace(1e-30, 1e30, 100)),
    ],
    ids=["one", "three", "thousand", "nan", "zero", "flat", "negative", "huge"],
)
def test_any_curve_can_be_drawn(columns: dict[str, Any]) -> None:
    assert size_of(figures.loss_curve(columns, title="t", windows_per_trajectory=5)) == (1120, 630)


def test_the_line_is_the_mean_of_whole_trajectories() -> None:
    loss = np.array([9.0, 1.0, 7.0, np.nan, 5.0, 3.0, 8.0])  # three trajectories of two windows, and half of another
    centres, means = figures._binned(np.arange(1, 8), loss, 2)
    assert centres.tolist() == [1.5, 3.5, 5.5]
    assert means.tolist() == [5.0, 7.0, 4.0]
    assert figures._binned(np.empty(0), np.empty(0), 2)[0].size == 0
    centres, _ = figures._binned(np.arange(1, 10_001), np.ones(10_000), 5)
    assert len(centres) <= 300


def test_a_diverged_baseline_is_drawn_as_far_as_it_goes() -> None:
    png = evaluation_figure.evaluation(ugly())
    assert size_of(png)[0] == 1540
    colors = Image.open(io.BytesIO(png)).convert("RGB").getcolors(2**24)
    assert colors is not None
    drawn = {color for _, color in colors}
    for name in ("learned", "sgd"):
        assert tuple(bytes.fromhex(figures.COLORS[name][1:])) in drawn, name


def drawn_lines(result: dict[str, Any], metric: str) -> dict[str, Any]:
    """The lines of a panel by their colour, and which of them have a band around their median."""
    axes = Figure().add_subplot()
    evaluation_figure._panel(axes, result, metric, "median", ("q10", "q90"))
    filled: list[Any] = [band.get_facecolor() for band in axes.collections]
    bands = {to_hex(colors[0]) for colors in filled}
    lines = {line.get_color(): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
    return {"lines": lines, "bands": bands}


def test_each_row_draws_the_runs_that_its_verdict_compares() -> None:
    result = judged(("wins", "adam"), ("loses", "nag"))
    own = {name: measured["curve"]["median"] for name, measured in result["optimizers"].items()}
    for name in ("adam", "nag"):
        curve = result["optimizers"][name]["curve"]
        result["optimizers"][name]["area_curve"] = {key: [value + 1 for value in row] for key, row in curve.items()}
        result["optimizers"][name]["area_curve"]["step"] = curve["step"]
    result["tuning"]["sgd"] = result["tuning"]["rmsprop"] = result["tuning"]["sgd"] | {
        "learning_rate": {"final": 0.1, "area": 0.1}
    }
    colors = figures.COLORS
    final, area = drawn_lines(result, "final"), drawn_lines(result, "area")
    assert final["lines"] == {colors[name]: pytest.approx(row) for name, row in own.items()}
    moved = {name: [value + 1 for value in own[name]] for name in ("adam", "nag")}
    assert area["lines"] == {colors[name]: pytest.approx(row) for name, row in (own | moved).items()}
    assert final["bands"] == {colors["learned"], colors["adam"]}
    assert area["bands"] == {colors["learned"], colors["nag"]}


def test_a_result_of_format_1_shows_the_row_whose_runs_it_holds() -> None:
    """Two learning rates were best, and the run of one of them was not kept; where one was best for both, it was."""
    lost, kept = before_format_3(), before_format_3()
    for tuned in kept["tuning"].values():
        tuned["learning_rate"] = {"final": 0.1, "area": 0.1}
    one, two = (size_of(evaluation_figure.evaluation(result))[1] for result in (lost, kept))
    assert 1.7 * one < two < 2 * one
    assert "<svg" in evaluation_page(lost, job="job_1", optimizer="opt_1")


def test_a_result_of_before_has_no_seconds_and_says_what_its_last_loss_is() -> None:
    old = before_format_3()
    page, card = evaluation_page(old, job="job_1", optimizer="opt_1"), card_markdown(facts_of(old))
    assert "loss at the last step" in page
    assert "its loss at the last step is 0.31 times" in card
    assert not any(
        words in page + card
        for words in ("equal time", "Time to target", "Break-even", "By validation", "last 5 steps")
    )


def test_the_page_and_the_card_say_what_seconds_and_targets_and_break_even_are() -> None:
    result = evaluation_result()
    page, card = evaluation_page(result, job="job_1", optimizer="opt_1"), card_markdown(facts_of(result))
    for heading in ("In equal time", "Time to target", "Break-even"):
        assert f"<h2>{heading}</h2>" in page
    assert "0.12</td><td>0.08 to 0.17</td>" in page, "medians have an interval"
    for told in (page, card):
        assert "After 56,667 runs: training took 31.5 s and selection 2.5 s; the median run" in told
        assert (
            f"reaches the final loss of tuned Adam in 500 {MICRO}, and Adam takes 1.1 ms, which saves 600 {MICRO} a run"
            in told
        )
        assert "By validation a tuned baseline is better, so that `best` names that one before it: on the" in told
        assert "Adam with learning rate 0.178 and a linear schedule over 20 steps, scores 1.63" in told
        assert "Whoever would have tuned Adam once breaks even after 56,651 runs." in told
    assert "in equal time wins at the end against tuned Adam (0.31 times, 0.25 to 0.38)" in card
    assert "over the whole curve against tuned Adam (0.31 times, 0.25 to 0.38, within the noise of the timing)" in card
    assert "mean loss of the last 5 steps is 0.31 times Adam's" in card


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"never": "does_not_reach", "reached": 0.34}, "Never: it reaches the final loss of tuned Adam on 34 %"),
        ({"never": "not_faster", "learned_seconds": 0.002}, "final loss of tuned Adam in 2 ms, and Adam takes 1.1 ms."),
        ({"runs": None, "training_seconds": None}, "Not known, because the cost of training was not recorded"),
        ({"runs": 1}, "After 1 run: training took"),
        ({"trainings": 1}, "After 56,667 runs: training took"),
        ({"trainings": 20}, "After 56,667 runs: the 20 trainings of its sweep took 31.5 s and selection 2.5 s;"),
    ],
)
def test_break_even_says_why_never(found: dict[str, Any], words: str) -> None:
    result = evaluation_result()
    result["break_even"] |= found
    sentence = break_even_sentence(result)
    assert sentence is not None
    assert words in sentence
    assert "Tuning Adam on one task takes 9 runs, 9.9 ms in all." in sentence


def test_few_baselines_and_unknown_ones_are_fine() -> None:
    result = before_format_3()
    for part in ("optimizers", "tuning", "comparisons"):
        for name in ("sgd", "nag", "rmsprop"):
            del result[part][name]
    result["optimizers"]["lion<"] = result["optimizers"]["adam"]
    evaluation_figure.evaluation(result)
    assert "lion&lt;" in evaluation_page(result, job="job_1", optimizer="opt_1")


def test_the_page_escapes_what_it_shows() -> None:
    page = evaluation_page(ugly(family="<b>&\"'"), job="<script>", optimizer="</code>")
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_the_same_result_gives_the_same_bytes_from_any_thread() -> None:
    """ETags and caches need it, and the server draws in many threads."""
    result, anew = before_format_3(), evaluation_figure.evaluation.__wrapped__
    with ThreadPoolExecutor(2) as pool:
        drawn = set(pool.map(lambda _: anew(result, image_format="svg"), range(2)))
    assert len(drawn) == 1
    assert evaluation_figure.evaluation(result, image_format="svg") in drawn
    ElementTree.fromstring(drawn.pop())


def test_equal_facts_are_drawn_once_and_others_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    @kept
    def draw(facts: Any, *, titled: bool = True) -> bytes:
        drawn.append((facts, titled))
        return bytes(400)

    def loss(*numbers: float) -> dict[str, Any]:
        return {"name": "adam", "moment": datetime(2026, 11, 24, tzinfo=UTC), "loss": np.array(numbers)}

    assert draw(loss(1.0, np.nan)) == draw(loss(1.0, np.nan)) == bytes(400)
    assert len(drawn) == 1
    for facts in (loss(1.0, np.inf), loss(np.nan, 1.0), loss(1.0), loss(1.0, np.nan) | {"name": "sgd"}):
        draw(facts)
    draw(loss(1.0, np.nan), titled=False)
    draw(loss(1.0, np.nan) | {"moment": datetime(2026, 11, 25, tzinfo=UTC)})
    assert len(drawn) == 7
    monkeypatch.setattr(report_kept, "MOST_BYTES", 1000)
    first, second, third = loss(1.0), loss(2.0), loss(3.0)
    for facts in (first, second, first, third):  # there is room for two: the second leaves
        draw(facts)
    count = len(drawn)
    draw(first)
    assert len(drawn) == count
    draw(second)
    assert len(drawn) == count + 1


def test_the_verdict_is_in_the_words() -> None:
    assert headline(evaluation_result(verdict="wins")).startswith("Learned optimizer beats tuned Adam")
    assert headline(evaluation_result(verdict="loses")).startswith("Learned optimizer loses to tuned Adam")
    assert headline(evaluation_result(verdict="ties")).startswith("Learned optimizer ties with tuned Adam")
    assert "0.31 times" in subtitle(evaluation_result())


def judged(final: tuple[str, str], area: tuple[str, str]) -> dict[str, Any]:
    """A result with these (verdict, best baseline)."""
    result = evaluation_result()
    best = result["comparisons"]["best_baseline"]
    for metric, (verdict, baseline) in (("final", final), ("area", area)):
        best[metric] = best[metric] | {"verdict": verdict, "baseline": baseline}
        result["verdict"][metric] = verdict
    return result


@pytest.mark.parametrize(
    ("final", "area", "title"),
    [
        (("wins", "adam"), ("wins", "adam"), "Learned optimizer beats tuned Adam, the best baseline, on quadratic"),
        (
            ("wins", "adam"), ("wins", "nag"),
            "Learned optimizer beats the best tuned baselines on quadratic: Adam at the end, NAG over the whole "
            "curve",
        ),
        (
            ("loses", "nag"), ("wins", "nag"),
            "Learned optimizer on quadratic: loses at the end, wins over the whole curve, against tuned NAG",
        ),
        (
            ("wins", "adam"), ("loses", "nag"),
            "Learned optimizer on quadratic: wins at the end against tuned Adam, loses over the whole curve "
            "against tuned NAG",
        ),
    ],
)  # fmt: skip
def test_both_verdicts_are_in_the_title(final: tuple[str, str], area: tuple[str, str], title: str) -> None:
    result = judged(final, area)
    assert headline(result) == title
    assert f"**{title}.**" in card_markdown(facts_of(result))
    if final != area:  # one page of each kind: it takes a picture
        return
    page = evaluation_page(result, job="job_1", optimizer="opt_1")
    assert f"<title>{title}</title>" in page
    assert f"<h1>{title}</h1>" in page


def test_a_result_on_held_out_data_says_so() -> None:
    result = evaluation_result()
    curve = "mean held-out loss at 10 points of the curve"
    result |= {"on": "held_out", "criteria": {"final": "held-out loss after the last step", "area": curve}}
    title = "Learned optimizer beats tuned Adam, the best baseline, on held-out data of quadratic"
    assert headline(result) == title
    assert subtitle(result).startswith("held-out loss after the last step of 20: 0.31 times Adam's")
    page = evaluation_page(result, job="job_1", optimizer="opt_1")
    for words in (title, "for their loss on validation images", curve):
        assert words in page
    assert "held-out" not in headline(evaluation_result())


def two_tiers() -> dict[str, Any]:
    """A result whose best baseline decays its rate for the last step, with an untuned baseline beside it."""
    result = evaluation_result()
    one_rate = {"learning_rate": {"final": 0.1, "area": 0.1}}
    result["tuning"] = {name: tuned | one_rate for name, tuned in result["tuning"].items()}
    result["tuning"]["adam"] |= {"schedule": {"final": "linear", "area": "constant"}}
    measured = result["optimizers"]["adam"]
    measured["area_curve"] = {key: [value + 1 for value in row] for key, row in measured["curve"].items()}
    measured["area_curve"]["step"] = measured["curve"]["step"]
    best = result["comparisons"]["best_baseline"]
    best["final"], best["area"] = best["final"] | {"schedule": "linear"}, best["area"] | {"schedule": "constant"}
    result["tiers"] = {"tuned": list(result["tuning"]), "untuned": ["prodigy"]}
    result["optimizers"]["prodigy"] = result["optimizers"]["nag"]
    result["comparisons"]["prodigy"] = result["comparisons"]["nag"]
    return result


@pytest.fixture(scope="module")
def two_tier_page() -> str:
    return evaluation_page(two_tiers(), job="job_1", optimizer="opt_1")


def test_the_schedule_of_the_best_baseline_is_said_wherever_it_is_named(two_tier_page: str) -> None:
    result = two_tiers()
    title = (
        "Learned optimizer beats the best tuned baselines on quadratic: Adam (linear) at the end, Adam over the whole "
        "curve"
    )
    assert headline(result) == title
    assert "0.31 times Adam (linear)'s" in subtitle(result)
    for text in (two_tier_page, card_markdown(facts_of(result))):
        assert title in text
        assert "Adam (linear)" in text
    assert "for their training loss" in two_tier_page
    assert "<td>0.1, linear</td><td>0.1, constant</td>" in two_tier_page
    assert "<td>best tuned: Adam (linear)</td>" in two_tier_page
    assert "Adam (linear)  " in two_tier_page, "beside its curve"


def test_one_rate_under_two_schedules_is_two_runs() -> None:
    result, color = two_tiers(), figures.COLORS["adam"]
    own = result["optimizers"]["adam"]
    assert drawn_lines(result, "final")["lines"][color] == pytest.approx(own["curve"]["median"])
    assert drawn_lines(result, "area")["lines"][color] == pytest.approx(own["area_curve"]["median"])


def test_the_untuned_tier_is_beside_the_verdict_and_never_the_best_tuned(two_tier_page: str) -> None:
    result = two_tiers()
    table = two_tier_page.split("after equal steps: mean loss of the last 5 steps</h2>")[1]
    rows = ElementTree.fromstring(table.split("<tbody>")[1].split("</tbody>")[0].join(["<t>", "</t>"]))
    names = [row[0].text for row in rows]
    assert names == ["SGD", "NAG", "RMSprop", "Adam (linear)", "best tuned: Adam (linear)", "Prodigy (untuned)"]
    assert "untuned ones ran once" in two_tier_page
    assert "| Prodigy (untuned) |" in card_markdown(facts_of(result))
    axes = Figure().add_subplot()
    evaluation_figure._panel(axes, result, "final", "mean", ("low", "high"))
    dashed = {line.get_color() for line in axes.lines if line.get_linestyle() == "--"}
    assert dashed == {figures.COLORS["prodigy"]}
    assert "dashed: untuned" in axes.get_title(loc="left")


def ink_at_the_right_edge(png: bytes) -> bool:
    image = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return bool((image[:, -4:] < 250).any())


@pytest.mark.parametrize("titled", [True, False])
def test_nothing_is_cut_off_at_the_right(titled: bool) -> None:
    result = judged(("wins", "adam"), ("loses", "rmsprop")) | {"family": "quadratic-uniform"}
    for name, measured in result["optimizers"].items():
        for row in ("mean", "median"):
            measured["final"][row] = 0.00985 if name == "learned" else 0.0123
    if titled:
        measured["final"]["median"] = 1.2e-10  # however long a label is
        result["optimizers"]["an optimizer of tomorrow"] = measured
    assert not ink_at_the_right_edge(evaluation_figure.evaluation(result, titled=titled))


def test_a_result_is_read_in_one_order() -> None:
    def as_jsonb(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_jsonb(value[key]) for key in sorted(value, key=lambda key: (len(key), key))}
        return [as_jsonb(each) for each in value] if isinstance(value, list) else value

    result = evaluation_result() | {"of_tomorrow": 1}
    assert json.dumps(in_order(as_jsonb(result))) == json.dumps(in_order(result))
    assert in_order(as_jsonb(result)) == result
    assert list(in_order(result))[-1] == "of_tomorrow"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (0.12345, "0.123"), (12345.678, "1.2e4"), (1234.5, "1,234"), (0.00012, "1.2e-4"),
        (1e-30, "1e-30"), (-2.5, "-2.5"), (None, NOTHING), (float("nan"), NOTHING),
        (float("inf"), NOTHING), (999.9, "1,000"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


def test_shares_are_percent() -> None:
    assert (percent(0.934), percent(None)) == ("93 %", NOTHING)


def facts_of(result: dict[str, Any]) -> CardFacts:
    family = FAMILIES["quadratic"]
    return CardFacts(
        id="opt_1",
        reference="quadratic@1",
        aliases=["quadratic@best", "quadratic@prod"],
        created_at=datetime(2026, 11, 24, tzinfo=UTC),
        sha256="00",
        size_bytes=5,
        validation_score=None,
        job="job_1",
        spec={
            "family": family.model_dump(mode="json"),
            "recipe": family.recipe.model_dump(mode="json"),
            "seed": 1,
        },
        runtime={"hostname": "secret-host", "torch": "2|13\n0"},
        summary={"training": {"cost": {"training": {"seconds": 1234.5}}, "skipped_steps": 3}, "recipe": {"p": 10}},
        evaluations=[("job_2", result)],
    )


def test_a_card_outlives_the_plug_in_of_its_family() -> None:
    facts = facts_of(evaluation_result())
    gone: Any = {**facts.spec["family"], "tasks": {"kind": "of_a_plug_in_that_is_gone"}}
    one = card_markdown(replace(facts, spec={**facts.spec, "family": gone}))
    assert "| Rule | hyper" in one
    rules = {"bias": {"kind": "mlp"}, "*": {"kind": "lstm"}}
    recipe = facts.spec["recipe"] | {"rules": rules}
    several = card_markdown(replace(facts, spec={**facts.spec, "family": gone, "recipe": recipe}))
    assert "| Rule for `bias` | mlp" in several


def test_a_card_stays_a_table_whatever_is_in_it() -> None:
    card = card_markdown(facts_of(ugly()))
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert all(row.endswith("|") for row in rows)
    assert "| torch | 2\\|13 0 |" in card
    assert "| skipped steps | 3 |" in card
    assert "| Aliases | `quadratic@best`, `quadratic@prod` |" in card
    assert "secret-host" not in card
    json.dumps(card)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2e-5, f"12 {MICRO}"),
        (0.0034, "3.4 ms"),
        (56.0, "56 s"),
        (468.0, "7.8 min"),
        (32_760.0, "9.1 h"),
        (None, NOTHING),
    ],
)
def test_durations_have_the_unit_that_suits_them(value: float | None, text: str) -> None:
    assert seconds(value) == text
