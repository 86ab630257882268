"""What is in a user's data set: its columns, its classes and its groups, found in one pass in constant memory."""

from __future__ import annotations

import difflib
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from models.datasets.source import Limits, Values, form_of, in_order, labels, numbers, opened
from models.errors import DatasetRefused
from models.table_spec import LEAST_GROUPS, LEAST_ROWS, FileFormat, Table
from models.task_spec import Spec

MOST_DISTINCT = 1_000
MOST_CLASSES = 100
MOST_GROUPS = 1_000_000
_PREVIEW_ROWS, _PREVIEW_TEXT, _NAMED = 5, 40, 20


class Column(Spec):
    """One column as it was found."""

    name: str
    type: str = Field(description="`number`, `whole number` or `text`.")
    missing: int = Field(description="Values that are empty, NaN, NA, null, none or `?`.")
    infinite: int = 0
    low: float | None = Field(None, description="The lowest number; null of text.")
    high: float | None = None
    mean: float | None = None
    distinct: int | None = Field(None, description=f"How many values there are; null where over {MOST_DISTINCT:,}.")
    examples: tuple[str, ...] = Field((), description="A few of the values.")


class Groups(Spec):
    """The sizes of the groups. too_small: those that are left out, with fewer rows than a task needs."""

    count: int
    smallest: int
    median: float
    largest: int
    too_small: int = Field(description=f"Groups of fewer than {LEAST_ROWS} rows, which are left out.")


class Inspection(Spec):
    """A file that can be used, and the roles of its columns."""

    format: FileFormat
    rows: int
    columns: tuple[Column, ...]
    preview: tuple[tuple[str, ...], ...] = Field(description="The first rows.")
    inputs: tuple[str, ...]
    target: str | None
    group: str | None
    classes: tuple[str, ...] = Field(description="The target's values, where they are few; else empty.")
    groups: Groups | None
    usable_rows: int = Field(description="Rows with a target, and with a group where the data set has one.")

    @property
    def infinite_in_roles(self) -> tuple[str, ...]:
        """Columns that a model would meet infinity in."""
        return tuple(
            each.name
            for each in self.columns
            if each.infinite and (each.name in self.inputs or each.name == self.target)
        )


def inspected(
    path: Path,
    *,
    called: str = "",
    inputs: Sequence[str] = (),
    target: str | None = None,
    group: str | None = None,
    limits: Limits | None = None,
) -> Inspection:
    """inputs: default, every column of numbers without another role. Raises DatasetRefused."""
    limits = limits or Limits()
    form = form_of(path, called)
    source = opened(path, form, limits)
    roles = {"target": target, "group": group} | {f"input {number}": name for number, name in enumerate(inputs, 1)}
    _refuse_roles(roles, source.names)
    seen = [_Seen(name) for name in source.names]
    place = {name: number for number, name in enumerate(source.names)}
    sizes: Counter[str] = Counter()
    preview: list[tuple[str, ...]] = []
    rows = usable = 0
    for chunk in source.chunks():
        count = len(chunk[0])
        for each, values in zip(seen, chunk, strict=True):
            each.add(values)
        preview += [
            tuple(str(values[row])[:_PREVIEW_TEXT] for values in chunk)
            for row in range(min(count, _PREVIEW_ROWS - len(preview)))
        ]
        rows += count
        here = np.ones(count, bool)
        if target is not None:
            here = np.array([label is not None for label in labels(chunk[place[target]])])
        if group is not None:
            for label, there in zip(labels(chunk[place[group]]), here, strict=True):
                if there and label is not None:
                    sizes[label] += 1
                    usable += 1
            if len(sizes) > MOST_GROUPS:
                raise DatasetRefused(f"The column {group} has more than {MOST_GROUPS:,} groups, which is the most.")
        else:
            usable += int(here.sum())
    if not rows:
        raise DatasetRefused("The file names columns and holds no row.")
    columns = {each.name: each.column() for each in seen}
    chosen = tuple(inputs) or tuple(
        name for name, each in columns.items() if each.type != "text" and name not in (target, group)
    )
    _refuse_inputs(chosen, columns)
    classes = seen[place[target]].classes() if target is not None else ()
    return Inspection(
        format=form,
        rows=rows,
        columns=tuple(columns.values()),
        preview=tuple(preview),
        inputs=chosen,
        target=target,
        group=group,
        classes=classes,
        groups=_groups(sizes) if group is not None else None,
        usable_rows=usable,
    )


