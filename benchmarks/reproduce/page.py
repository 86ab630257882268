"""docs/paper/README.md: one page of all experiments, drawn from their results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.report.words import seconds
from benchmarks.core.environment import ROOT
from benchmarks.reproduce import figures, results, tables
from benchmarks.reproduce.budgets import BUDGETS, known
from benchmarks.reproduce.experiments import EXPERIMENTS, Experiment
from models.families import FAMILIES
from models.tasks.data import DataSet
from models.tasks.data import known as known_datasets

FOLDER = ROOT / "docs" / "paper"
Json = Mapping[str, Any]

TITLES = {
    4: "Quadratic functions and MNIST",
    5: "Networks that were never trained on",
    6: "Final performance over sizes of the network",
    7: "CIFAR-10 and subsets of its labels",
    8: "Neural Art",
}
FORMS = {
    "cifar10-subset": "7,044 of CIFAR-10's training images and 1,000 of its test images",
    "cifar10-jpeg": "all images of CIFAR-10 as JPEG of quality 75 "
    "([0096](../decisions/0096-three-data-sets-of-cifar-10.md))",
}
ART = 8  # its pictures are figure 9
_BANDS = "Band of a learned optimizer: its lowest to its highest meta-seed; of a baseline: 95 % interval of the mean"
_THICK = "Thick: a panel's best baseline"
_HEAD = """# The paper, reproduced

