"""A process that dies with its parent, by the kernel's signal and, where there is none, by watching."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.workers.harness import children_of, is_alive, wait_for

PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-P", "-c", sys.argv[1], str(os.getpid())])
time.sleep(60)
"""
BY_SIGNAL = """
import sys, time
from app.host.tether import die_with_parent
die_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""
BY_THREAD = "import sys; sys.platform = 'one without a death signal'" + BY_SIGNAL
BY_WATCHER = """
import sys
from app.host.tether import _run_watched
print("ready", flush=True)
_run_watched(int(sys.argv[1]), ["sleep", "60"])
"""


@pytest.mark.service
@pytest.mark.parametrize("code", [BY_SIGNAL, BY_THREAD, BY_WATCHER], ids=["signal", "thread", "watcher"])
def test_it_dies_when_its_parent_is_killed(code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        # Not before: a child that is still importing would find its parent gone, and never need what is tested.
        assert parent.stdout.readline() == b"ready\n"
        children = wait_for(lambda: children_of(parent.pid), "the child")
        if code is BY_WATCHER:
            children += wait_for(lambda: children_of(children[0]), "the program that it watches")
        parent.kill()
        wait_for(lambda: not any(is_alive(pid) for pid in children), "the child to die", 30)


def test_a_child_whose_parent_is_gone_already_does_not_begin() -> None:
    code = "from app.host.tether import die_with_parent; die_with_parent(1 << 22); print('began')"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_tethered_program_keeps_its_arguments_and_its_exit_status() -> None:
    code = (
        "import subprocess; from app.host.tether import tethered;"
        "print(subprocess.call(tethered(['sh', '-c', 'exit 7'])))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "7\n"
