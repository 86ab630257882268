"""The whole of Gradsmith in a minute: `./run demo [--keep] [--data DIR] [--meta-steps N]`.

Starts the service on a free port, meta-trains an optimizer on random quadratics through the public API, has it
measured against tuned baselines on problems that it never saw, pulls the weights, and trains a real model with them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

import gradsmith
from app.host.tether import tethered
from gradsmith.events import LogEvent, MetricsEvent, ResumedEvent
from gradsmith.types import Job, Report

FAMILY = "quadratic"
LABEL = {"made_by": "demo"}
HEADING = {"final": "Loss at the end of {} steps", "area": "Mean loss over all {} steps"}
PLACE = {"final": "At the end", "area": "Over the whole curve"}
START_SECONDS = 60
STOP_SECONDS = 20
LINE_EVERY_SECONDS = 5  # where there is no terminal to draw a bar on

# A pipe or a log has no width of its own; 100 columns hold the tables.
console = Console(width=None if sys.stdout.isatty() else 100, soft_wrap=True)


class Stop:
    """SIGINT, SIGTERM and SIGHUP become SystemExit: once, and never while a process is being started or ended.

    A SIGHUP that `nohup` had ignored stays ignored.
    """

    def __init__(self) -> None:
        self._held = False
        self._pending: int | None = None
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._received)

    def _received(self, signum: int, _frame: FrameType | None) -> None:
        self._pending = self._pending or signum
        if not self._held:
            self._held = True  # the way out is not interrupted again
            raise SystemExit(128 + signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        self._held = True
        yield
        if self._pending:
            raise SystemExit(128 + self._pending)
        self._held = False

    def hold(self) -> None:
        self._held = True


@contextmanager
def service(data: Path, stop: Stop) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Gradsmith server of our own on a free port; gone when this ends, and also when this program is killed."""
    record, log = data / "server.json", data / "logs" / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    before = record.read_text() if record.exists() else None
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", str(data)]
    process: subprocess.Popen[bytes] | None = None
    try:
        with stop.held(), log.open("wb") as output:
            # A session of its own: Ctrl-C reaches this program alone, which then ends the server in order.
            process = subprocess.Popen(
                tethered(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            now = record.read_text() if record.exists() else None
            if now is not None and now != before:
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The server did not start. It said:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield json.loads(now)["url"], process
    finally:
        stop.hold()
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # everything below dies with it
                process.wait()


class Meter:
    """A progress bar on a terminal, and a plain line every few seconds elsewhere."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.printed, self.last = time.monotonic(), 0
        columns = (TextColumn("  {task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[said]}"))
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task(title, total=total, said="")

    def __enter__(self) -> Meter:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, step: int, total: int, said: str) -> None:
        self.bar.update(self.task, completed=step, total=total or None, said=said)
        now = time.monotonic()
        if not console.is_terminal and (now - self.printed >= LINE_EVERY_SECONDS or 0 < total == step > self.last):
            self.printed, self.last = now, step
            print(f"  {self.title}: {said}", flush=True)


def clear_leftovers(client: gradsmith.Client) -> None:
    """A demo that was interrupted left its job to be taken up again; it would stand in front of ours."""
    for job in client.jobs.list(metadata=LABEL, limit=100):
        if not job.finished:
            client.jobs.cancel(job)
            console.print(f"  cancelled {job.id}, which an earlier demo left unfinished")


def meta_train(client: gradsmith.Client, meta_steps: int) -> Job:
    job = client.jobs.create(family=FAMILY, seed=1, recipe={"meta_steps": meta_steps}, metadata=LABEL)
    seen: list[tuple[float, int]] = []  # (moment, meta-step), for the speed of the last seconds
    # One window of a trajectory starts at a loss of 100 and another ends near 0: the mean of a whole one is steady.
    windows = job.spec["recipe"]["horizon"] // job.spec["recipe"]["unroll_steps"]
    losses: deque[float] = deque(maxlen=windows)
    with Meter("meta-training", meta_steps) as meter:
        meter.show(0, meta_steps, "waiting for the worker")
        for event in client.jobs.stream(job):
            if isinstance(event, MetricsEvent):
                step = event.step[-1]
                losses.extend(event.loss)
                seen = [*seen[-20:], (time.monotonic(), step)]
                (then, first), (now, _) = seen[0], seen[-1]
                said = f"{step}/{meta_steps}  loss {fmean(losses):.3g}"
                if now > then:
                    speed = (step - first) / (now - then)
                    said += f"  {speed:.1f} meta-steps/s  ETA {(meta_steps - step) / max(speed, 1e-9):.0f} s"
                meter.show(step, meta_steps, said)
            elif isinstance(event, LogEvent):
                console.print(f"  {event.message}")
            elif isinstance(event, ResumedEvent):
                seen = []
    return client.jobs.wait(job)


def evaluate(client: gradsmith.Client, job: Job) -> tuple[Job, Report]:
    """Wait for the evaluation that the service began by itself when the training was over."""
    if job.evaluation is None:
        raise SystemExit(f"Job {job.id} has no evaluation; was it made with evaluate=False?")
    with Meter("measuring against tuned baselines", 0) as meter:
        while not (evaluation := client.jobs.get(job.evaluation)).finished:
            progress = evaluation.progress
            eta = f"  ETA {progress.eta_seconds:.0f} s" if progress.eta_seconds is not None else ""
            meter.show(progress.step, progress.total, f"{progress.step}/{progress.total}{eta}")
            time.sleep(0.25)
    return client.jobs.wait(evaluation), client.jobs.report(evaluation)


def results(report: Report, criterion: str) -> Table:
    """One of the two comparisons: the loss at the end (`final`), or its mean over all steps (`area`)."""
    table = Table(
        title=f"{HEADING[criterion].format(report.horizon)}, on {report.test_tasks} problems that none of them has seen"
    )
    for heading in ("optimizer", "mean", "median", "ratio", "95 % interval", "tasks won", "learned"):
        table.add_column(heading, justify="left" if heading == "optimizer" else "right")
    for name, both in report.optimizers.items():
        measured, against = both[criterion], report.comparisons.get(name, {}).get(criterion)
        row = [name, number(measured["mean"]), number(measured["median"])]
        if against:
            interval = " - ".join(number(bound) for bound in against["ratio_interval"])
            row += [number(against["ratio_of_means"]), interval, f"{against['share_won']:.0%}", against["verdict"]]
        table.add_row(*row, style="bold" if name == "learned" else "")
    return table


def verdict(report: Report, criterion: str) -> str:
    """Against the baseline that is best by this criterion, each with the learning rate that was tuned for it."""
    best = report.comparisons["best_baseline"][criterion]
    mean, median = number(best["ratio_of_means"]), number(best["ratio_of_medians"])
    return (
        f"  {PLACE[criterion]} the learned optimizer [bold]{best['verdict']}[/] against {best['baseline']}, "
        f"the best baseline there: mean x {mean}, median x {median}."
    )


def number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3g}"


def train_a_model(weights: Path) -> Table:
    """Linear regression on 442 real patients (ten measurements each): the learned optimizer against Adam."""
    import torch
    from sklearn.datasets import load_diabetes

    measured, progression = (torch.tensor(array, dtype=torch.float32) for array in load_diabetes(return_X_y=True))
    measured = (measured - measured.mean(0)) / measured.std(0)
    progression = (progression - progression.mean()) / progression.std()

    def losses(optimizer_of: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer]) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Linear(10, 1)
        torch.nn.init.normal_(model.weight)
        optimizer = optimizer_of(model.parameters())
        curve = []
        for _ in range(101):
            optimizer.zero_grad()
            loss = (model(measured)[:, 0] - progression).square().mean()
            loss.backward()
            curve.append(loss.item())
            optimizer.step()
        return curve

    with warnings.catch_warnings():  # the results above say already which baseline did better
        warnings.simplefilter("ignore", gradsmith.OutsideTrainingWarning)
        learned = losses(lambda parameters: gradsmith.LearnedOptimizer(parameters, weights))
    rates = [10 ** (exponent / 4) for exponent in range(-12, 3)]
    runs = {rate: losses(partial(torch.optim.Adam, lr=rate)) for rate in rates}
    best = min(runs, key=lambda rate: runs[rate][-1])
    table = Table(title="Training loss of a linear model of 442 real patients")
    for heading in ("optimizer", "start", "step 10", "step 20", "step 50", "step 100"):
        table.add_column(heading, justify="left" if heading == "optimizer" else "right")
    rows = {
        "learned, first try": learned,
        f"Adam, best of {len(rates)} tries": runs[best],
        "Adam, lr 0.001": runs[10**-3],
    }
    for name, curve in rows.items():
        table.add_row(name, *(number(curve[step]) for step in (0, 10, 20, 50, 100)))
    return table


def write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def demonstrate(url: str, data: Path, meta_steps: int) -> None:
    with gradsmith.Client(url) as client:
        clear_leftovers(client)
        console.print(f"2. Meta-training an optimizer on the family '{FAMILY}': {meta_steps} meta-steps")
        job = meta_train(client, meta_steps)
        console.print("3. Measuring it against hand-made optimizers, each with a tuned learning rate")
        evaluation, report = evaluate(client, job)
        for criterion in HEADING:
            console.print(results(report, criterion))
            console.print(verdict(report, criterion))
        optimizer = client.optimizers.get(job.optimizer or f"{FAMILY}@latest")
        picture = data / f"{FAMILY}-{optimizer.version}.png"
        write_whole(picture, client.jobs.report_png(evaluation))
        console.print(f"4. Pulling {optimizer.reference} and training a model with it, one line of a PyTorch loop")
        weights = client.optimizers.pull(optimizer.id, data / f"{FAMILY}-{optimizer.version}.safetensors")
    console.print(train_a_model(weights))
    console.print(f"The picture:  {picture}\nThe weights:  {weights}")


def how_to_go_on(data: Path, environment: Mapping[str, str]) -> str:
    """The command that serves what the demo made; the URLs of the stores hold passwords, so they are only named."""
    stores = [name for name in ("DATABASE_URL", "REDIS_URL") if environment.get(name) is not None]
    needed = f", with {' and '.join(stores)} set as for this demo" if stores else ""
    return f"To continue with the same data{needed}:  ./run serve --data {shlex.quote(str(data))}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description="The whole of Gradsmith in a minute.")
    parser.add_argument("--keep", action="store_true", help="go on serving until Ctrl-C")
    parser.add_argument("--data", type=Path, default=Path("var/demo"), metavar="DIR", help="default: var/demo")
    parser.add_argument("--meta-steps", type=int, default=550, metavar="N", help="default: 550")
    options = parser.parse_args()
    started, stop = time.monotonic(), Stop()
    try:
        console.print("1. Starting the service")
        with service(options.data, stop) as (url, process):
            console.print(f"  ready at {url} after {time.monotonic() - started:.0f} s")
            demonstrate(url, options.data, options.meta_steps)
            console.print(f"Done in {time.monotonic() - started:.0f} s.")
            if options.keep:
                try:
                    console.print(f"The service goes on at {url} until Ctrl-C.")
                    return process.wait()
                except SystemExit:
                    console.print("Stopping the service.")
    except BrokenPipeError:  # whoever read our lines has gone, as in `./run demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except gradsmith.GradsmithError as error:
        console.print(f"The demo stopped: {error}\nThe logs are in {options.data / 'logs'}.", markup=False)
        return 1
    except SystemExit as end:
        if end.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            console.print("Stopped; nothing is left running. The next ./run demo with the same --data starts anew.")
        raise
    console.print(how_to_go_on(options.data, os.environ), markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
