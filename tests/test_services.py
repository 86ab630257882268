"""The servers that tests start die with pytest, also when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workshop import services

ROOT = Path(__file__).parent.parent

PROGRAM = """
import sys, time
from workshop import services
try:
    server = services.{start}()
except services.NoServer as error:
    print("none", error, flush=True)
    sys.exit()
print(server._process.pid, server.folder, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a parent-death signal")
@pytest.mark.parametrize("start", ["ValkeyServer", "start_postgres"])
def test_a_killed_pytest_leaves_no_server(start: str) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(start=start)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with program:
        assert program.stdout is not None
        said = program.stdout.readline().split()
        if said[0] == "none":
            pytest.skip(" ".join(said[1:]))
        pid, folder = int(said[0]), Path(said[1])
        assert folder.is_dir()
        program.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 15
    while running(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.02)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie waits for a parent that is slow to look


def test_short_folders_leave_room_for_a_socket() -> None:
    folder = services.short_folder(for_everyone=True)
    assert len(str(folder)) < 80
    assert os.stat(folder.parent).st_mode & 0o001  # noqa: PTH116
    folder.rmdir()
