"""This machine: the data folder and its disk; and what its workers would have, asked of a program of theirs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import private
from app.commands import command
from app.doctor.findings import Finding, fail, ok, warn
from app.settings import Settings
from app.store.sqlite import file_of

if TYPE_CHECKING:
    from app.doctor import Patient

PROBE = "workers.probe"  # named, never imported: it brings torch
PROBE_SECONDS = 120.0  # a first compilation of the kernel is among it


def data_folder(patient: Patient) -> Iterator[Finding]:
    folder = patient.settings.data_dir.resolve()
    if not folder.exists():
        if os.access(_nearest(folder), os.W_OK):
            yield warn(
                "data folder",
                f"there is none yet at {folder}",
                f"{command('serve', patient.settings)} makes it; if the service has another, name that: --data FOLDER",
            )
        else:
            yield fail("data folder", f"{folder} is not there and cannot be made", "choose another: --data FOLDER")
        return
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
            probe.write(b"x" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        yield fail(
            "data folder",
            f"{folder} cannot be written: {error.strerror}",
            f"give it to the user that runs Gradsmith (`chown -R USER {shlex.quote(str(folder))}`), or choose another: "
            "--data FOLDER",
        )
        return
    yield _of_rights(patient.settings, folder)


def _of_rights(settings: Settings, folder: Path) -> Finding:
    database = file_of(settings.resolved_database_url)
    if database is None or not database.exists() or not private.others_reach(database):
        return ok("data folder", f"{folder} is writable")
    place = shlex.quote(str(database.parent))
    return warn(
        "data folder",
        f"{folder} is writable, and other users of this machine can read {database.name}: users' jobs, hashes of keys",
        f"`chmod 700 {place} && chmod 600 {shlex.quote(str(database))}*`",
    )


def disk(patient: Patient) -> Iterator[Finding]:
    place = _nearest(patient.settings.data_dir.resolve())
    usage = shutil.disk_usage(place)
    free, wanted = usage.free, patient.free_bytes
    shown = f"{_size(free)} free of {_size(usage.total)} at {place}"
    advice = "make room: old backups, what `restore` kept in `replaced-*`, `logs/*.log.1`"
    if free < wanted:
        yield fail("disk", f"{shown}; {_size(wanted)} should be free", advice)
    elif free < 4 * wanted:
        yield warn("disk", f"{shown}: not much", advice)
    else:
        yield ok("disk", shown)


def what_workers_have(patient: Patient) -> Iterator[Finding]:
    """Families, data sets, the kernel and the GPU, as a worker on this machine would find them."""
    environment = {**os.environ, "GRADSMITH_DATA_DIR": str(patient.settings.data_dir.resolve())}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", PROBE],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
        told: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        yield fail("torch", f"did not answer within {PROBE_SECONDS:.0f} s", "is this machine overloaded?")
        return
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        yield fail("torch", f"the workers' part ended with {done.returncode}: {last}", "install it anew")
        return
    yield from of_probe(told, patient.settings)


def of_probe(told: dict[str, Any], settings: Settings) -> Iterator[Finding]:
    """Findings from what `workers.probe` printed."""
    if told["torch"] is None:
        yield warn(
            "torch",
            "is not installed here: an API needs none, a worker does",
            "on machines with workers: pip install 'gradsmith-server[worker]'",
        )
    else:
        yield ok("torch", f"{told['torch']}, {told['cpus']} CPUs")
    yield from _of_families(told["families"])
    for name, wrong in told["datasets"].items():
        if wrong is None:
            yield ok("data sets", f"{name} is ready")
            continue
        found, advice = _found_and_advice(wrong["message"])
        if wrong["fetched"]:  # theirs names the commands of a checkout and those of an installation
            advice = ("delete it, then " if wrong["damaged"] else "") + (
                f"{command(f'data fetch {name}', settings)}, or without a network "
                f"{command(f'data import {name} FOLDER', settings)}"
            )
        yield fail("data sets", found, advice) if wrong["damaged"] else warn("data sets", found, advice)
    if told["torch"] is not None:
        yield _of_kernel(told["kernel"], told["kernel_reason"], told["kernel_others"])
        yield _of_gpus(told)


def _of_kernel(kernel: str, reason: str | None, others: str | None) -> Finding:
    """kernel: what runs the usual LSTM rule; reason: what was logged about it; others: why rules of other sizes have no
    kernel here."""
    advice = "is there a C++ compiler (`apt install g++`, or CXX)? docs/operations.md, Settings"
    if reason and "GRADSMITH_KERNELS" in reason:
        advice = "build the image again; without one: `python -m gradsmith.rules.kernels.native FOLDER`"
    if not kernel.startswith("native"):
        if reason is None:
            return warn(
                "kernel",
                "LSTM rules run through torch, more slowly: GRADSMITH_NATIVE=off",
                "unset it, unless it was meant",
            )
        why = reason.partition(" This rule runs through torch")[0].rstrip(".")
        return warn("kernel", f"LSTM rules run through torch, more slowly: {why}", advice)
    if reason is not None:
        return warn("kernel", f"{kernel} runs LSTM rules on the CPU, after a warning: {reason}", advice)
    if others is not None:
        why, _, what_to_do = others.partition("; ")
        return warn(
            "kernel",
            f"{kernel} runs LSTM rules of the usual sizes on the CPU, all others run through torch, more slowly: {why}",
            what_to_do or advice,
        )
    return ok("kernel", f"{kernel} runs LSTM rules on the CPU")


def _of_families(told: dict[str, Any]) -> Iterator[Finding]:
    broken = [reason for reason in told["kinds"].values() if reason is not None]
    if not broken and not told["problems"]:
        yield ok("families", f"kinds: {', '.join(told['kinds'])}")
        return
    for problem in told["problems"]:
        yield fail(
            "families",
            f"the plug-in {problem['plugin']} could not be loaded: {problem['reason']}",
            "mend it (the logs of the API and of workers have its traceback), or uninstall it; docs/extending.md",
        )
    for reason in broken:
        yield fail("families", *_found_and_advice(reason))


def _of_gpus(told: dict[str, Any]) -> Finding:
    if told["gpus"]:
        return ok("gpu", ", ".join(told["gpus"]))
    if told["driver"]:
        return warn(
            "gpu",
            f"there is a driver, and torch {told['torch']} does not see a GPU ({told['cuda'] or 'a build for CPUs'})",
            "install a CUDA build of torch that this driver runs (docker compose --profile gpu brings one)",
        )
    return ok("gpu", "none here; jobs for the queue gpu need a worker elsewhere")


def _found_and_advice(message: str) -> tuple[str, str]:
    found, _, advice = message.rstrip(".").partition(". ")
    return found, advice


def _nearest(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _size(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.0f} MiB"
