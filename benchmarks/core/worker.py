"""The process around a peer: `python -m benchmarks.core.worker PEER PROBLEM WEIGHTS CPUS`.

It answers one JSON line for each line it reads: {"do": "gradient", "to": path}, {"do": "run", "meta_steps": n},
{"do": "profile", "meta_steps": n}, {"do": "memory"}, {"do": "forget_peak"}. What the peer prints goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.core import problem


def main() -> None:
    peer_name, problem_path, weights_path, cpus = sys.argv[1:]
    threads = len(cpus.split(","))
    # Before torch and XLA are imported: both size their thread pools by what they may run on.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = importlib.import_module(f"benchmarks.core.peers.{peer_name}")
    with np.load(weights_path) as file:
        weights = {name: file[name] for name in file.files}
    peer = module.make(problem.load(Path(problem_path)), weights, threads)
    alone = getattr(peer, "processes", 1) == 1  # what others hold is not ours to see
    base = _memory().get("now") if alone else None
    _say(replies, {"about": peer.about, "counted_losses": peer.counted_losses, "base": base})
    peer.begin()
    for line in sys.stdin:
        _say(replies, _answer(peer, json.loads(line)))


def _answer(peer: Any, request: dict[str, Any]) -> dict[str, Any]:
    started, computed = time.perf_counter(), time.process_time()
    if request["do"] == "gradient":
        np.savez(request["to"], **peer.gradient())
    elif request["do"] == "run":
        peer.run(request["meta_steps"])
    elif request["do"] == "profile":
        return {"profile": peer.profile(request["meta_steps"])}
    elif request["do"] == "forget_peak":
        _forget_peak()
    seconds, busy = time.perf_counter() - started, time.process_time() - computed
    return {"seconds": seconds, "busy_seconds": busy, "memory": _memory()}


def _memory() -> dict[str, float]:
    """Resident megabytes of this process, now and at its peak; empty where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {}
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: int(fields[field].split()[0]) / 1024 for name, field in (("now", "VmRSS"), ("peak", "VmHWM"))}


def _forget_peak() -> None:
    """Let the peak begin anew at what is resident now: compilation is not what we want to know."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def _say(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
