"""The command line in real terminals: pictures of what it shows, its exit codes, and how long its help takes.

    ./run bench terminal [--only scenes help] [--scenes NAME ...] [--pictures FOLDER] [--rounds 15] [--dry]

Starts a service with keys, plays every scene in a pseudo-terminal of 80 and of 120 columns, and keeps what it shows as
text, SVG and, where there is a Chromium, PNG. Commands that take --json are run with it as well. Writes its section of
RESULTS.md; ends with status 1 where an exit code was another one, a line was too long, or --json printed no JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from benchmarks.core import report
from benchmarks.dashboard.browsing import NoBrowser, browser
from benchmarks.terminal import help_times, pictures, section
from benchmarks.terminal.scenes import SCENES, Scene
from benchmarks.terminal.session import run
from benchmarks.terminal.stage import Stage, staged
from gradsmith.cli.program import program
from workshop.served import ROOT

FOLDER = ROOT / "var" / "terminal"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
WIDTHS = (80, 120)
PARTS = ("scenes", "help")


@dataclass
class Played:
    """What came of a scene. codes: by width; broken: lines that the terminal broke; as_json: "" where it is not run,
    else what is right or wrong with it"""

    scene: Scene
    codes: list[int] = field(default_factory=list)
    broken: int = 0
    as_json: str = ""

    @property
    def right(self) -> bool:
        return set(self.codes) == {self.scene.code} and not self.broken and self.as_json in ("", "yes")


def play(stage: Stage, scene: Scene, folder: Path) -> tuple[Played, dict[str, str]]:
    """The scene at every width, and its pictures by name."""
    played, drawn = Played(scene), dict[str, str]()
    for width in WIDTHS:
        command = stage.command(scene.command)
        within = _gradsmith if scene.command.startswith("gradsmith ") else None  # which has been imported already
        session = run(command, width, stage.environment(scene.changes), scene.presses, within)
        played.codes.append(session.code)
        played.broken += session.screen.broken
        shots = {f"-{number}": shot for number, shot in enumerate(session.on_the_way, 1)} | {"": session.screen}
        for mark, screen in shots.items():
            name = f"{scene.name}{mark}-{width}"
            (folder / f"{name}.txt").write_text(f"$ {scene.command}\n{screen.text()}\n", encoding="utf-8")
            drawn[name] = pictures.svg(screen, scene.command)
    if scene.json:
        arguments = [*_arguments(stage.command(scene.command)), "--json"]
        done = CliRunner().invoke(program, arguments, env=stage.environment(scene.changes), prog_name="gradsmith")
        played.as_json = _judged(done, scene.code)
    return played, drawn


def _gradsmith(command: Sequence[str]) -> None:
    program(_arguments(command), prog_name="gradsmith")


def _arguments(command: Sequence[str]) -> list[str]:
    """Without the Python and the module that it begins with."""
    return list(command[3:])


def _judged(done: Any, code: int) -> str:
    if done.exit_code != code:
        return f"exit code {done.exit_code}"
    try:
        json.loads(done.stdout or "null")
    except ValueError:
        return "no JSON"
    return "yes" if done.stdout or code else "nothing"


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 where something is not as it must be."""
    parser = argparse.ArgumentParser(prog="./run bench terminal", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--scenes", nargs="+", default=[], help="these alone, and those whose jobs they need")
    parser.add_argument("--pictures", type=Path, default=FOLDER, help="where pictures go (var/terminal)")
    parser.add_argument("--rounds", type=int, default=15, help="how often each help is timed")
    parser.add_argument("--dry", action="store_true", help="print, but do not write RESULTS.md")
    given = parser.parse_args(arguments)
    wrong, text = 0, []
    if "scenes" in given.only:
        played = _played(given.pictures, given.scenes)
        wrong += sum(not each.right for each in played)
        text += section.scenes(played, WIDTHS)
    if "help" in given.only:
        text += section.help_pages(help_times.measure(given.rounds), help_times.heavy())
    print("\n".join(text))
    if not given.dry and not given.scenes and set(given.only) == set(PARTS):
        report.write(RESULTS, [*section.head(), *text], section.MARKS)
    return 1 if wrong else 0


def _played(folder: Path, chosen: list[str]) -> list[Played]:
    folder.mkdir(parents=True, exist_ok=True)
    found, drawn = [], dict[str, str]()
    with staged() as stage:
        for scene in SCENES:
            if chosen and scene.name not in (*chosen, "train", "failure"):
                continue
            played, shots = play(stage, scene, folder)
            found.append(played)
            drawn |= shots
            print(f"{'ok   ' if played.right else 'WRONG'} {scene.name}: {played.codes} {played.as_json}", flush=True)
            if scene.code == 130 and not stage.client.jobs.get(stage.long).finished:
                print("      the job runs on", flush=True)
    try:
        with browser() as chromium:
            pictures.draw(chromium, drawn, folder)
    except NoBrowser as error:
        print(f"no PNG: {error}")
    return found
