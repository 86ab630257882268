"""Worker processes, seen from the benchmark: start one, ask it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.core.environment import ROOT
from benchmarks.core.peers.base import Weights

OURS, OURS_IN_PROCESSES, OURS_WITHOUT_TAPE = "ours", "ours_in_processes", "ours_without_tape"
PLAIN, JAX, LEARNED_OPTIMIZATION = "plain_torch", "jax_scan", "learned_optimization"
OWN = (OURS, OURS_IN_PROCESSES)
PLAIN_EXACT, JAX_EXACT = "plain_torch_exact", "jax_exact"
HERE = (*OWN, OURS_WITHOUT_TAPE, PLAIN, PLAIN_EXACT)
"""These run in our environment, the others in theirs."""
PEERS = (*OWN, PLAIN, JAX, LEARNED_OPTIMIZATION)
EXACT_PEERS = (OURS, PLAIN_EXACT, JAX_EXACT)
"""Who computes meta-gradients with second derivatives."""

REPLY_SECONDS = 300.0  # the longest answer is a compilation; a process that says nothing for longer is stuck


class WorkerDied(Exception):
    """A peer's process ended, or was ended because it was stuck; the message holds its last words."""


class Ran(NamedTuple):
    """What a turn took: by the clock, and of the processor (all threads of the process)."""

    seconds: float
    busy_seconds: float


@dataclass(frozen=True)
class Bench:
    """Where workers work. `peers_python` is None where the peers' environment is not to be had."""

    folder: Path
    peers_python: Path | None

    @property
    def weights(self) -> Path:
        return self.folder / "weights.npz"


class Worker:
    """One peer on one problem in a process of its own, on `threads` CPUs. A context manager."""

    def __init__(self, bench: Bench, peer: str, problem_file: Path, threads: int) -> None:
        self.peer = peer
        python = Path(sys.executable) if peer in HERE else bench.peers_python
        assert python is not None
        self._log = bench.folder / f"{peer}.log"
        with self._log.open("w") as log:
            arguments = [peer, str(problem_file), str(bench.weights), cpus(threads)]
            self._process = subprocess.Popen(
                [str(python), "-m", "benchmarks.core.worker", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
                env=os.environ | _environment(threads),
            )  # fmt: skip
        try:
            hello = self._reply()
        except WorkerDied:
            self.__exit__()
            raise
        self.about: dict[str, str] = hello["about"]
        self.counted_losses: int = hello["counted_losses"]
        self.base_megabytes: float | None = hello["base"]

    def gradient(self, to: Path) -> Weights:
        self._ask({"do": "gradient", "to": str(to)})
        with np.load(to) as file:
            return {name: file[name] for name in file.files}

    def run(self, meta_steps: int) -> Ran:
        answer = self._ask({"do": "run", "meta_steps": meta_steps})
        return Ran(answer["seconds"], answer["busy_seconds"])

    def profile(self, meta_steps: int) -> dict[str, float]:
        """Seconds of a meta-step by its parts; ours alone."""
        found: dict[str, float] = self._ask({"do": "profile", "meta_steps": meta_steps})["profile"]
        return found

    def forget_peak(self) -> None:
        self._ask({"do": "forget_peak"})

    def peak_megabytes(self) -> float | None:
        return self._ask({"do": "memory"})["memory"].get("peak")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # the worker's loop ends with its input
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerDied(self._last_words()) from error
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        # One line answers one request, so nothing waits in Python's buffer when the pipe is empty.
        if not select.select([self._process.stdout], [], [], REPLY_SECONDS)[0]:
            self._process.kill()
        line = self._process.stdout.readline()
        if not line:
            raise WorkerDied(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _last_words(self) -> str:
        self._process.wait()
        words = self._log.read_text(errors="replace").strip().splitlines()[-4:]
        return f"{self.peer} ended with {self._process.returncode}: {' / '.join(words) or 'without a word'}"


def cpus(threads: int) -> str:
    """The CPUs that a process of so many threads is bound to: always the same ones, so that peers are equals."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return ",".join(str(cpu) for cpu in allowed[:threads])


def cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(threads: int) -> dict[str, str]:
    eigen = "true" if threads > 1 else "false"
    return {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen}",
        "NPROC": str(threads),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}",
    }