def table(name: str, sha256: str, found: Inspection) -> Table:
    """The data set as a family knows it. Raises DatasetRefused where its roles do not say what to learn."""
    if found.target is None:
        raise DatasetRefused(
            f"The data set {name} has no target; add its file again under another name with --target COLUMN."
        )
    if found.infinite_in_roles:
        raise DatasetRefused(f"The column {found.infinite_in_roles[0]} of {name} has infinite values; mend the file.")
    [target] = [column for column in found.columns if column.name == found.target]
    groups = found.groups
    if groups is not None and (fit := groups.count - groups.too_small) < LEAST_GROUPS:
        raise DatasetRefused(
            f"The data set {name} has {fit} groups of at least {LEAST_ROWS} rows; training, validation and test "
            f"need {LEAST_GROUPS}."
        )
    if groups is None and found.usable_rows < 4 * LEAST_ROWS:
        raise DatasetRefused(
            f"The data set {name} has {found.usable_rows} rows with a target; {4 * LEAST_ROWS} are needed."
        )
    return Table(
        name=name,
        sha256=sha256,
        format=found.format,
        inputs=found.inputs,
        target=found.target,
        group=found.group,
        classes=found.classes,
        target_lowest=target.low,
        target_is_whole=target.type == "whole number",
        rows=found.usable_rows,
        groups=1 if groups is None else groups.count - groups.too_small,
        largest=found.usable_rows if groups is None else groups.largest,
    )


class _Seen:
    """What was seen of a column so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._is_number = self._is_whole = True
        self._missing = self._infinite = self._counted = 0
        self._low, self._high, self._sum = float("inf"), float("-inf"), 0.0
        self._labels: set[str] = set()  # one more than MOST_DISTINCT stands for many

    def add(self, values: Values) -> None:
        if len(self._labels) <= MOST_DISTINCT:
            different = np.unique(values) if isinstance(values, np.ndarray) else list(set(values))
            self._labels |= {label for label in labels(different) if label is not None}
        found = numbers(values) if self._is_number else None
        if found is None:
            self._is_number = False
            self._missing += labels(values).count(None)
            return
        self._missing += int(np.isnan(found).sum())
        self._infinite += int(np.isinf(found).sum())
        finite = found[np.isfinite(found)]
        if finite.size:
            self._counted += finite.size
            self._low, self._high = min(self._low, float(finite.min())), max(self._high, float(finite.max()))
            self._sum += float(finite.sum())
            self._is_whole = self._is_whole and bool((finite == np.floor(finite)).all())

    def column(self) -> Column:
        values = in_order(self._labels)
        known: dict[str, Any] = {
            "name": self.name,
            "missing": self._missing,
            "distinct": len(values) if len(values) <= MOST_DISTINCT else None,
            "examples": tuple(value[:_PREVIEW_TEXT] for value in values[:_PREVIEW_ROWS]),
        }
        if not self._is_number or not self._counted:
            return Column(type="text", **known)
        return Column(
            type="whole number" if self._is_whole else "number",
            infinite=self._infinite,
            low=self._low,
            high=self._high,
            mean=self._sum / self._counted,
            **known,
        )

    def classes(self) -> tuple[str, ...]:
        """In order; () where there are many."""
        return in_order(self._labels) if len(self._labels) <= MOST_CLASSES else ()


def _groups(sizes: Counter[str]) -> Groups:
    counts = sizes.values()
    return Groups(
        count=len(sizes),
        smallest=min(counts, default=0),
        median=float(statistics.median(counts)) if counts else 0.0,
        largest=max(counts, default=0),
        too_small=sum(count < LEAST_ROWS for count in counts),
    )


def _refuse_roles(roles: Mapping[str, str | None], names: Sequence[str]) -> None:
    taken: dict[str, str] = {}
    for role, name in roles.items():
        if name is None:
            continue
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise DatasetRefused(
                f"There is no column {name[:60]!r} for the {role.partition(' ')[0]}.{meant} Columns: "
                f"{', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''}."
            )
        if name in taken:
            raise DatasetRefused(f"The column {name!r} is both {taken[name]} and {role}; give it one role.")
        taken[name] = role


def _refuse_inputs(chosen: Sequence[str], columns: Mapping[str, Column]) -> None:
    if not chosen:
        raise DatasetRefused("No column of numbers is left for the inputs; encode text as numbers first.")
    for name in chosen:
        if columns[name].type == "text":
            raise DatasetRefused(
                f"The input {name!r} is no column of numbers (it has "
                f"{', '.join(columns[name].examples[:3]) or 'no value'}); encode it as numbers first, or leave it out."
            )
