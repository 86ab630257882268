"""CSV, UTF-8, with a line of names: read a few thousand rows at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from models.datasets.source import Limits, Values
from models.errors import DatasetRefused

LONGEST_LINE = 1_000_000
LONGEST_NAME = 100
_ROWS, _CHARACTERS = 4096, 4_000_000  # of a chunk, at most


class CsvSource:
    """One delimiter of , ; tab and |, whichever the line of names has most of."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        with _text(path) as stream:
            first = next(_lines(stream), "")
            self._delimiter = max(",;\t|", key=first.count)
            stream.seek(0)
            self.names = _names(next(self._rows(stream), (1, []))[1], limits)

    def chunks(self) -> Iterator[list[Values]]:
        with _text(self._path) as stream:
            rows = self._rows(stream)
            next(rows)
            chunk: list[list[str]] = []
            characters = 0
            for count, (line, row) in enumerate(rows, 1):
                if len(row) != len(self.names):
                    raise DatasetRefused(
                        f"Line {line} has {len(row)} values, and the line of names has {len(self.names)}. Is the file "
                        f"whole, and is {self._delimiter!r} what separates its values?"
                    )
                chunk.append(row)
                if count > self._limits.rows:
                    raise DatasetRefused(f"The file has more than {self._limits.rows:,} rows, which is the most.")
                characters += sum(map(len, row))
                if len(chunk) >= _ROWS or characters > _CHARACTERS:
                    yield _columns(chunk)
                    chunk, characters = [], 0
            if chunk:
                yield _columns(chunk)

    def _rows(self, stream: TextIO) -> Iterator[tuple[int, list[str]]]:
        """The number of the line that each ends at, and its values; blank lines are left out."""
        reader = csv.reader(_lines(stream), delimiter=self._delimiter, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise DatasetRefused(f"Line {reader.line_num} is no CSV: {error}. Is the file whole?") from None
            except UnicodeDecodeError:
                raise DatasetRefused(f"Line {reader.line_num + 1} is not UTF-8; save the file as UTF-8.") from None
            if row is None:
                return
            if row:
                yield reader.line_num, row


def _columns(rows: list[list[str]]) -> list[Values]:
    return [list(column) for column in zip(*rows, strict=True)]


def _text(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", newline="")


def _lines(stream: TextIO) -> Iterator[str]:
    number = 0
    while True:
        try:
            line = stream.readline(LONGEST_LINE)
        except UnicodeDecodeError:
            raise DatasetRefused(f"Line {number + 1} or one soon after is not UTF-8; save the file as UTF-8.") from None
        if not line:
            return
        number += 1
        if len(line) == LONGEST_LINE:
            raise DatasetRefused(f"Line {number} has {LONGEST_LINE:,} characters or more; that is no table.")
        if "\0" in line:
            raise DatasetRefused(f"Line {number} holds a zero byte; that is no text.")
        yield line


def _names(row: list[str], limits: Limits) -> tuple[str, ...]:
    names = tuple(name.strip() for name in row)
    if not names:
        raise DatasetRefused("The file has no line of names; its first line has to name the columns.")
    if all(map(_is_number, names)):
        raise DatasetRefused(f"The first line has to name the columns, and holds numbers ({', '.join(names)[:60]}).")
    return checked_names(names, limits)


def checked_names(names: tuple[str, ...], limits: Limits) -> tuple[str, ...]:
    """The names. Raises DatasetRefused where they cannot be told apart, or are too many."""
    if len(names) > limits.columns:
        raise DatasetRefused(f"The file has {len(names):,} columns, and at most {limits.columns:,} fit.")
    for place, name in enumerate(names, 1):
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise DatasetRefused(f"Column {place} has the name {name[:40]!r}; give it 1 to {LONGEST_NAME} characters.")
        if name in names[: place - 1]:
            raise DatasetRefused(f"Two columns have the name {name!r}; rename one.")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
