"""A sweep as a picture: scores by trial with the best so far, and against each field that was swept."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.report.figures import COLORS, FAINT, INK, Format, dress, positive, render, titles
from app.report.kept import kept
from app.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINT, _BEST, _FAILED = "#1d4ed8", COLORS["learned"], "#b91c1c"
_ACROSS = 3  # panels of fields in a row
_MOST_FIELDS = 9
_LONGEST = 14  # letters of a value below its place


@kept
def search_figure(search: Mapping[str, Any], *, image_format: Format = "png") -> bytes:
    """Draw a sweep. search: the document of GET /jobs/{id}/search"""
    fields = search["fields"][:_MOST_FIELDS]
    rows = math.ceil(len(fields) / _ACROSS)
    height = 3.95 + 2.5 * rows

    def draw(figure: Figure) -> None:
        left, width = 0.095, 0.87
        axes = figure.add_axes((left, 1 - 3.35 / height, width, 2.3 / height))
        _by_trial(axes, search)
        for place, field in enumerate(fields):
            row, column = divmod(place, _ACROSS)
            here = min(_ACROSS, len(fields))
            wide = width / here
            box = (left + column * wide, 1 - (5.85 + 2.5 * row) / height, wide - 0.045, 1.75 / height)
            _by_field(figure.add_axes(box), search, field, labelled=column == 0)
        titles(figure, _title(search), f"validation score, lower is better: {search['criterion']}")

    return render(draw, (8.0, height), image_format)


def _title(search: Mapping[str, Any]) -> str:
    ended = [trial for trial in search["trials"] if trial["status"] in ("succeeded", "failed", "cancelled")]
    best = next((trial for trial in search["trials"] if trial["number"] == search["best"]), None)
    told = "" if best is None else f", best {number(best['score'])} (trial {best['number']})"
    return f"Sweep on {search['family']} ({search['sampler']}): {len(ended)} of {search['total']} trials{told}"


def _scores(search: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return positive([trial["score"] for trial in search["trials"]])


def _by_trial(axes: Axes, search: Mapping[str, Any]) -> None:
    trials, scores = search["trials"], _scores(search)
    numbers = np.asarray([trial["number"] for trial in trials], dtype=float)
    axes.plot(numbers, scores, marker="o", linestyle="none", color=_POINT, markersize=4.5, label="a trial")
    best = positive([trial["best_so_far"] for trial in trials])
    axes.step(numbers, best, where="post", color=_BEST, linewidth=1.8, label="best so far")
    without = [
        trial["number"] for trial in trials if trial["score"] is None and trial["status"] in ("failed", "succeeded")
    ]
    if without:
        axes.plot(
            without, [0.03] * len(without), transform=axes.get_xaxis_transform(), marker="x", linestyle="none",
            color=_FAILED, label="without a score",
        )  # fmt: skip
    for trial, following in itertools.pairwise(trials):
        if following["rung"] > trial["rung"]:
            axes.axvline(following["number"] - 0.5, color=FAINT, linewidth=0.8, linestyle=":")
    dress(axes, "trial", "validation score", scores)
    axes.set_xlim(-0.5, max(search["total"], len(trials), 2) - 0.5)
    axes.legend(
        frameon=False, fontsize=8.5, labelcolor=INK, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2
    )


def _by_field(axes: Axes, search: Mapping[str, Any], field: Mapping[str, Any], *, labelled: bool) -> None:
    values = [trial["values"][field["name"]] for trial in search["trials"]]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    names: Sequence[str] = []
    if numeric:
        places = np.asarray(values, dtype=float)
    else:
        names = sorted({json.dumps(value) for value in values})
        places = np.asarray([names.index(json.dumps(value)) for value in values], dtype=float)
    scores = _scores(search)
    axes.plot(places, scores, marker="o", linestyle="none", color=_POINT, markersize=4, alpha=0.8)
    chosen = [trial["number"] == search["best"] for trial in search["trials"]]
    axes.plot(places[chosen], scores[chosen], marker="o", linestyle="none", color=_BEST, markersize=6.5)
    dress(axes, field["name"].removeprefix("recipe."), "validation score" if labelled else "", scores)
    if names:
        axes.set_xticks(range(len(names)), [_short(name) for name in names], fontsize=7.5)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif field["log"] and values:  # its limits are set: points without a score, which may be all, set none
        axes.set_xscale("log")
        axes.set_xlim(places.min() / 1.2, places.max() * 1.2)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
