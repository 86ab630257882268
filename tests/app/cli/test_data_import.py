"""`gradsmith-server data import NAME FILE`: a table without HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.program import app
from app.settings import Settings
from app.store.datasets import Datasets
from app.store.sessions import Database

CONTENT = "customer,income,churned\n" + "".join(f"c{row % 5},{row},{row % 2}\n" for row in range(20))


def bring(arguments: list[str]) -> None:
    app(["data", "import", *arguments], standalone_mode=False)


def test_a_file_becomes_a_data_set_and_a_wrong_one_leaves_nothing(
    sqlite_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = tmp_path / "data", tmp_path / "customers.csv"
    assert sqlite_url.endswith("data/gradsmith.db")
    file.write_text(CONTENT)
    roles = ["--target", "churned", "--group", "customer", "--data", str(data)]
    bring(["customers", str(file), *roles])
    assert capsys.readouterr().out == "customers has 20 rows and 1 inputs.\n"
    with Database(Settings(data_dir=data).resolved_database_url) as database, database.read() as session:
        table = Datasets(session).table("customers")
        assert (table.inputs, table.groups, table.largest) == (("income",), 5, 4)
        assert [path.name for path in (data / "datasets").glob("*/*")] == [table.sha256]
    file.write_text(CONTENT + "c1,2\n")
    with pytest.raises(SystemExit) as ended:
        bring(["others", str(file), *roles])
    assert ended.value.code == 1
    assert "Line 22 has 2 values, and the line of names has 3" in capsys.readouterr().err
    assert [path.name for path in (data / "datasets").glob("*/*")] == [table.sha256]
    for wrong, said in ((["customers", str(file)], "exists already"), (["No Name", str(file)], "is no name")):
        file.write_text(CONTENT + "c1,2,1\n")
        with pytest.raises(SystemExit) as ended:
            bring([*wrong, *roles])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
