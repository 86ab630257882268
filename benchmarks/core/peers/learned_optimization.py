"""google/learned_optimization: its own TruncatedGrad and GradientLearner, around the same coordinatewise LSTM.

The package on PyPI is 0.0.1 of March 2022. `_with_what_jax_has_dropped` gives it back the names that JAX has dropped
since, and empty stand-ins for TensorFlow, which it imports for summaries and data sets that are not used here. Its
arithmetic is untouched, and runs on the same JAX as the other peer. Its gradient estimate is jitted as a whole, which
its later versions allow.

Its window counts the losses at theta_0 .. theta_(T-1); the one at theta_0 is a constant. So it counts one loss fewer
than the others, and its last update of a window is forward only.
"""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.core.peers import jax_losses
from benchmarks.core.peers.base import Weights
from benchmarks.core.peers.jax_lstm import empty_memory, update
from benchmarks.core.problem import HORIZON, META_LEARNING_RATE, Loaded


def _with_what_jax_has_dropped() -> None:
    for name in ("tree_map", "tree_leaves", "tree_flatten", "tree_unflatten", "tree_structure"):
        setattr(jax, name, getattr(jax.tree_util, name))
    jax.tree_multimap = jax.tree_util.tree_map
    jax.ShapedArray = jax.core.ShapedArray
    jax.lib.xla_client = types.SimpleNamespace(Device=object)
    import flax.metrics
    import flax.training.prefetch_iterator  # flax looks for TensorFlow while it is imported: the real answer is no

    flax.training.checkpoints = _stand_in("flax.training.checkpoints")
    flax.metrics.tensorboard = _stand_in("flax.metrics.tensorboard", SummaryWriter=object)
    v2 = _stand_in("tensorflow.compat.v2", enable_v2_behavior=lambda: None)
    compat = _stand_in("tensorflow.compat", v2=v2)
    _stand_in("tensorflow", compat=compat, data=types.SimpleNamespace(Dataset=object), Tensor=object)
    _stand_in("tensorflow_datasets", ReadConfig=object)
    logging.disable(logging.ERROR)  # that oryx is missing: no summaries, which is what we want


