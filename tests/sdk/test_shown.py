"""What notebooks show, and curves in other forms."""

from __future__ import annotations

import csv
import itertools
import math
import subprocess
import sys
import types as modules
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gradsmith import errors
from gradsmith.html import bar
from gradsmith.pages import Page
from gradsmith.programs import Call, Items
from gradsmith.progress import Bar, line
from gradsmith.types import Curve, Job, Optimizer, Report
from tests.sdk.records import job_json

EVIL = "<script>alert('&')</script>"


def curve_of(losses: list[float], **columns: Any) -> Curve:
    count = len(losses)
    empty = {"gradient_norm": [1.0] * count, "validation": [None] * count, "learning_rate": [0.1] * count}
    raw = {"job": "job_1", "step": list(range(1, count + 1)), "loss": losses, "skipped": [False] * count, **empty}
    return Curve.from_json(raw | columns)


def optimizer_of(**changes: Any) -> Optimizer:
    raw = {"id": "opt_1", "family": "quadratic", "version": 3, "sha256": "ab", "validation_score": 0.25}
    return Optimizer.from_json(raw | changes)


def report_of(name: str) -> Report:
    means = {"final": {"mean": 0.5}, "area": {"mean": None}}
    return Report.from_json({"family": "f", "horizon": 20, "verdict": {"final": name}, "optimizers": {name: means}})


