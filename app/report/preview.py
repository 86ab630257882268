"""A preview as a picture and as one HTML file that needs nothing else: how tuned baselines do on a family."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from app.report.figures import COLORS, INK, Format, dress, positive, render, titles
from app.report.html import document, inline
from app.report.kept import kept
from app.report.page import loss_section, tuning_section
from app.report.words import LABELS, loss_name, measured_on, number, ordered, seconds, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@kept
def preview(result: Mapping[str, Any], *, image_format: Format = "png", titled: bool = True) -> bytes:
    """Draw each baseline at the rate that was best for the last step: means with 95 % intervals.

    titled: whether the picture says what it shows; a page that says it already leaves it out
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0.095, 0.125, 0.87, 0.7 if titled else 0.83))
        every = [np.empty(0)]
        for name in ordered(result["optimizers"]):
            measured, rates = result["optimizers"][name], result["tuning"][name]["learning_rate"]
            curve, color = measured["curve"], COLORS.get(name, INK)
            mean, low, high = (positive(curve[row]) for row in ("mean", "low", "high"))
            step = np.asarray(curve["step"], dtype=float)
            rate, end = number(rates["final"]), number(measured["final"]["mean"])
            ends = f"{shown(result, name, 'final')} at {rate} ends at {end}"
            axes.fill_between(step, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(step, mean, color=color, linewidth=2, label=ends)
            every += mean, low, high
        dress(axes, "inner step", f"{loss_name(result)}, mean of the tasks", np.concatenate(every))
        axes.set_xlim(0, float(result["horizon"]))
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper right")
        if titled:
            titles(figure, headline(result), subtitle(result))

    return render(draw, (8.0, 4.5), image_format)


def preview_page(result: Mapping[str, Any], *, job: str) -> str:
    """job: the id of the job that measured this"""
    title, cost, runtime = headline(result), result["cost"], result["runtime"]
    notes = [
        "Learning rates are tuned and curves are drawn on the same validation tasks. An evaluation measures on test "
        "tasks, which this job cannot draw.",
        "Nothing was trained. The memory is what a job that trains with the family's recipe is predicted to need.",
        *([] if "price" not in result else [f"{escape(_price(result))}."]),
        f"Cost of this preview: {number(cost['seconds'])} s, {cost['gradient_evaluations']['tuning']:,} gradients; "
        f"seed {result['seed']}; torch {escape(str(runtime['torch']))} on {escape(str(runtime['device']))}.",
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(subtitle(result))}. Job <code>{escape(job)}</code>.</p>',
        f'<figure role="img" aria-label="{escape(title)}">{inline(preview(result, image_format="svg", titled=False))}'
        "</figure>",
        loss_section(result, _tasks(result)),
        tuning_section(result),
        "<h2>Read this with it</h2><ul>" + "".join(f"<li>{note}</li>" for note in notes) + "</ul>",
    ]
    return document(title, parts)


def headline(result: Mapping[str, Any]) -> str:
    """`Tuned Adam on rosenbrock`: which baselines, on which tasks."""
    names = [LABELS.get(name, name) for name in ordered(result["optimizers"])]
    return f"Tuned {', '.join(names)} on {measured_on(result)}"


def subtitle(result: Mapping[str, Any]) -> str:
    """What the tasks are, and what training on them needs."""
    memory = result["training_memory_bytes"] / 2**30
    size = result["coordinates_per_task"]
    return (
        f"{_tasks(result)} of {size:,} coordinate{'' if size == 1 else 's'}, {result['horizon']} steps; training with "
        f"the family's recipe needs about {memory:.1f} GiB"
        + (f" and {seconds(result['price']['seconds']['total'])}, evaluation included" if "price" in result else "")
    )


def _price(result: Mapping[str, Any]) -> str:
    """What a training and its evaluation would take, and what that rests on."""
    told = result["price"]
    names = ("training", "selection", "tuning", "evaluation")
    parts = ", ".join(f"{name} {seconds(told['seconds'][name])}" for name in names)
    rests = "; ".join(told["rests_on"])
    return f"A training with its evaluation would take about {seconds(told['seconds']['total'])} ({parts}), by {rests}"


def _tasks(result: Mapping[str, Any]) -> str:
    count = result["tuning_tasks"]
    return f"{count} validation task{'' if count == 1 else 's'}"
