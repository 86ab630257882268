"""A real service with keys, and the jobs that scenes are about."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradsmith
from models.tasks.data import MNIST, mnist_folder
from workshop.served import ROOT, service

_PROGRAMS = {
    "gradsmith": [sys.executable, "-m", "gradsmith.cli"],
    "gradsmith-server": [sys.executable, "-m", "app.cli"],
    "./run": [str(ROOT / "run")],
}
_LONG = {"meta_steps": 100_000, "patience": 1000}


@dataclass
class Stage:
    """Where the service is, its key, and a client that has it."""

    client: gradsmith.Client
    key: str
    home: Path
    long: str = ""

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        """What a person's terminal has, and what the scene changes."""
        dropped = ("COLUMNS", "LINES", "NO_COLOR", "GRADSMITH_COMMAND")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        own = {"GRADSMITH_URL": self.client.base_url, "GRADSMITH_API_KEY": self.key}
        return kept | own | {"TERM": "xterm-256color", "XDG_CONFIG_HOME": str(self.home)} | dict(changes)

    def command(self, words: str) -> list[str]:
        """The program and its arguments, with the ids of the jobs that are meant."""
        first, _, rest = words.partition(" ")
        if "{long}" in rest and not self.long:
            self.long = self.client.jobs.create(family="quadratic", recipe=_LONG, evaluate=False, seed=1).id
        places = {"{long}": self.long[-8:]}
        for name, kind, status in (("trained", "meta_train", "succeeded"), ("evaluation", "evaluate", "succeeded"),
                                   ("failed", "meta_train", "failed")):  # fmt: skip
            if f"{{{name}}}" in rest:
                places[f"{{{name}}}"] = self.client.jobs.list(kind=kind, status=status, limit=1).data[0].id[-8:]
        for place, job in places.items():
            rest = rest.replace(place, job)
        return [*_PROGRAMS[first], *rest.split()]


@contextmanager
def staged() -> Iterator[Stage]:
    """A service of its own, with a data set that is damaged; gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="gs-terminal-") as folder:
        data = Path(folder) / "data"
        made = subprocess.run(
            [*_PROGRAMS["gradsmith-server"], "keys", "create", "--name", "me", "--scope", "admin", "--data", str(data)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        images = mnist_folder(data)
        images.mkdir(parents=True)
        for file in MNIST.values():
            (images / file.name).write_bytes(b"no image")
        with service(None, workers=1, data=data, changes={"GRADSMITH_AUTH": "on"}) as running:
            key = made.stdout.strip()
            with gradsmith.Client(running.url, key) as client:
                yield Stage(client, key, Path(folder))
