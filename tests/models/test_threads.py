"""Threads that are calibrated when a job starts."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from gradsmith.rules import LSTMRule, build
from models import threads
from models.spec import Resources
from models.task_spec import Part
from models.threads import calibrated

CPU = torch.device("cpu")


class Slowed:
    """A backend whose windows take as long as they are said to with so many threads."""

    task_size = None

    def __init__(self, seconds):
        self.seconds = seconds

    def initial_memory(self, *_):
        return ()

    def window_gradient(self, *_):
        time.sleep(self.seconds)


def chosen(monkeypatch, seconds, most):
    """What is chosen where windows take `seconds[count]` with `count` threads."""
    made = []

    def backend_for(_rule, _dtype, _device, count, *, wanted, parts, mode, products):  # noqa: ARG001
        made.append((count, wanted))
        return Slowed(seconds[count])

    monkeypatch.setattr(threads, "backend_for", backend_for)
    found = calibrated(LSTMRule(), torch.float32, CPU, wanted="torch", coordinates=10, most=most, seconds=0.1)
    assert torch.get_num_threads() == found
    torch.set_num_threads(1)
    return found, made


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        ({1: 0.04, 2: 0.02, 4: 0.01, 6: 0.002}, 6, 6),
        ({1: 0.04, 2: 0.01, 4: 0.01, 6: 0.01}, 6, 2),  # more that gain nothing are left to others
        ({1: 0.005, 2: 0.02, 4: 0.04, 6: 0.06}, 6, 1),  # and more that cost
        ({1: 0.02, 2: 0.01, 3: 0.001}, 3, 3),
    ],
)
def test_the_fewest_threads_that_are_as_fast_as_any(monkeypatch, seconds, most, expected):
    found, made = chosen(monkeypatch, seconds, most)
    assert found == expected
    assert made == [(count, "torch") for count in seconds]


def test_one_cpu_needs_no_measurement(monkeypatch):
    assert chosen(monkeypatch, {}, 1) == (1, [])


@pytest.mark.parametrize("wanted", ["auto", "torch"])
def test_real_backends_are_calibrated_within_the_bound(wanted):
    started = time.perf_counter()
    found = calibrated(LSTMRule(), torch.float32, CPU, wanted=wanted, coordinates=200, most=2, seconds=0.1)
    assert found in (1, 2)
    assert time.perf_counter() - started < 10
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["mlp", "hyper"])
def test_a_rule_that_looks_at_tensors_is_calibrated_on_whole_tasks(kind):
    """512 tasks of 10 coordinates; the 4,096 that are enough for any rule are no number of such tasks."""
    parts = (Part("theta", (10,), "vector"),)
    rule = build({"kind": kind})
    assert calibrated(rule, torch.float32, CPU, coordinates=5120, most=2, seconds=0.01, parts=parts) in (1, 2)
    torch.set_num_threads(1)


def test_threads_of_a_job_are_a_number_or_auto():
    assert (Resources().threads, Resources(threads="auto").threads, Resources(threads=7).threads) == (1, "auto", 7)
    assert (Resources(threads="auto").threads_or(3), Resources(threads=7).threads_or(3)) == (3, 7)
    for wrong, text in itertools.product((0, 257, "many", True, 1.5, None), ("is no number of threads",)):
        with pytest.raises(ValueError, match=text):
            Resources(threads=wrong)
