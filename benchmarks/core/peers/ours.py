"""Ours: `models.groups` with the backend that the product chooses by itself, on all tasks or on those
of one rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch.nn.utils import parameters_to_vector

from benchmarks.core.parts import STEPS, WINDOW, Parts
from benchmarks.core.peers.base import Weights
from benchmarks.core.problem import HORIZON, META_LEARNING_RATE, OUTPUT_SCALE, Loaded, Problem
from benchmarks.core.tasks import batch_of, spec_of
from gradsmith.rules import Rule, build
from models import adjoint
from models.backends import Backend, NativeBackend, backend_for
from models.captured import windows
from models.groups import Groups, ranges
from models.meta_loss import MetaLoss
from models.meta_optimizer import AdamState
from models.parallel import Alone, Team, mean_over_tasks
from models.spec import share
from models.training.rule import load_weights

_CPU = torch.device("cpu")


def default_backend(rule: Rule, threads: int, problem: Problem | None = None) -> Backend:
    """What the product chooses by itself. problem: None for a rule that does not look at tensors, detached"""
    if problem is None or not problem.exact:
        return backend_for(rule, torch.float32, _CPU, threads)
    return backend_for(rule, torch.float32, _CPU, threads, parts=spec_of(problem).parts(), mode="exact")


class Ours:
    def __init__(
        self,
        loaded: Loaded,
        weights: Weights,
        threads: int,
        *,
        team: Team | None = None,
        backend: NativeBackend | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self._team = team or Alone()
        self._problem = loaded.problem
        self._rule: Rule = rule_with(weights, kind=loaded.problem.rule) if backend is None else backend.rule
        own = share(loaded.problem.tasks, self._team.size, self._team.rank)
        self._backend = backend or default_backend(self._rule, threads, loaded.problem)
        parts = ranges(
            own,
            loaded.problem.coordinates_per_task,
            self._rule.settings.costs().record,
            loaded.problem.unroll_steps,
            _CPU,
        )
        self._batches = [batch_of(loaded.problem, loaded=loaded, own=part) for part in parts]
        self._windows = windows(self._backend, _CPU, MetaLoss("exact" if loaded.problem.exact else "detached"))
        self._weights = parameters_to_vector(self._rule.parameters()).detach().clone()
        self._adam = AdamState.zero(self._weights)
        self.counted_losses = loaded.problem.unroll_steps
        self.about = {
            "name": "Gradsmith",
            "versions": f"torch {torch.__version__}",
            "settings": f"backend {self._backend.name}, {torch.backends.cpu.get_cpu_capability()}",
        }

    def begin(self) -> None:
        self._groups = Groups(self._batches, self._backend)

    def gradient(self) -> Weights:
        self.begin()
        window = self._groups.unroll(self._windows, self._problem.unroll_steps)
        _, gradient = mean_over_tasks(self._team, window.losses, window.gradient, self._problem.tasks)
        return named(self._rule, gradient)

    def run(self, meta_steps: int) -> None:
        for _ in range(meta_steps):
            if self._groups.positions[0].step + self._problem.unroll_steps > HORIZON:
                self.begin()
            window = self._groups.unroll(self._windows, self._problem.unroll_steps)
            _, gradient = mean_over_tasks(self._team, window.losses, window.gradient, self._problem.tasks)
            self._weights, self._adam = self._adam.updated(self._weights, gradient, META_LEARNING_RATE)
            self._load()

    def profile(self, meta_steps: int) -> dict[str, float]:
        """Seconds of one meta-step, by part."""
        parts = Parts()
        with ExitStack() as stack:
            for owner, method, name in (
                *((batch, "losses_and_gradient", "inner gradients") for batch in self._batches),
                (self._backend, "step", STEPS),
                (self._backend, "window_gradient", WINDOW),
                (adjoint, "suffix_sums", "suffix sums"),
                (AdamState, "updated", "Adam and the weights"),
                (self, "_load", "Adam and the weights"),
            ):
                if hasattr(owner, method):
                    stack.enter_context(parts.timed(owner, method, name))
            stack.enter_context(parts.replaced(self._backend, "for_window", self._timed_window(parts)))
            with parts.part("the rest"):
                self.run(meta_steps)
        return {name: seconds / meta_steps for name, seconds in parts.seconds.items()}

    def _timed_window(self, parts: Parts) -> Callable[[int, int], Backend]:
        for_window = self._backend.for_window

        def timed(coordinates: int, steps: int) -> Backend:
            window = for_window(coordinates, steps)
            if window is not self._backend:  # whose methods have their clock already
                for method, name in (("step", STEPS), ("window_gradient", WINDOW)):
                    setattr(window, method, parts.counted(getattr(window, method), name))
            return window

        return timed

    def _load(self) -> None:
        load_weights(self._rule, self._weights)


make = Ours


def rule_with(weights: Weights, dtype: torch.dtype = torch.float32, kind: str = "lstm") -> Rule:
    """The product's rule with these weights."""
    rule = build({"kind": kind, "output_scale": OUTPUT_SCALE} if kind == "lstm" else {"kind": kind}).to(dtype)
    rule.load_state_dict({name: torch.from_numpy(value).to(dtype) for name, value in weights.items()})
    return rule


def named(rule: Rule, flat: torch.Tensor) -> Weights:
    """A flat gradient as tensors by name."""
    pieces = flat.split([parameter.numel() for parameter in rule.parameters()])
    return {
        name: piece.view_as(parameter).numpy().copy()
        for (name, parameter), piece in zip(rule.named_parameters(), pieces, strict=True)
    }
