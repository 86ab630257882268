"""A file as a table: its columns by name, and their values some rows at a time, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from models.errors import DatasetRefused
from models.table_spec import FileFormat

Values: TypeAlias = Sequence[str] | NDArray[np.float64]
"""The next values of a column: text as a file has it, or numbers."""

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""Text that stands for a missing value, in any case."""


@dataclass(frozen=True)
class Limits:
    """What a file may hold."""

    rows: int = 10_000_000
    columns: int = 1_000
    unpacked_bytes: int = 2 * 2**30


class Source(Protocol):
    """An open file."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its columns."""

    def chunks(self) -> Iterator[list[Values]]:
        """The next values of every column, in the order of `names`, until the end. Raises DatasetRefused."""


def opened(path: Path, form: FileFormat, limits: Limits) -> Source:
    """Raises DatasetRefused where the file is not of this form."""
    from models.datasets.arrays import NpzSource, SafetensorsSource
    from models.datasets.csv_file import CsvSource

    kinds = {"csv": CsvSource, "npz": NpzSource, "safetensors": SafetensorsSource}
    return cast(Source, kinds[form](path, limits))


def form_of(path: Path, name: str = "") -> FileFormat:
    """What a file is by its first bytes, not by what it is called.

    name: what its user calls it, for the message. Raises DatasetRefused for a form that is not read here.
    """
    with path.open("rb") as stream:
        first = stream.read(16)
    if not first:
        raise DatasetRefused(f"The file {name} is empty; send a table with a line of names and at least one row.")
    if first.startswith(b"PAR1"):
        raise DatasetRefused(
            "Parquet is not read by the server: `gradsmith data add FILE` converts it on your machine, with pyarrow. "
            "Or send CSV."
        )
    if first.startswith(b"PK\x03\x04"):
        return "npz"
    for magic, what in _OTHERS.items():
        if first.startswith(magic):
            raise DatasetRefused(f"The file is {what}, which is not read; send CSV, npz or safetensors.")
    if len(first) > 9 and first[8:9] == b"{" and int.from_bytes(first[:8], "little") < path.stat().st_size:
        return "safetensors"
    if b"\0" in first:
        raise DatasetRefused("The file is neither text nor npz nor safetensors; send one of CSV, npz and safetensors.")
    return "csv"


_OTHERS = {
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"(\xb5/\xfd": "a zstd file",
    b"PK\x05\x06": "an empty zip file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a single npy array without names",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


def numbers(values: Values) -> NDArray[np.float64] | None:
    """The values as numbers, NaN where one is missing; None where one is another text."""
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.fromiter(map(_number, values), np.float64, len(values))
    except ValueError:
        return None


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        if text.strip().lower() in MISSING:
            return float("nan")
        raise
    if "_" in text:  # Python's own way to write digits in groups
        raise ValueError(text)
    return found


def labels(values: Values) -> list[str | None]:
    """The values as names, None where one is missing. Text is its own name, a number of an array the shortest text."""
    if isinstance(values, np.ndarray):
        return [None if value != value else label_of(value) for value in values.tolist()]
    texts = [text.strip() for text in values]
    return [None if text.lower() in MISSING else text for text in texts]


def label_of(value: float) -> str:
    """A number as a name."""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def in_order(names: set[str]) -> tuple[str, ...]:
    """Sorted by size where all are numbers, else by the alphabet."""
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names))
