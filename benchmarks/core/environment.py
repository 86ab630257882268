"""The peers' own Python environments, made once, from pinned packages: var/bench-venv for the core's. Ours stays as it
is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("peers-requirements.txt")
FOLDER = ROOT / "var" / "bench-venv"


class PeersUnavailable(Exception):
    """The peers' packages cannot be had here; the message says why."""


def peers_python() -> Path:
    """The Python of the peers' environment, which is installed first where it is missing or stale.

    Raises PeersUnavailable with pip's last words.
    """
    return python_of(FOLDER, REQUIREMENTS, "about 600 MB")


def python_of(folder: Path, requirements: Path, size: str) -> Path:
    """The Python of an environment in `folder`, made from `requirements` where it is missing or stale; all of them are
    pinned there, dependencies too. size: for whoever waits. Raises PeersUnavailable with pip's last words."""
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing the peers' packages into {folder.relative_to(ROOT)} ({size}, once) ...", flush=True)
    _call([sys.executable, "-m", "venv", "--clear", str(folder)])
    # Without what they ask for themselves: learned_optimization names versions that are long gone.
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _call([str(python), *install, "-r", str(requirements)])
    stamp.write_text(wanted)
    return python


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise PeersUnavailable(f"{' '.join(command[1:4])} ended with {done.returncode}: {' / '.join(words)}")
