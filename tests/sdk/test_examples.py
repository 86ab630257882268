"""The examples do what they say against the real service, and the demo leaves nothing behind, however it ends."""

from __future__ import annotations

import ast
import importlib.util
import os
import runpy
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import gradsmith
from gradsmith.rules.weights import load
from gradsmith.types import Job
from tests.sdk.conftest import SHORTEST

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(400),
    # the fixtures' rules learned for seconds, on small tasks
    pytest.mark.filterwarnings("ignore::gradsmith.OutsideTrainingWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def shortened(name: str, folder: Path, changes: dict[str, str]) -> Path:
    """The example with a smaller job: how it is used does not depend on its size."""
    whole = (EXAMPLES / name).read_text()
    for text, instead in changes.items():
        assert whole.count(text) == 1
        whole = whole.replace(text, instead)
    short = folder / name
    short.write_text(whole)
    return short


@pytest.fixture
def example(
    service_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What a script prints that runs in `tmp_path`, in this process: torch and scikit-learn are imported already."""
    monkeypatch.setenv("GRADSMITH_URL", service_url)
    monkeypatch.chdir(tmp_path)

    def run(script: Path, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        capsys.readouterr()
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", ["drop_in.py", "train_your_own.py"])
def test_an_example_is_under_40_lines(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 40


@pytest.mark.long
@pytest.mark.usefixtures("trained")
def test_drop_in_trains_a_network(example: Callable[..., str]) -> None:
    lines = example(EXAMPLES / "drop_in.py").splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["step", str(step)] for step in (20, 40, 60, 80, 100)]
    assert "of 397 digits" in lines[-1]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:job .* succeeded, but worse_than_standing_still:UserWarning")  # one meta-step
@pytest.mark.parametrize(
    ("family", "meta_steps", "first_loss", "whole"),
    [
        pytest.param("quadratic", 5, lambda loss: loss > 10, True, marks=pytest.mark.slow),
        # cross-entropy of ten classes that nothing is known about
        ("digits-mlp", 1, lambda loss: 2.0 < loss < 3.0, False),
        pytest.param("digits-mlp", 1, lambda loss: 2.0 < loss < 3.0, True, marks=pytest.mark.slow),
    ],
)
def test_train_your_own_ends_with_weights_in_use_on_a_task_of_the_family(
    example: Callable[..., str],
    tmp_path: Path,
    family: str,
    meta_steps: int,
    first_loss: Callable[[float], bool],
    whole: bool,
) -> None:
    small = 'recipe=recipe | {"tasks": 1, "horizon": 20, "validation_tasks": 1}'
    name = "train_your_own.py"
    script = EXAMPLES / name if whole else shortened(name, tmp_path, {"recipe=recipe": small})
    said = example(script, family, str(meta_steps))
    assert f"meta-step {meta_steps:5d}" in said
    assert load(tmp_path / f"{family}.safetensors").kind == "hyper"
    steps = [line.split() for line in said.splitlines() if line.startswith("step ")]
    assert [step for _, step, _, _ in steps] == ["0", "20", "40", "60", "80", "100"]
    assert first_loss(float(steps[0][-1]))


@pytest.mark.parametrize("name", ["drop_in.py", "train_your_own.py"])
def test_an_example_says_how_to_call_it_in_a_checkout(name: str) -> None:
    documentation = ast.get_docstring(ast.parse((EXAMPLES / name).read_text())) or ""
    assert f"\n.venv/bin/python examples/{name} [" in documentation


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
def demo(
    data: Path, *arguments: str, script: Path = EXAMPLES / "demo.py"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    mark = f"gradsmith-demo-{uuid.uuid4().hex}"
    process = subprocess.Popen(
        [sys.executable, "-u", str(script), "--data", str(data), *arguments],
        cwd=data.parent,
        env={**os.environ, "GRADSMITH_TEST_MARK": mark, "GRADSMITH_WARM_SPARE": "false"},
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
    half_written = [path.name for path in data.rglob("*") if path.suffix in (".part", ".partial")]
    assert half_written == []
    assert not (data / "server.json").exists()


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = f"evaluation={SHORTEST}"
    recipe = "{'meta_steps': meta_steps, 'tasks': 4, 'validation_tasks': 4, 'horizon': 20}"
    changes = {"metadata=LABEL)\n    seen": f"metadata=LABEL, {plan})\n    seen", '{"meta_steps": meta_steps}': recipe}
    return shortened("demo.py", tmp_path_factory.mktemp("demo"), changes)


@pytest.fixture(scope="module")
def demo_module(short_demo: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gradsmith_demo", short_demo)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demo_tells_both_verdicts_each_against_its_own_best_baseline(
    demo_module: ModuleType, service: gradsmith.Client, trained: Job
) -> None:
    assert trained.evaluation is not None
    report = service.jobs.report(service.jobs.wait(trained.evaluation, timeout_seconds=100))
    for criterion, place in (("final", "At the end"), ("area", "Over the whole curve")):
        best = report.comparisons["best_baseline"][criterion]
        said = demo_module.verdict(report, criterion)
        assert said.startswith(f"  {place} ")
        assert f"[bold]{report.verdict[criterion]}[/] against {best['baseline']}," in said
        assert f"mean x {best['ratio_of_means']:.3g}" in said
        table = demo_module.results(report, criterion)
        names, means = (list(column.cells) for column in table.columns[:2])
        assert names == list(report.optimizers)
        assert means == [demo_module.number(report.optimizers[name][criterion]["mean"]) for name in names]


def test_the_demo_names_the_stores_to_go_on_with_and_none_of_their_secrets(demo_module: ModuleType) -> None:
    plain = demo_module.how_to_go_on(Path("my data"), {})
    assert plain == "To continue with the same data:  ./run serve --data 'my data'"
    urls = {"DATABASE_URL": "postgresql://u:topsecret@h/x", "REDIS_URL": "redis://:topsecret@h"}
    both = demo_module.how_to_go_on(Path("var/demo"), urls)
    assert both.endswith("with DATABASE_URL and REDIS_URL set as for this demo:  ./run serve --data var/demo")
    assert "topsecret" not in both
    assert "with REDIS_URL set" in demo_module.how_to_go_on(Path("x"), {"REDIS_URL": "redis://h"})


# what the demo says when it has done its work
RESULT = (
    "At the end the learned optimizer ",
    "Over the whole curve the learned optimizer ",
    "Training loss of a linear model",
)


def assert_it_left_what_it_promised(said: str, data: Path, version: int) -> None:
    assert [part for part in RESULT if part not in said] == []
    assert load(data / f"quadratic-{version}.safetensors").kind == "hyper"
    assert (data / f"quadratic-{version}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
@pytest.mark.usefixtures("trained")
@pytest.mark.filterwarnings("ignore:job .* succeeded, but worse_than_standing_still:UserWarning")  # five meta-steps
def test_the_demo_ends_with_a_trained_model(
    demo_module: ModuleType,
    service_url: str,
    service: gradsmith.Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its four steps against the service that stands here; it starts one of its own in the tests below."""
    demo_module.demonstrate(service_url, tmp_path, 5)
    [job] = service.jobs.list(metadata=demo_module.LABEL, kind="meta_train")
    made = service.optimizers.get(str(job.optimizer))
    assert_it_left_what_it_promised(capsys.readouterr().out, tmp_path, made.version)


@pytest.mark.slow
@needs_proc
def test_the_whole_demo_keeps_serving_when_asked_and_leaves_nothing(short_demo: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with demo(data, "--meta-steps", "5", "--keep", script=short_demo) as (process, mark):
        said = read_until(process, "until Ctrl-C")
        assert_it_left_what_it_promised(said, data, 1)
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
        # what a killed `serve` leaves, test_supervise.py looks for
        pytest.param(signal.SIGKILL, "1. Starting", 1.5, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "2. Meta-training", 2.0, marks=pytest.mark.slow),
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
            deadline = time.monotonic() + 30
            while processes_with(mark) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert processes_with(mark) == {}
        else:
            assert process.returncode == 128 + signum
            assert "Stopped; nothing is left running." in rest.splitlines()[-1]
            assert_nothing_is_left(mark, data)
