"""Parquet is converted where it is: the same table, some rows at a time, or an error that says what to install."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from gradsmith.errors import MissingDependency
from gradsmith.parquet import as_sendable


def test_other_files_are_sent_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    with as_sendable(table) as sent:
        assert sent == table


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    table = tmp_path / "table.parquet"
    table.write_bytes(b"PAR1 and more")
    with pytest.raises(MissingDependency, match=r"table.parquet is Parquet.*\./sdk\[parquet\]"), as_sendable(table):
        pass


def test_a_table_comes_through_with_its_texts_numbers_and_gaps(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, the extra `parquet`, is not installed")
    from pyarrow import parquet

    table = tmp_path / "Table.parquet"
    columns = {"who": ["a,b", 'c"d', None], "x": [0.1, None, 1e-300], "n": [1, 2, 3]}
    parquet.write_table(pyarrow.table(columns), table, row_group_size=2)
    with as_sendable(table) as sent:
        assert sent.name == "Table.csv"
        first = sent.read_bytes()
        rows = list(csv.DictReader(sent.read_text(encoding="utf-8").splitlines()))
    assert not sent.exists()
    assert [row["who"] for row in rows] == ["a,b", 'c"d', ""]
    assert [float(row["x"] or "nan") for row in (rows[0], rows[2])] == [0.1, 1e-300]
    with as_sendable(table) as again:
        assert again.read_bytes() == first
    parquet.write_table(pyarrow.table({"x": [[1], [2]]}), table)
    with pytest.raises(ValueError, match=r"the column x of Table\.parquet has lists"), as_sendable(table):
        pass
    table.write_bytes(table.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cannot be read as Parquet"), as_sendable(table):
        pass
