"""Parquet files as CSV, on the machine of whoever has them.

A server reads no Parquet: 283 bytes of it can unpack to 400 MB, whatever their footer declares (decision 0122).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gradsmith.errors import MissingDependency

_MAGIC = b"PAR1"


@contextmanager
def as_sendable(path: Path) -> Iterator[Path]:
    """The file itself; of a Parquet file a CSV file beside no other, which is gone when the context ends.

    Raises OSError, MissingDependency, and ValueError where it is no whole Parquet file or has columns of lists or
    structures.
    """
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            yield path
            return
    with TemporaryDirectory(prefix="gradsmith-") as folder:
        to = Path(folder) / f"{path.stem}.csv"
        write_csv(path, to)
        yield to


def write_csv(path: Path, to: Path) -> None:
    """The same table as CSV, some rows at a time; the same file gives the same bytes. Raises as `as_sendable` does."""
    try:
        import pyarrow
        from pyarrow import csv, parquet
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"{path.name} is Parquet, which needs pyarrow: pip install './sdk[parquet]' in a checkout of Gradsmith, or "
            "pip install pyarrow. Or convert it to CSV"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            nested = [each.name for each in schema if pyarrow.types.is_nested(each.type)]
            if nested:
                raise ValueError(f"the column {nested[0]} of {path.name} has lists or structures, and a table has none")
            with csv.CSVWriter(to, schema) as writer:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path.name} cannot be read as Parquet: {error}") from error
