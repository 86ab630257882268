"""The documents say what there is: settings, calls, commands, links."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from app.cli import app as command_line
from app.main import create_app
from app.settings import Settings
from models.families import FAMILIES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "docs/decisions", "docs/paper", "sdk", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
    if path.is_file()
)
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
COMMANDS = typer.main.get_command(command_line).commands


def variable(field):
    return Settings.model_fields[field].validation_alias or f"GRADSMITH_{field.upper()}"


def in_words(value):
    """A default as the table of settings writes it."""
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("field", list(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(field):
    row = re.search(rf"^\| `{variable(field)}` \| (.+?) \| .{{10,}} \|$", OPERATIONS, re.M)
    assert row, f"docs/operations.md has no row for {variable(field)}"
    default = Settings.model_fields[field].default
    if default is not None:
        assert row.group(1) == f"`{in_words(default)}`"


def test_no_setting_is_documented_that_does_not_exist():
    known = {variable(field) for field in Settings.model_fields}
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", OPERATIONS, re.M))
    # The kernels are the SDK's, which has no Settings: what they read stands in these modules.
    kernels = ROOT / "sdk/gradsmith/rules/kernels"
    modules = "".join((kernels / name).read_text(encoding="utf-8") for name in ("native/build.py", "triton/choose.py"))
    modules += (ROOT / "models/families/plugins.py").read_text(encoding="utf-8")  # models read no Settings either
    of_the_kernels = set(re.findall(r"\"(GRADSMITH_[A-Z_]+|CXX)\"", modules))
    assert documented == known | of_the_kernels


def test_every_call_is_documented():
    text = re.sub(r"\{\w+\}", "{}", (ROOT / "docs/api.md").read_text())

    def shown(method, path):
        place = re.escape(re.sub(r"\{\w+\}", "{}", path))
        return re.search(rf"{method}\W+{place}(?![\w/{{])", text)

    calls = [
        (method.upper(), path)
        for path, methods in create_app(Settings()).openapi()["paths"].items()
        for method in methods
    ]
    assert calls
    assert [call for call in calls if not shown(*call)] == []


def test_the_page_of_the_doctor_shows_every_check():
    """`./run bench doctor > docs/doctor.md` writes it."""
    sources = "".join(path.read_text() for path in (ROOT / "app/doctor").glob("*.py"))
    checks = set(re.findall(r"\b(?:ok|warn|fail)\(\s*\"([a-z ]+)\"", sources))
    assert {"settings", "stored data", "families"} <= checks
    assert set(re.findall(r"^(?:ok|warn|fail) +([a-z ]+?)  ", (ROOT / "docs/doctor.md").read_text(), re.M)) == checks


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_of_the_server_is_documented(name):
    assert re.search(rf"`(?:gradsmith-server )?{name}[` ]", OPERATIONS)
    assert COMMANDS[name].help


def test_the_help_of_run_knows_the_options_of_serve():
    shown = subprocess.run([ROOT / "run", "serve", "--help"], capture_output=True, text=True, check=True).stdout
    options = {name for parameter in COMMANDS["serve"].params for name in parameter.opts} - {"--help"}
    assert options == {"--host", "--port", "--data", "--root-path", "--workers", "--api-processes"}
    assert options == set(re.findall(r"^  (--[\w-]+)", shown, re.M))


def test_the_help_of_run_knows_the_options_of_the_demo():
    shown = subprocess.run([ROOT / "run", "demo", "--help"], capture_output=True, text=True, check=True).stdout
    program = [sys.executable, ROOT / "examples" / "demo.py", "--help"]
    own = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  (--[\w-]+)", shown, re.M)) == set(re.findall(r"^  (--[\w-]+)", own, re.M))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/operations.md"])
def test_the_commands_that_documents_name_exist(document):
    named = set(re.findall(r"\./run ([a-z]+)", (ROOT / document).read_text()))
    assert named
    for command in named:
        answer = subprocess.run([ROOT / "run", command, "--help"], capture_output=True, text=True, check=False)
        assert answer.returncode == 0, f"{document} names ./run {command}"


def test_benchmarks_that_documents_name_exist():
    named = {name for path in DOCUMENTS for name in re.findall(r"\./run bench (\w+)", path.read_text())}
    assert named
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    programs |= {path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")}
    assert named - programs == set()


def test_the_readme_shows_the_two_commands_and_every_family():
    assert "./run demo" in README
    assert "./run test" in README
    for family in FAMILIES:
        assert f"`{family}`" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), f"{document.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", place.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_python_in_the_readme_compiles():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    for block in blocks:
        compile(block, "README.md", "exec")


def test_decisions_have_numbers_of_their_own_and_are_complete():
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert pages
    assert len({page.name[:4] for page in pages}) == len(pages)
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]}: ")
        for part in ("**Context.**", "**Decision.**", "**Consequences.**", "**Alternatives.**"):
            assert part in text, f"{page.name} has no {part}"


def test_the_index_of_decisions_lists_each_with_its_title_a_status_and_a_date():
    index = (ROOT / "docs/decisions/README.md").read_text()
    row = r"^\| \[(\d{4})\]\((\S+)\) \| (.+) \| (accepted|superseded by \[\d{4}\].*) \| \d{4}-\d\d-\d\d \|$"
    listed = [(number, name, title) for number, name, title, _ in re.findall(row, index, re.M)]
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    titles = [(page.name[:4], page.name, page.read_text().partition("\n")[0].partition(": ")[2]) for page in pages]
    assert listed == titles
