"""What is captured: commands as a person types them, and how each must end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.terminal.session import CTRL_C, Press

NOWHERE = "http://127.0.0.1:9"
_SHORT = "--set recipe.meta_steps=250 --set evaluation.test_tasks=16 --set evaluation.tuning_tasks=4"
_CURVE = r"loss +[\d.]+ .*\n.*validation"


@dataclass(frozen=True)
class Scene:
    """command: words of `gradsmith`, `gradsmith-server` or `./run`; {names} are of `Stage.names`

    code: the exit code that it must have
    json: whether it is also run with --json, which must have the same code and print JSON or nothing
    changes: environment variables
    """

    name: str
    command: str
    code: int = 0
    presses: tuple[Press, ...] = ()
    json: bool = True
    changes: Mapping[str, str] = field(default_factory=dict)


SCENES = (
    Scene("help", "gradsmith --help", json=False),
    Scene("help-train", "gradsmith train --help", json=False),
    Scene("help-server", "gradsmith-server --help", json=False),
    Scene("help-run", "./run --help", json=False),
    Scene("jobs-none", "gradsmith jobs"),
    Scene("dry-run", "gradsmith train quadratic --dry-run"),
    Scene("train", f"gradsmith train quadratic {_SHORT} --follow", presses=(Press(_CURVE), Press("evaluating")),
          json=False),
    Scene("failure", "gradsmith train mnist-mlp --no-evaluate --follow", 1),
    Scene("detach", "gradsmith jobs watch {long}", 130, (Press(_CURVE, CTRL_C),), json=False),
    Scene("show-running", "gradsmith jobs show {long}"),
    Scene("cancel", "gradsmith jobs cancel {long}"),
    Scene("watch-cancelled", "gradsmith jobs watch {long}", 1),
    Scene("retry-refused", "gradsmith jobs retry {trained}", 2),
    Scene("jobs", "gradsmith jobs"),
    Scene("show-training", "gradsmith jobs show {trained}"),
    Scene("show-evaluation", "gradsmith jobs show {evaluation}"),
    Scene("show-failed", "gradsmith jobs show {failed}"),
    Scene("logs", "gradsmith jobs logs {evaluation}", json=False),
    Scene("compare", "gradsmith compare {trained} {long}"),
    Scene("optimizers", "gradsmith optimizers"),
    Scene("optimizer", "gradsmith optimizers show quadratic@1"),
    Scene("families", "gradsmith families"),
    Scene("family", "gradsmith families show digits-mlp"),
    Scene("keys", "gradsmith keys"),
    Scene("doctor", "gradsmith doctor"),
    Scene("wrong-command", "gradsmith jbos", 2, json=False),
    Scene("wrong-option", "gradsmith train quadratic --folow", 2, json=False),
    Scene("wrong-field", "gradsmith train quadratic --set recipe.meta_step=300", 2),
    Scene("wrong-value", "gradsmith train quadratic --set recipe.meta_steps=many", 2),
    Scene("wrong-family", "gradsmith train quadratik", 4),
    Scene("wrong-job", "gradsmith jobs show job_nothing", 4),
    Scene("wrong-optimizer", "gradsmith optimizers pull quadratic@lastest", 4),
    Scene("wrong-key", "gradsmith jobs", 3, changes={"GRADSMITH_API_KEY": "gs_0123456789abcdef_wrong"}),
    Scene("no-key", "gradsmith jobs", 3, changes={"GRADSMITH_API_KEY": ""}),
    Scene("unreachable", "gradsmith jobs", 5, changes={"GRADSMITH_URL": NOWHERE}),
    Scene("wrong-server-command", "gradsmith-server srve", 2, json=False),
    Scene("wrong-run-command", "./run srve", 2, json=False),
)  # fmt: skip
"""In the order in which they are played: later ones need the jobs of earlier ones."""