`./run reproduce` writes this page. Every number in it comes from jobs that the service ran, as `POST /jobs` takes them;
none is adjusted. The paper is Andrychowicz et al., *Learning to learn by gradient descent by gradient descent* (NIPS
2016, [arXiv 1606.04474](https://arxiv.org/abs/1606.04474)). Its ratios are read off its figures.

- **A ratio** is learned / best tuned baseline: mean loss of the last five steps over all test tasks. Below 1 the
  learned optimizer is better. Brackets are paired bootstrap 95 % intervals over tasks.
- **The best baseline** is the one with the lowest mean on the test tasks among SGD, NAG, RMSprop, Adam and AdamW, on
  networks also Muon and SOAP, on pictures L-BFGS: each experiment's table of baselines has those that were run. The
  learning rate and the schedule (constant, linear, cosine) of each are tuned on validation tasks, by a grid that grows
  at its edge. The paper's baselines had constant rates.
- **Two methods.** *The paper's*: a coordinatewise LSTM, log-sign inputs, detached meta-gradients. *Ours* (bold): the
  candidate with the best median validation score over meta-seeds, chosen before the test was opened. All variants are
  shown.
- **Data.** Optimizees train on training images only. Test tasks come from seeds that training, selection and tuning
  cannot reach.
"""


def write(found: Path = results.FOLDER, folder: Path = FOLDER) -> None:
    """Draw the page and its figures anew from all results there are."""
    kept = results.read(found)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [_HEAD, *_overview(kept), ""]
    for number, title in TITLES.items():
        lines += _figure(number, title, kept, folder)
    for experiment in EXPERIMENTS:
        if experiment.name in kept:
            lines += _experiment(experiment, kept[experiment.name])
    others = [each for each in EXPERIMENTS if each.figure is None and each.name in kept]
    for experiment in others:
        _draw(folder / f"{experiment.name}.png", [experiment], experiment.title, kept)
    (folder / "README.md").write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


def _overview(kept: Mapping[str, Json]) -> list[str]:
    """Which experiments the page has, and why the others are missing."""
    lines = ["| experiment | figure | budget | meta-seeds | command |", "|---|---|---|---|---|"]
    for experiment in EXPERIMENTS:
        link = f"[{experiment.name}](#{experiment.name})" if experiment.name in kept else experiment.name
        figure = "" if experiment.figure is None else str(experiment.figure)
        if experiment.name in kept:
            each = kept[experiment.name]
            budget, seeds = each["budget"], f"{len(each['seeds'])} of {_asked(experiment, each)}"
            lines.append(f"| {link} | {figure} | {budget} | {seeds} | `{each['command']}` |")
        else:
            lines.append(f"| {link} | {figure} | not run | | {_absent(experiment)} |")
    budgets = "; ".join(f"`{budget.name}`: {budget.words}" for budget in BUDGETS.values())
    return [*lines, "", f"Budgets: {budgets}."]


def _took(found: Json) -> str:
    """How long its jobs ran."""
    if (spent := found.get("seconds")) is None:  # results of before this was written down
        return ""
    total, training, measuring = (
        seconds(each) for each in (sum(spent.values()), spent["training"], spent["measuring"])
    )
    return f" Its jobs ran for {total} of one worker: {training} of training, {measuring} of measuring."


def _sizes(found: Json) -> str:
    """On how many tasks the ratios and the tuning rest."""
    numbers = {(panel["test_tasks"], panel["tuning_tasks"]) for panel in found["panels"] if panel["rows"]}
    told = "; ".join(f"{test} test tasks, {tuning} for tuning" for test, tuning in sorted(numbers))
    return f"{told}. Losses are those that the optimizers see: of minibatches of training images, where there are any."


def _data(found: Json) -> str:
    """On which other data set than its families' own it was."""
    named = {panel["overrides"]["dataset"] for panel in found["panels"] if "dataset" in panel.get("overrides", {})}
    return "".join(f" Data set: `{name}`, {FORMS.get(name, 'in place of the usual one')}." for name in sorted(named))


def _asked(experiment: Experiment, found: Json) -> int:
    return BUDGETS[found["budget"]].seeds_of(experiment)


def _absent(experiment: Experiment) -> str:
    """Why an experiment is not on the page, and what would bring it here."""
    if experiment.name not in known():
        missing = ", ".join(f"`{name}`" for name in experiment.families if name not in FAMILIES)
        return f"this version has no family {missing}"
    names = BUDGETS["short"].datasets(experiment)
    sets = [found for name, found in known_datasets().items() if name in names and (found.fetch or found.bring)]
    first = "".join(f"`./run data {_way(found)} --data var/reproduce`, then " for found in sets)
    return f"{first}`./run reproduce {experiment.name}`"


def _way(found: DataSet) -> str:
    return f"fetch {found.name}" if found.fetch else f"import {found.name} FOLDER"


def _figure(number: int, title: str, kept: Mapping[str, Json], folder: Path) -> list[str]:
    """A section with the figure, where any of its experiments was run."""
    own = [each for each in EXPERIMENTS if each.figure == number]
    if not any(each.name in kept for each in own):
        return []
    file = folder / f"figure-{number}.png"
    _draw(file, own, f"Figure {number}. {title}", kept)
    lines = [f"## Figure {number}: {title}", "", f"![{title}]({file.name})", ""]
    taken = [path for path in sorted(folder.glob("figure-9-*.png")) if number == ART]
    return [*lines, *(line for path in taken for line in (f"![Pictures]({path.name})", ""))]


def _draw(file: Path, own: list[Experiment], title: str, kept: Mapping[str, Json]) -> None:
    made = " and ".join(
        dict.fromkeys(f"{each.name}: budget {kept[each.name]['budget']}" for each in own if each.name in kept)
    )
    chosen = {each.name: kept[each.name]["opening"]["chosen"] for each in own if each.name in kept}
    if own[0].figure == 6:
        file.write_bytes(figures.sizes(kept[own[0].name], set(chosen.values()), title, f"{_BANDS}. {made}"))
        return
    columns: list[figures.Column] = []
    for experiment in own:
        measured = {each["panel"]: each for each in kept.get(experiment.name, {}).get("panels", ())}
        columns += [(experiment, panel, measured.get(panel.name)) for panel in experiment.panels]
    file.write_bytes(figures.curves(columns, chosen, title, f"{_BANDS}. {_THICK}. {made}"))


def _experiment(experiment: Experiment, found: Json) -> list[str]:
    """An experiment's section."""
    machine, opening = found["machine"], found["opening"]
    lines = [
        f"## {experiment.name}", "",
        f"{experiment.title}. `{found['command']}`, {found['date']}; {machine['cores']} cores ({machine['processor']}, "
        f"{machine['flags']}), load average {machine['load before']} "
        f"when it was written, torch {machine['torch']}, Python {machine['python']}; commits "
        f"{', '.join(found['commits'])}; backends {', '.join(found['backends'])}. The test was opened at "
        f"{opening['at']}, with ours chosen: {opening['chosen']}.{_took(found)}{_data(found)}", "",
    ]  # fmt: skip
    if experiment.figure is None:
        lines += [f"![{experiment.title}]({experiment.name}.png)", ""]
    lines += [*tables.ratios(experiment, found), "", _sizes(found), ""]
    if papers := tables.against_the_papers(experiment, found):
        lines += [
            "Against the best of the baselines that the paper has: SGD, NAG, RMSprop and Adam, with schedules here:",
            "",
            *papers,
            "",
        ]
    if against := tables.against(experiment, found):
        lines += ["One variant against another, on the same tasks:", "", *against, ""]
    if targets := tables.targets(experiment, found):
        lines += ["What was asked of our method:", "", *targets, ""]
    lines += [experiment.note, ""] if experiment.note else []
    lines += [
        "Training, selection and the validation that chose. Scores compare among candidates of ours; the paper's",
        "method is validated by its area:",
        "",
        *tables.choice(found),
        "",
    ]
    lines += ["Tuning beside it:", "", *tables.tuning(experiment, found), ""]
    lines += [
        "In seconds, one task at a time. Each evaluation timed its own steps on the machine as it was. Columns are "
        "medians over seeds, but the best baseline's seconds are those of the first evaluation, so they need not fit "
        "together:",
        "",
        *tables.in_seconds(experiment, found),
        "",
    ]
    return [*lines, "The baselines:", "", *tables.baselines(experiment, found), ""]