def _stand_in(name: str, **attributes: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module
    return module


_with_what_jax_has_dropped()

from learned_optimization.learned_optimizers import base as lopt_base  # noqa: E402
from learned_optimization.optimizers import base as opt_base  # noqa: E402
from learned_optimization.outer_trainers import gradient_learner, truncated_grad, truncation_schedule  # noqa: E402
from learned_optimization.tasks import base as tasks_base  # noqa: E402


class Inner(NamedTuple):
    """State of one task's optimizer, with the field names that the package expects."""

    params: Any
    state: Any
    memory: Any


class LSTMOptimizer(opt_base.Optimizer):  # type: ignore[misc]
    def __init__(self, weights: Any) -> None:
        self._weights = weights

    def init(self, params: Any, state: Any = None, num_steps: Any = None, key: Any = None, **_: Any) -> Inner:  # noqa: ARG002
        return Inner(params, state, empty_memory(params.shape[0], axis=-1))

    def update(self, opt_state: Inner, grad: Any, model_state: Any = None, **_: Any) -> Inner:
        change, memory = update(self._weights, grad, opt_state.memory, axis=-1)
        return Inner(opt_state.params + change, model_state, memory)


class CoordinatewiseLSTM(lopt_base.LearnedOptimizer):  # type: ignore[misc]
    def __init__(self, weights: Weights) -> None:
        self._start = {name: jnp.asarray(value) for name, value in weights.items()}

    def init(self, rng: Any) -> Any:  # noqa: ARG002 - the weights are given
        return self._start

    def opt_fn(self, theta: Any, is_training: bool = False) -> LSTMOptimizer:  # noqa: ARG002
        return LSTMOptimizer(theta)


class Network(tasks_base.Task):  # type: ignore[misc]
    def __init__(self, loaded: Loaded) -> None:
        self._loss = jax_losses.NETWORKS[loaded.problem.kind]
        self._start = jnp.asarray(loaded["start"], jnp.float32)
        self.datasets = Minibatches(loaded)

    def init(self, key: Any) -> Any:  # noqa: ARG002 - every trajectory begins at the same theta_0
        return self._start

    def loss(self, params: Any, key: Any, data: Any) -> Any:  # noqa: ARG002
        return self._loss(params, *data)


class Minibatches:
    """What the package draws minibatches from: at first arrays, then, while a window is traced, the window's."""

    def __init__(self, loaded: Loaded) -> None:
        self._images = loaded["pixels"].astype(np.float32) / 255
        self._labels = loaded["labels"]
        self._rows = loaded["rows"]
        self.draw_from(self.window(0, 1))

    def window(self, first: int, steps: int) -> tuple[Any, Any]:
        """Minibatches of so many steps: (steps, batch, inputs) and (steps, batch)."""
        rows = self._rows[np.arange(first, first + steps) % len(self._rows)]
        return self._images[rows], self._labels[rows]

    def draw_from(self, window: tuple[Any, Any]) -> None:
        images, labels = window
        self._iterator = ((images[step], labels[step]) for step in range(images.shape[0]))

    def split(self, name: str) -> Iterator[Any]:  # noqa: ARG002 - there is one split
        return self._iterator


class Quadratics(tasks_base.TaskFamily):  # type: ignore[misc]
    """A trajectory after the first draws functions of its own, as the package does."""

    datasets = None

    def sample(self, key: Any) -> Any:
        first, second = jax.random.split(key)
        return jax.random.normal(first, (10, 10)), jax.random.normal(second, (10,))

    def task_fn(self, cfg: Any) -> Any:
        return _Quadratic(*cfg)


class _Quadratic(tasks_base.Task):  # type: ignore[misc]
    def __init__(self, W: Any, y: Any) -> None:
        self._W, self._y = W, y

    def init(self, key: Any) -> Any:
        return jax.random.normal(key, (10,))

    def loss(self, params: Any, key: Any, data: Any) -> Any:  # noqa: ARG002
        return jax_losses.quadratic(params, self._W, self._y)


class LearnedOptimization:
    def __init__(self, loaded: Loaded, weights: Weights, threads: int) -> None:  # noqa: ARG002 - set by affinity
        problem = loaded.problem
        self._loaded = loaded
        self._key = jax.random.PRNGKey(0)
        family = Quadratics() if problem.kind == "quadratics" else tasks_base.single_task_to_family(Network(loaded))
        self._family = family
        optimizer = CoordinatewiseLSTM(weights)
        self._estimator = truncated_grad.TruncatedGrad(
            task_family=family,
            learned_opt=optimizer,
            trunc_sched=truncation_schedule.ConstantTruncationSchedule(HORIZON),
            num_tasks=problem.tasks,
            unroll_length=problem.unroll_steps,
            steps_per_jit=problem.unroll_steps,
        )
        self._compute = jax.jit(self._traced)
        self._learner = gradient_learner.GradientLearner(optimizer, opt_base.Adam(META_LEARNING_RATE))
        self._learned = self._learner.init(self._key)
        self.counted_losses = problem.unroll_steps - 1
        self.about = {
            "name": "learned_optimization",
            "versions": f"learned_optimization 0.0.1, jax {jax.__version__}",
            "settings": f"TruncatedGrad(unroll_length={problem.unroll_steps}, steps_per_jit={problem.unroll_steps}), "
            "jitted whole; GradientLearner with its Adam",
        }

    def gradient(self) -> Weights:
        self.begin()
        out, _ = self._estimate()
        # The package averages over steps; we compare sums.
        return {name: np.asarray(value) * self._loaded.problem.unroll_steps for name, value in out.grad.items()}

    def run(self, meta_steps: int) -> None:
        for _ in range(meta_steps):
            out, weights = self._estimate()
            self._state = out.unroll_state
            self._step += self._loaded.problem.unroll_steps
            gradient = gradient_learner.AggregatedGradient(out.grad, weights.theta_model_state, out.mean_loss)
            self._learned, _ = self._learner.update(self._learned, [gradient])
        jax.block_until_ready((self._learned, self._state))

    def _estimate(self) -> tuple[Any, Any]:
        self._key, key = jax.random.split(self._key)
        weights = self._learner.get_state_for_worker(self._learned)
        steps = self._loaded.problem.unroll_steps
        minibatches = self._family.datasets
        window = None if minibatches is None else minibatches.window(self._step, steps)
        return self._compute(weights, key, self._state, window), weights

    def _traced(self, weights: Any, key: Any, state: Any, window: Any) -> Any:
        if window is not None:
            self._family.datasets.draw_from(window)
        return self._estimator.compute_gradient_estimate(weights, key, state)[0]

    def begin(self) -> None:
        state = self._estimator.init_worker_state(self._learner.get_state_for_worker(self._learned), self._key)
        if self._family.datasets is None:  # the first trajectory runs on the functions that every peer has
            W, y, start = (jnp.asarray(self._loaded[name], jnp.float32) for name in ("W", "y", "start"))
            inner = state.inner_opt_state._replace(params=start.reshape(y.shape))
            state = state.replace(task_param=(W, y), inner_opt_state=inner)
        self._state = state
        self._step = 0


make = LearnedOptimization
