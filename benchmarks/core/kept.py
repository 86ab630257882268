"""Results in a file, section by section, so that an interrupted run can go on and a failed section loses no other."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.core.results import Results


class Kept:
    """`results` by section, and `failed`: section -> why, in one line.

    go_on: the sections that were measured before are not measured again, but for those that failed; unless they come
        from another machine, commit, uncommitted changes or settings, which one report must not mix
    """

    def __init__(self, file: Path, machine: dict[str, str], *, go_on: bool) -> None:
        self._file = file
        self.results: Results = {"machine": machine}
        self.failed: dict[str, str] = {}
        before = json.loads(file.read_text()) if go_on and file.exists() else {}
        if before and _place(before["machine"]) == _place(machine):
            self.results = before
        elif before:
            print(f"  starting anew: {file.name} is of {_place(before['machine'])}, this is {_place(machine)}")

    def measure(self, name: str, section: Callable[[], Any]) -> None:
        """Raises nothing but what ends the program: KeyboardInterrupt, SystemExit."""
        if name in self.results:
            return
        try:
            # Through JSON at once, so that a fresh result and a kept one are the same thing.
            self.results[name] = json.loads(json.dumps(section()))
        except Exception as error:  # noqa: BLE001 - whatever a section meets, the others are wanted all the same
            traceback.print_exc()
            self.failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[-600:]
            return
        partly = self._file.with_suffix(".part")
        partly.write_text(json.dumps(self.results, indent=1))
        partly.replace(self._file)


def _place(machine: dict[str, str]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit']}, {machine.get('settings', '')}"
    )
