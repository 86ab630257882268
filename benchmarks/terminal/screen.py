"""A terminal's screen after what a program wrote to it: as much of ECMA-48 as rich and Click use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from unicodedata import east_asian_width

from rich.text import Text

_PART = re.compile(
    r"\x1b\[([?0-9;]*)([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>78DEHMZc]|([\x00-\x1f])|([^\x00-\x1f\x1b]+)"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[?0-9;]*|\][^\x07\x1b]*\x1b?)?\Z")

Cell = tuple[str, str]
"""A character, and the SGR parameters that it was written with."""


class Screen:
    """Lines as they stand. Nothing scrolls away: a scene is as long as what was written.

    broken: lines that the terminal had to break, because they were longer than it is wide
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.broken = 0
        self._lines: list[list[Cell]] = [[]]
        self._row = self._column = 0
        self._style = ""
        self._rest = ""

    def feed(self, written: str) -> None:
        """Take more of what the program wrote; an escape sequence may be cut anywhere."""
        text = self._rest + written
        unfinished = _UNFINISHED.search(text)
        self._rest = unfinished.group() if unfinished else ""
        for found in _PART.finditer(text[: len(text) - len(self._rest)]):
            parameters, final, control, plain = found.groups()
            if plain:
                self._write(plain)
            elif control:
                self._control(control)
            elif final and not parameters.startswith("?"):
                self._command(parameters, final)

    def ansi(self) -> str:
        """The lines with their colours, without empty ones at the end."""
        lines = ["".join(_coloured(line)) for line in self._lines]
        return "\n".join(lines).rstrip("\n") + "\x1b[0m"

    def text(self) -> str:
        """The lines, without trailing blanks."""
        return "\n".join("".join(each for each, _ in line).rstrip() for line in self._lines).rstrip("\n")

    def copy(self) -> Screen:
        """The screen as it is now."""
        taken = Screen(self.columns)
        taken.feed(self.ansi().replace("\n", "\r\n"))
        return taken

    def rich(self) -> Text:
        """The lines as rich draws them."""
        return Text.from_ansi(self.ansi(), no_wrap=True)

    def _write(self, plain: str) -> None:
        for each in plain:
            if self._column >= self.columns:  # what a terminal does with a line that is too long
                self._column = 0
                self.broken += 1
                self._down()
            line = self._lines[self._row]
            line.extend([(" ", "")] * (self._column + 1 - len(line)))
            line[self._column] = (each, self._style)
            self._column += 2 if east_asian_width(each) in "WF" else 1

    def _control(self, control: str) -> None:
        if control == "\r":
            self._column = 0
        elif control == "\n":
            self._down()
        elif control == "\b":
            self._column = max(0, self._column - 1)

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._lines):
            self._lines.append([])

    def _command(self, parameters: str, final: str) -> None:
        number = int(parameters.partition(";")[0] or 0)
        if final == "m":
            reset, _, others = parameters.partition(";") if parameters[:2] in ("", "0", "0;") else ("", "", parameters)
            kept = "" if reset or not parameters else self._style
            self._style = ";".join(filter(None, (kept, others)))
        elif final == "A":
            self._row = max(0, self._row - max(1, number))
        elif final == "B":
            self._row = min(len(self._lines) - 1, self._row + max(1, number))
        elif final == "C":
            self._column += max(1, number)
        elif final == "D":
            self._column = max(0, self._column - max(1, number))
        elif final == "G":
            self._column = max(0, number - 1)
        elif final == "K":
            line = self._lines[self._row]
            if number == 0:
                del line[self._column :]
            elif number == 1:
                line[: self._column] = [(" ", "")] * min(self._column, len(line))
            else:
                line.clear()
        elif final == "J":
            self._lines[self._row] = self._lines[self._row][: self._column]
            del self._lines[self._row + 1 :]


def _coloured(line: Sequence[Cell]) -> Iterator[str]:
    for style, cells in groupby(line, key=lambda cell: cell[1]):
        yield f"\x1b[0;{style}m" if style else "\x1b[0m"
        yield "".join(each for each, _ in cells)
