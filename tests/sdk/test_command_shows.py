"""What the command draws: rows that fit the terminal, the server's words as commands, and arguments that are wrong."""

from __future__ import annotations

import io
import math
import sys
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gradsmith.cli import show
from gradsmith.cli.live import Line
from gradsmith.cli.picture import Losses
from gradsmith.cli.program import program
from gradsmith.cli.spoken import as_commands, with_short_ids
from gradsmith.events import Event, event_from
from gradsmith.types import Job
from tests.sdk.records import job_json


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("GET /jobs lists those that exist.", "`gradsmith jobs` lists those that exist."),
        ("GET /datasets lists them", "`gradsmith data` lists them"),
        ("GET /families/q/aliases lists them.", "`gradsmith optimizers list --family q` lists them."),
        ("`GET /families/{name}`", "`gradsmith families show {name}`"),
        ("GET /jobs?sweep=job_1 lists them.", "`gradsmith jobs list --sweep job_1` lists them."),
        ("POST /families/q-1/preview takes seconds", "`gradsmith families preview q-1` takes seconds"),
        ("POST /families declares one.", "`gradsmith families create FILE` declares one."),
        ("it is retried: POST /jobs/job_1/retry.", "it is retried: `gradsmith jobs retry job_1`."),
        ("POST /jobs with a family trains", "`gradsmith train FAMILY` trains"),
        ('POST /jobs with {"kind": "evaluate", "optimizer": "q@1"} does.', "`gradsmith evaluate q@1` does."),
        ("No 'q'. Did you mean 'p'? Families: p, r. POST /families declares one.",
         "No 'q'. Did you mean 'p'? `gradsmith families` lists them. `gradsmith families create FILE` declares one."),
        ("No 'q'. Families: p, r.", "No 'q'. Families: p, r."),
        ("GET /readyz says which it is.", "GET /readyz says which it is."),
        ("Send an API key: `Authorization: Bearer gs_<id>_<secret>`.",
         "An API key is needed: `gradsmith login` keeps one, or set GRADSMITH_API_KEY."),
    ],
)  # fmt: skip
def test_requests_in_the_servers_words_become_commands(said: str, expected: str) -> None:
    assert as_commands(said) == expected


def test_a_log_names_jobs_as_commands_take_them() -> None:
    stored = "sgd, tuning: stored, by job job_01a22a8dde01709cbefdb841e1945759"
    assert with_short_ids(stored) == "sgd, tuning: stored, by job e1945759"
    assert with_short_ids("job_none has no job_12") == "job_none has no job_12"


def test_a_curve_of_any_length_is_kept_as_means_of_equally_many_points() -> None:
    losses, values = Losses(), [math.exp(-step / 7000) for step in range(20_000)]
    for start in range(0, len(values), 500):
        losses.add([*values[start : start + 500], math.nan])
    assert losses.last == values[-1]
    assert 2048 <= len(losses.means) < 4096
    points = len(values) // len(losses.means)
    expected = [sum(values[start : start + points]) / points for start in range(0, len(values), points)]
    assert losses.means == pytest.approx(expected[: len(losses.means)], rel=1e-12)
    losses.keep(0.5)
    assert losses.means == pytest.approx(expected[: len(losses.means)], rel=1e-12)
    assert len(losses.means) == round(len(expected) / 2)


def metrics(first: int, count: int, validation: float | None = None) -> Event:
    steps = range(first, first + count)
    data = {"step": [*steps], "loss": [10.0 * 0.99**step for step in steps]}
    return event_from("metrics", "1-1", data | {"validation": [*[None] * (count - 1), validation]})


