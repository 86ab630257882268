"""The peers' own Python environment: var/bench-venv, made once, from pinned packages. Ours stays as it is."""

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
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / ".installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing the peers' packages into {FOLDER.relative_to(ROOT)} (about 600 MB, once) ...", flush=True)
    _call([sys.executable, "-m", "venv", "--clear", str(FOLDER)])
    # All of them are pinned, dependencies too: learned_optimization asks for versions that are long gone.
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _call([str(python), *install, "-r", str(REQUIREMENTS)])
    stamp.write_text(wanted)
    return python


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise PeersUnavailable(f"{' '.join(command[1:4])} ended with {done.returncode}: {' / '.join(words)}")