class Balanced(HTMLParser):
    """Counts tags that were opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_startendtag(self, tag: str, _attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(*entries: Any, more: bool = False) -> Page[Any]:
    call: Call[Items[Any]] = Call("GET", "/jobs", lambda _response: Items((), False, None))
    return Page(Items(entries, more, "next" if more else None), call, lambda _call: page_of())


@pytest.mark.parametrize(
    "shown",
    [
        Job.from_json(job_json(family=EVIL, status=EVIL, status_reason=EVIL, metadata={EVIL: EVIL})),
        optimizer_of(reference=EVIL, aliases=[EVIL], tags={EVIL: EVIL}, evaluations=[{"verdict": {EVIL: EVIL}}]),
        report_of(EVIL),
        page_of(Job.from_json(job_json(id=EVIL)), more=True),
        page_of(optimizer_of(reference=EVIL)),
        page_of(EVIL),
        curve_of([1.0, 2.0], job=EVIL),
        curve_of([math.nan], job=EVIL),
    ],
    ids=lambda shown: type(shown).__name__,
)  # fmt: skip
def test_what_a_notebook_shows_is_escaped_and_whole(shown: Any) -> None:
    html = shown._repr_html_()
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert "script" not in parser.seen
    assert "&lt;script&gt;" in html


def test_a_page_says_that_more_follow_and_an_empty_one_that_there_is_nothing() -> None:
    assert "more follow" in page_of(Job.from_json(job_json()), more=True)._repr_html_()
    assert page_of()._repr_html_() == "<div>nothing</div>"


def test_a_verdict_is_of_the_evaluation_that_counts_on_the_optimizers_own_tasks() -> None:
    told = [
        {"family": "churn", "overrides": {}, "verdict": {"final": "loses"}, "job": "job_3"},
        {"family": "quadratic", "overrides": {"dimension": 9}, "verdict": {"final": "ties"}, "job": "job_2"},
        {"family": "quadratic", "overrides": {}, "verdict": {"final": "wins"}, "job": "job_1"},
    ]
    trained = optimizer_of(evaluations=told)
    assert "<td" in (listed := page_of(trained)._repr_html_())
    assert ("wins final" in listed, "loses" in listed) == (True, False)
    whole = trained._repr_html_()
    assert "on churn: loses final" in whole
    assert "on quadratic with dimension 9: ties final" in whole
    assert "quadratic: wins" not in whole
    assert "ties final" in page_of(optimizer_of(evaluations=told, overrides={"dimension": 9}))._repr_html_()
    assert "loses" not in page_of(optimizer_of(evaluations=told[:1]))._repr_html_()


def drawn(curve: Curve) -> list[tuple[float, float]]:
    root = ElementTree.fromstring(curve._repr_html_())
    [line] = root.findall(".//polyline")
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.attrib["points"].split())]


def test_a_curve_is_drawn_falling_within_its_picture_and_keeps_its_spikes() -> None:
    falling = drawn(curve_of([8.0, 4.0, 2.0, 1.0]))
    heights = [y for _, y in falling]
    assert heights == sorted(heights)  # y grows downwards
    gaps = [later - earlier for earlier, later in itertools.pairwise(heights)]
    assert max(gaps) - min(gaps) <= 0.11  # halving is a straight line on a logarithmic axis
    losses = [1.0] * 100_000
    losses[54_321] = 1000.0
    points = drawn(curve_of(losses))
    assert len(points) <= 800
    assert all(0 <= x <= 560 and 0 <= y <= 200 for x, y in points)
    assert sum(y < 100 for _, y in points) == 1
    assert len(drawn(curve_of([1.0, math.nan, -1.0]))) == 2


def test_a_curve_is_a_figure(tmp_path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    axes = curve_of([8.0, 4.0, 2.0], validation=[None, 3.0, None]).plot()
    loss, validation = axes.get_lines()
    assert list(loss.get_ydata()) == [8.0, 4.0, 2.0]
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([2], [3.0])
    assert (axes.get_yscale(), axes.get_xlabel()) == ("log", "meta-step")
    assert curve_of([1.0, -1.0]).plot(axes, log=None) is axes
    axes.figure.savefig(tmp_path / "curve.png")
    mpl.pyplot.close(axes.figure)


def test_a_curve_as_csv_is_read_back(tmp_path: Path) -> None:
    curve = curve_of([0.1, math.nan, math.inf], validation=[None, 0.3, None], learning_rate=[None, 0.1, 0.1],
                     skipped=[False, True, False])  # fmt: skip
    path = curve.to_csv(tmp_path / "curve.csv")
    assert path.read_text() == curve.to_csv()
    rows = list(csv.DictReader(curve.to_csv().splitlines()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3]
    assert [row["loss"] for row in rows] == ["0.1", "nan", "inf"]
    assert [row["validation"] for row in rows] == ["", "0.3", ""]
    assert [row["skipped"] for row in rows] == ["false", "true", "false"]


@pytest.mark.parametrize(
    ("call", "package"),
    [("to_pandas()", "pandas"), ("plot()", "matplotlib"), ("to_tensorboard('folder')", "tensorboard")],
)
def test_without_its_package_a_form_says_what_to_install(call: str, package: str) -> None:
    curve = curve_of([1.0])
    with pytest.MonkeyPatch.context() as patch:
        for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
            patch.setitem(sys.modules, name, None)
        with pytest.raises(errors.MissingDependency, match=f"Curve.{call.partition('(')[0]} .*pip install {package}"):
            eval(f"curve.{call}", {"curve": curve})


def test_a_curve_is_a_frame() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = curve_of([1.0, 2.0], validation=[None, 0.5]).to_pandas()
    assert list(frame.index) == [1, 2]
    assert list(frame.columns) == ["loss", "gradient_norm", "validation", "learning_rate", "skipped"]
    assert frame["validation"].isna().tolist() == [True, False]
    assert frame["loss"].sum() == 3.0
    assert isinstance(frame, pandas.DataFrame)


def test_a_curve_in_tensorboard_has_every_point(tmp_path: Path) -> None:
    reason = "tensorboard is not installed"
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    curve = curve_of([3.0, 2.0, 1.0], validation=[None, 2.5, None])
    assert curve.to_tensorboard(tmp_path / "runs") == tmp_path / "runs"
    events = reader.EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("gradsmith/loss")] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert [(each.step, each.value) for each in events.Scalars("gradsmith/validation")] == [(2, 2.5)]


def test_importing_records_brings_no_package_for_their_forms() -> None:
    code = (
        "import sys, gradsmith, gradsmith.types, gradsmith.html, gradsmith.curves, gradsmith.progress\n"
        "print(sorted({'pandas', 'matplotlib', 'tensorboard', 'numpy', 'IPython', 'httpx', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bar_says_how_far_a_job_is() -> None:
    job = Job.from_json(job_json(progress={"step": 5, "total": 10, "eta_seconds": 90.0}))
    assert line(job, 5.2) == f"quadratic meta_train  {'█' * 12}{'░' * 12}  50%  5/10  5 s  90 s left"
    assert '<progress value="0.5000" max="1"></progress> 50% 5/10' in bar(job, 5.2)


def test_in_a_notebook_one_display_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython's own parts, as far as a bar uses them: a shell with a kernel, and a display that is updated."""
    shown: list[str] = []

    class Handle:
        def update(self, value: Any) -> None:
            shown.append(value._repr_html_())

    def display(value: Any, *, display_id: bool) -> Handle:
        assert display_id
        shown.append("first " + value._repr_html_())
        return Handle()

    shell = modules.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", modules.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", modules.SimpleNamespace(display=display))  # type: ignore[arg-type]
    with Bar() as drawn_bar:
        for step in (1, 2, 3):
            drawn_bar(Job.from_json(job_json(progress={"step": step, "total": 3, "eta_seconds": None})))
    assert [each.startswith("first") for each in shown] == [True, False, False]
    assert "3/3" in shown[-1]
