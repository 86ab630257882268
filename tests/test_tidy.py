"""No committed file names a machine, a mirror or anybody's home; nothing half-done is left in the code."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Written in pieces, so that this file does not hold what it forbids.
PLACES = re.compile(
    "|".join([r"/wor[k]/", r"/roo[t]/", r"/opt/whee[l]s", r"://[^\s]*(?:/simpl[e]\b|regist[r]y|host[e]d)"])
)
UNFINISHED = re.compile(
    "|".join([r"NotImplemented[E]rror", r"\bTO[D]O\b", r"\bFIX[M]E\b", r"except( Exception)?: *p[a]ss"])
)
PACKAGES = ("app/", "models/", "workers/", "sdk/gradsmith/", "benchmarks/", "migrations/", "workshop/")
# A docstring that begins like this continues the name above it instead of saying something.
RELATIVE = re.compile(r"(?:Of|As|By)\b")
BINARY = {".png", ".safetensors", ".gz", ".ico", ".woff2"}


def committed():
    """Files under version control, or on the way there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files are committed")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and "/vendor/" not in name]
    return [path for path in paths if path.suffix not in BINARY and path.is_file()]


def lines_with(pattern, suffixes=None):
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in committed()
        if suffixes is None or path.suffix in suffixes
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_committed_file_names_a_machine_or_a_mirror():
    assert lines_with(PLACES) == []


def test_nothing_unfinished_is_in_the_code():
    assert lines_with(UNFINISHED, {".py", ".sh", ".toml", ".yml"}) == []


def docstrings(source):
    """(line, text) of every docstring, those that stand under a constant or a field included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                match statement:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        yield statement.lineno, text


def begins_with_of_as_or_by(source):
    return [line for line, text in docstrings(source) if RELATIVE.match(text.strip())]


def test_no_docstring_begins_with_of_as_or_by():
    found = {}
    for path in committed():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py" and name.startswith(PACKAGES):
            lines = begins_with_of_as_or_by(path.read_text(encoding="utf-8"))
            if lines:
                found[name] = lines
    assert found == {}


def test_docstrings_of_every_place_are_looked_at():
    assert begins_with_of_as_or_by('"""Of a module."""') == [1]
    assert begins_with_of_as_or_by('class A:\n    x: int\n    """By the field."""') == [3]
    assert begins_with_of_as_or_by('async def f():\n    """\n    As another."""') == [2]
    assert begins_with_of_as_or_by('def f():\n    """Asks, bypasses, offers."""\n    return "Of a value"') == []


def test_the_patterns_find_what_they_are_for():
    assert PLACES.search("see " + "/work" + "/main")
    assert PLACES.search("https://mirror.example/pypi" + "/simple")
    assert not PLACES.search("https://download.pytorch.org/whl/cpu")
    assert UNFINISHED.search("# TO" + "DO: later")
