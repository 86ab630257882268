"""The examples do what they say against the real service, and the demo leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gradsmith.rules.weights import load

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("sdk_service"), pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def example(name: str, *arguments: str, url: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "GRADSMITH_URL": url},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["drop_in.py", "train_your_own.py"])
def test_an_example_is_under_40_lines(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 40


@pytest.mark.usefixtures("trained")
def test_drop_in_trains_a_network(service_url: str, tmp_path: Path) -> None:
    lines = example("drop_in.py", url=service_url, folder=tmp_path).splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["step", str(step)] for step in (20, 40, 60, 80, 100)]
    assert "of 397 digits" in lines[-1]


def test_train_your_own_ends_with_weights_in_use(service_url: str, tmp_path: Path) -> None:
    said = example("train_your_own.py", "quadratic", "5", url=service_url, folder=tmp_path)
    assert "meta-step     5" in said
    assert load(tmp_path / "quadratic.safetensors").kind == "lstm"
    assert said.splitlines()[-1].startswith("step 100  loss ")


# --- the demo -----------------------------------------------------------------------------------------------------

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


def processes_with(mark: str) -> dict[int, str]:
    """The command lines of all living processes that have inherited our mark in their environment."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found


@contextmanager
def demo(data: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    mark = f"gradsmith-demo-{uuid.uuid4().hex}"
    process = subprocess.Popen(
        [sys.executable, "-u", str(EXAMPLES / "demo.py"), "--data", str(data), *arguments],
        cwd=data.parent,
        env={**os.environ, "GRADSMITH_TEST_MARK": mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, mark
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was never said:\n{said}")


def assert_nothing_is_left(mark: str, data: Path) -> None:
    assert processes_with(mark) == {}
    assert [path.name for path in data.rglob("*.part")] == []
    assert not (data / "server.json").exists()


@needs_proc
def test_the_demo_ends_with_a_trained_model_and_keeps_serving_when_asked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with demo(data, "--meta-steps", "5", "--keep") as (process, mark):
        said = read_until(process, "until Ctrl-C")
        assert "Against the best of them all" in said
        assert "Training loss of a linear model" in said
        assert load(data / "quadratic-1.safetensors").kind == "lstm"
        assert (data / "quadratic-1.png").read_bytes().startswith(b"\x89PNG")
        assert any("uvicorn" in command or "app." in command for command in processes_with(mark).values())
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0, rest
        assert f"./run serve --data {data}" in rest
        assert_nothing_is_left(mark, data)


@needs_proc
@pytest.mark.parametrize(
    ("signum", "after", "pause_seconds"),
    [
        (signal.SIGINT, "1. Starting", 0.3),
        (signal.SIGKILL, "1. Starting", 1.5),
        (signal.SIGTERM, "2. Meta-training", 2.0),
    ],
)
def test_whenever_the_demo_is_stopped_it_leaves_nothing(
    tmp_path: Path, signum: signal.Signals, after: str, pause_seconds: float
) -> None:
    data = tmp_path / "data"
    with demo(data, "--meta-steps", "10000") as (process, mark):
        read_until(process, after)
        time.sleep(pause_seconds)
        process.send_signal(signum)
        rest, _ = process.communicate(timeout=60)
        assert "Traceback" not in rest
        if signum == signal.SIGKILL:  # nothing can be tidied up then, but no process may live on
            assert process.returncode == -signum
            deadline = time.monotonic() + 10
            while processes_with(mark) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert processes_with(mark) == {}
        else:
            assert process.returncode == 128 + signum
            assert_nothing_is_left(mark, data)
