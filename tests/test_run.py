"""`./run` on machines where something is missing: one sentence that says what to do, before anything is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copy, which

import pytest
import typer
from typer.testing import CliRunner

from app.cli import app as server_program
from gradsmith.cli.program import program as client_program

ROOT = Path(__file__).parents[1]
COMMANDS = ["demo", "serve", "test", "check", "worker", "migrate", "data", "bench", "reproduce"]
SHELLS = [shell for shell in ("/bin/sh", which("dash"), which("bash"), which("busybox")) if shell]


def run(*arguments, at=ROOT, shell=None, **environment):
    """./run with this environment and no other."""
    command = [] if shell is None else [shell, *(["sh"] if shell.endswith("busybox") else [])]
    return subprocess.run(
        [*command, at / "run", *arguments],
        cwd=at,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def sentence(answer):
    """The one line on standard error of a call that was refused."""
    assert answer.returncode == 1, answer
    (line,) = answer.stderr.splitlines()
    assert line.startswith("gradsmith: ")
    return line


@pytest.fixture
def project(tmp_path):
    """A copy of the repository's set-up files, in which nothing is installed."""
    for name in ("run", "pyproject.toml", "constraints.txt", "sdk/pyproject.toml"):
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / "project" / name)
    return tmp_path / "project"