def shown(line: Line, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(line.drawn(width))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_training_is_drawn_within_the_terminal_with_its_curve_beside_it(width: int) -> None:
    raw = job_json(status="running", progress={"step": 0, "total": 100_000, "eta_seconds": None})
    line = Line(Job.from_json(raw))
    assert line.take(metrics(1, 300, 0.1234567)) is None
    rows = shown(line, width)
    assert max(map(len, rows)) <= width
    text = "\n".join(rows)
    for words in ("training", "300 of 100,000", "loss", "0.4904", "validation", "0.1235", " left"):
        assert words in text
    assert ("█" in text) == (width >= 80)
    assert len(line.ended(width)) <= max(width, 80)
    assert "300/100000" in line.text()


def test_an_evaluation_tells_in_one_line_what_it_does_and_a_training_above_it() -> None:
    log = event_from("log", "1-2", {"message": "tuning adam's learning rate " * 5, "level": "info"})
    warning = event_from("log", "1-3", {"message": "disk is full", "level": "warning"})
    measuring = Line(Job.from_json(job_json(kind="evaluate", status="running")))
    assert (measuring.take(log), measuring.take(warning)) == (None, "warning: disk is full")
    [row] = shown(measuring, 80)
    assert "tuning adam" in row
    assert len(row) <= 80
    training = Line(Job.from_json(job_json(status="running")))
    assert training.take(log) == log.data["message"]
    waiting = Line(Job.from_json(job_json(status="queued", queue_position=2)))
    assert shown(waiting, 80) == ["training  queued, 2 before it"]


def test_a_run_that_resumes_draws_what_comes_again_once() -> None:
    line = Line(Job.from_json(job_json(status="running", progress={"step": 0, "total": 200, "eta_seconds": None})))
    line.take(metrics(1, 100))
    assert line.take(event_from("resumed", "2-1", {"from_step": 50})) == "resumed from step 50"
    line.take(metrics(51, 50))
    assert line.losses.means == pytest.approx([10.0 * 0.99**step for step in range(1, 101)])


def test_a_table_has_no_column_that_no_row_fills(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("a", "b", "c"), [("1", "", "x"), ("2", "", "")], empty="nothing")
    assert [line.split() for line in capsys.readouterr().out.splitlines()[::2]] == [["a", "c"], ["1", "x"]]
    show.table(("a",), [], empty="nothing")
    assert capsys.readouterr().out == "nothing\n"


def test_a_narrow_terminal_leaves_spare_columns_out_and_breaks_sentences_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("quadratic", "x" * 20, "10"), ("digits", "y" * 25, "1,510")]
    show.table(("family", "what", "size"), rows, empty="", spare=("size",))
    assert "size" not in capsys.readouterr().out
    show.say("one sentence that is longer than forty columns of a terminal", indent="  ")
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(line.strip() for line in lines) == "one sentence that is longer than forty columns of a terminal"
    assert max(map(len, lines)) <= 40


def test_json_is_shown_by_the_paths_that_set_takes() -> None:
    nested: dict[str, Any] = {"rule": {"kind": "mlp", "sizes": [1, 2]}, "rules": {}, "on": None}
    assert show.flat(nested) == {"rule.kind": "mlp", "rule.sizes": "[1, 2]", "rules": "{}", "on": "null"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("jbos", "there is no command 'jbos'. Did you mean 'jobs'? `gradsmith --help` says more."),
        ("jobs lst", "there is no command 'lst'. Did you mean 'list'? `gradsmith jobs --help` says more."),
        ("train quadratic --folow", "there is no option --folow. Did you mean '--follow'?"),
        ("train", "FAMILY is missing. `gradsmith train --help` says more."),
        ("login", "URL is missing."),
        ("jobs list --limit 0", "--limit: "),
        ("jobs list --limit", "'--limit' requires an argument."),
        ("login nowhere --key x", "the server's address must begin with http:// or https://"),
        ("jobs cancel a b", "unexpected extra argument(s) (b)."),
    ],
)
def test_what_cannot_be_understood_is_said_in_a_line_with_the_help_to_ask_for(arguments: str, message: str) -> None:
    done = CliRunner().invoke(program, arguments.split(), prog_name="gradsmith")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("gradsmith: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_alone_it_shows_its_help() -> None:
    alone, asked = (CliRunner().invoke(program, given, prog_name="gradsmith") for given in ([], ["--help"]))
    assert (alone.exit_code, alone.stdout) == (0, asked.stdout)
