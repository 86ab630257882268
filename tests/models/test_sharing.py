"""Work that is shared with forked processes gives what one process gives, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from models.baselines import TUNED
from models.errors import ModelsError
from models.evaluation.baseline_runs import BaselineRuns
from models.evaluation.sharing import MOST_HELPERS, Piece, helpers_for, shared
from models.measured import Runs
from models.rollout import Sample
from models.spec import Split
from models.tasks.catalogue import open_for_tuning

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
SECONDS = 0.01


def drained(generator):
    told = []
    while True:
        try:
            told.append(next(generator))
        except StopIteration as end:
            return end.value, told


def children():
    return {int(each) for each in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def slow(number, rounds=20, doing=lambda: None):
    """Says who did it."""

    def work():
        for _ in range(rounds):
            time.sleep(SECONDS)
            doing()
            yield
        yield number
        return f"{number} {os.getpid()}".encode()

    return Piece(f"piece {number}", work)


def test_pieces_are_done_once_each_by_two_processes_and_counted():
    before, runs = children(), Runs(6)
    found, told = drained(shared([slow(number) for number in range(6)], runs, 1))
    numbers, who = zip(*(each.split() for each in found), strict=True)
    assert numbers == tuple(b"%d" % number for number in range(6))
    assert len(set(who)) == 2, "both work"
    assert runs.done == 6
    assert {event.message for event in told} >= {"piece 0", "piece 1"}
    assert children() == before


def test_whoever_does_it_raises_what_a_piece_raises():
    parent = os.getpid()

    def refused():
        if os.getpid() != parent:
            raise ModelsError("the helper cannot")

    with pytest.raises(ModelsError, match="the helper cannot"):
        drained(shared([slow(number, doing=refused) for number in range(4)], Runs(4), 1))


def test_a_helper_that_is_killed_is_made_up_for():
    parent, before = os.getpid(), children()

    def die():
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    found, _ = drained(shared([slow(number, doing=die) for number in range(3)], Runs(3), 1))
    assert [each.split()[1] for each in found] == [b"%d" % parent] * 3
    assert children() == before


def test_closing_it_leaves_no_process():
    before = children()
    work = shared([slow(number, rounds=10_000) for number in range(2)], Runs(2), 1)
    next(work)
    assert len(children() - before) == 1
    work.close()
    assert children() == before


def test_sweeps_that_are_shared_are_those_of_one_process_bit_for_bit(evaluation_spec):
    spec = evaluation_spec("digits-mlp", horizon=5, tuning_tasks=3, schedules=["constant"])
    family, sample = open_for_tuning(spec.family.tasks), Sample(Split.VALIDATION, 0, 1, 3)

    def found(helpers):
        runs = BaselineRuns(spec, torch.float32, torch.device("cpu"), Runs(1), helpers=helpers)
        sweeps = [runs.tuned(name, family, sample) for name in ("adam", "muon", "sgd")]
        found, _ = drained(runs.found(sweeps))
        return [tuning.points for tuning in found], runs.gradients

    before = torch.get_num_threads()
    assert found(1) == found(0)
    assert torch.get_num_threads() == before
    assert TUNED["muon"].of_each


def test_who_may_help():
    assert [helpers_for(cores, torch.device("cpu")) for cores in (1, 2, 64)] == [0, 1, MOST_HELPERS]
    assert helpers_for(8, torch.device("cuda")) == 0