@pytest.fixture
def tools(tmp_path):
    """A PATH with the machine's plain tools and a way to add others; no Python on it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("awk", "cat", "cksum", "cut", "df", "grep", "mkdir", "rm", "sleep", "tail", "uname"):
        (folder / tool).symlink_to(which(tool))

    def add(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    add.path = str(folder)
    return add


@pytest.mark.parametrize("shell", SHELLS)
def test_alone_it_prints_help_that_names_every_command(shell):
    answer = run(shell=shell, PATH="")
    assert answer.returncode == 0
    assert not answer.stderr
    for command in COMMANDS:
        assert f"\n  {command} " in answer.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_without_an_installation(project, command):
    answer = run(command, "--help", at=project, PATH="")
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"Usage: ./run {command}")
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("worker", ["--queues", "--name", "--data"]),
        ("migrate", ["--data"]),
        ("data", ["fetch NAME", "import NAME FOLDER", "list", "--data"]),
    ],
)
def test_the_help_names_what_the_command_takes(command, words):
    shown = run(command, "--help", PATH="").stdout
    assert all(f"  {word}" in shown or f"[{word}" in shown for word in words)


def test_it_starts_from_any_folder(tmp_path):
    answer = subprocess.run(
        [ROOT / "run", "bench", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    programs = [path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("_")]
    programs += [path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")]
    assert {"core", "memory"} <= set(programs)
    assert sorted(answer.stdout.splitlines()[5:]) == [f"  {name}" for name in sorted(programs)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dance",), "there is no command 'dance'. See `./run --help`."),
        (("bench", "dance"), "there is no benchmark 'dance'. `./run bench --help` lists them."),
        (("srve",), "Did you mean 'serve'?"),
        (("serves",), "Did you mean 'serve'?"),
        (("dmeo",), "Did you mean 'demo'?"),
        (("famylies",), "Did you mean 'families'?"),
        (("bench", "memori"), "Did you mean 'memory'?"),
    ],
)
def test_an_unknown_command_or_benchmark_is_named_with_what_may_have_been_meant(arguments, message):
    answer = run(*arguments, PATH="")
    assert (answer.returncode, message in answer.stderr) == (2, True), answer.stderr


def test_the_three_programs_say_the_same_of_a_command_and_show_help_in_the_same_sections():
    """What ./run hands to gradsmith-server is summed up by the same sentence."""
    server = {name: command.help for name, command in typer.main.get_command(server_program).commands.items()}
    sections = r"^(\w+)(?: of \w+)?:$"
    for name in sorted(set(COMMANDS) & set(server)):
        shown = run(name, "--help", PATH="").stdout
        first = re.sub(r"\s+", " ", server[name]).partition(".")[0]
        assert first in re.sub(r"\s+", " ", shown), name
        assert set(re.findall(sections, shown, re.M)) <= {"Commands", "Arguments", "Options", "Environment"}
    for program in (server_program, client_program):
        shown = CliRunner().invoke(program, ["--help"], prog_name="it").stdout
        assert re.findall(sections, shown, re.M) == ["Commands", "Options"]
        assert shown.startswith("Usage: it COMMAND [OPTIONS]\n\n  ")
        assert shown.rstrip().endswith("`it COMMAND --help` says more.")
    shown = run("--help", PATH="").stdout
    assert re.findall(sections, shown, re.M) == ["Commands", "Options", "Environment"]
    assert shown.startswith("Usage: ./run COMMAND [OPTIONS]\n\n  ")
    assert shown.rstrip().endswith("`./run COMMAND --help` says more.")


def test_without_python_it_says_how_to_install_one(project):
    said = sentence(run("demo", at=project, PATH=""))
    assert "Python 3.11 or newer was not found" in said
    assert "sudo apt install python3 python3-venv" in said
    assert "brew install" in said
    assert not (project / ".venv").exists()


def test_a_python_that_is_too_old_is_named_with_its_version(project, tools):
    tools("python3", "echo 3.9")
    tools("python", "exit 1")
    said = sentence(run("test", at=project, PATH=tools.path))
    assert "python3 is 3.9" in said
    assert "python is broken" in said
    assert "sudo apt install" in said


@pytest.mark.parametrize(("named", "words"), [("/nowhere/python3", "no program"), ("old", "Python 3.8")])
def test_a_wrong_gradsmith_python_is_named(project, tools, named, words):
    tools("old", "echo 3.8")
    said = sentence(run("demo", at=project, PATH=tools.path, GRADSMITH_PYTHON=named))
    assert named in said
    assert words in said


def test_a_python_without_venv_is_told_which_package_brings_it(project, tools):
    # Debian's python3 without python3-venv: all is there but ensurepip.
    tools("python3", f'case "$*" in *ensurepip*) exit 1 ;; *) exec {sys.executable} "$@" ;; esac')
    said = sentence(run("serve", at=project, PATH=tools.path))
    assert f"python3.{sys.version_info.minor}-venv" in said


def test_too_little_disk_space_is_said_before_anything_is_made(project, tools):
    tools("python3", f'exec {sys.executable} "$@"')
    said = sentence(run("demo", at=project, PATH=tools.path, GRADSMITH_MIN_FREE_MB="999999999"))
    assert "MB are free in" in said
    assert "999999999 MB" in said
    assert not (project / ".venv").exists()


@pytest.mark.long
def test_a_half_made_environment_is_made_anew_and_a_failed_installation_leaves_no_stamp(project, tools):
    """With pip forbidden to use any index, the real script gets as far as pip and reports what pip said."""
    tools("python3", f'exec {sys.executable} "$@"')
    tools("nvidia-smi", "exit 0")  # keeps the CPU index out of it
    half_made = project / ".venv" / "bin" / "python"
    half_made.parent.mkdir(parents=True)
    half_made.symlink_to("/nowhere/python3")
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "GRADSMITH_MIN_FREE_MB": "1"}
    answer = run("demo", at=project, PATH=tools.path, **offline)
    assert answer.returncode == 1
    assert "gradsmith: making .venv with Python 3." in answer.stderr
    assert "the installation did not succeed" in answer.stderr.splitlines()[-1]
    assert "No matching distribution found" in (project / ".venv" / "install.log").read_text()
    assert not list((project / ".venv").glob(".installed-*"))


def test_a_fresh_stamp_means_that_nothing_is_installed_again(project, tools):
    """The stamp holds the projects' files, the Python and the folder; a change of any makes it stale."""
    tools("python3", "echo 3.9")  # an installation would stop here, with a sentence
    fake = project / ".venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text('#!/bin/sh\n[ "$1" != -V ] || { echo Python 3.12.0; exit; }\necho "ran $*; $GRADSMITH_COMMAND"\n')
    fake.chmod(0o755)
    files = b"".join(
        (project / name).read_bytes() for name in ("pyproject.toml", "sdk/pyproject.toml", "constraints.txt")
    )
    content = files + f"Python 3.12.0\n{project}\n".encode()
    stamp = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout
    (project / ".venv" / ".installed-run").write_bytes(stamp)

    answer = run("serve", "--port", "0", at=project, PATH=tools.path)
    # and what messages name as the next step is spelled as this script was called
    assert answer.stdout == f"ran -m app.cli serve --port 0; {project / 'run'}\n"
    assert "was not found" in sentence(run("check", at=project, PATH=tools.path))  # the tests' tools are not there yet
    with (project / "constraints.txt").open("a") as file:
        file.write("left-pad==1\n")
    assert "was not found" in sentence(run("serve", at=project, PATH=tools.path))


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_the_scripts_are_clean_shell(script):
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), ROOT / script], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
