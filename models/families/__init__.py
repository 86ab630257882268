"""The register of families: every kind there is, and every family with a name.

A new kind is one folder here and one line below, or a plug-in of an operator's (`models.families.plugins`). All else
derives from the register: what a spec may hold, JSON schemas, memory prediction, data sets, `doctor`. No import of this
package brings torch; `models.tasks.catalogue` opens a kind's other half.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from pathlib import Path

from models.datasets.blobs import missing_table
from models.families import plugins
from models.families.augmented import KIND as AUGMENTED
from models.families.augmented import AugmentedSpec as AugmentedSpec
from models.families.autoencoder import KIND as AUTOENCODER
from models.families.base import Kind
from models.families.conv import KIND as CONV
from models.families.expression import KIND as EXPRESSION
from models.families.factorization import KIND as FACTORIZATION
from models.families.functions import KIND as FUNCTIONS
from models.families.lasso import KIND as LASSO
from models.families.mixture import KIND as MIXTURE
from models.families.mixture import MOST_MEMBERS as MOST_MEMBERS
from models.families.mixture import Member as Member
from models.families.mixture import MixtureSpec as MixtureSpec
from models.families.mlp import KIND as MLP
from models.families.quadratic import KIND as QUADRATIC
from models.families.recipes import winning
from models.families.regression import KIND as REGRESSION
from models.families.style import KIND as STYLE
from models.families.transformer import KIND as TRANSFORMER
from models.spec import FamilySpec, Recipe
from models.task_spec import TASK_SPECS, TaskSpec

logger = logging.getLogger(__name__)

KINDS: dict[str, Kind] = {}
"""Every kind, by its name."""

FAMILIES: dict[str, FamilySpec] = {}
"""Every family by its name, in the order in which they are listed."""

DATASETS: dict[str, str] = {}
"""Where each data set of some kind is, "package.module:OBJECT" by name (`models.tasks.data.DataSet`)."""


def register(kind: Kind) -> None:
    """Add a kind, its families and its data sets. Raises ValueError where a name is taken, and then adds nothing."""
    taken = [f"kind {kind.name!r}"] if kind.name in KINDS else []
    taken += [f"family {family.name!r}" for family in kind.built_in if family.name in FAMILIES]
    taken += [f"data set {name!r}" for name, place in kind.datasets.items() if DATASETS.get(name, place) != place]
    if taken:
        raise ValueError(f"there is a {' and a '.join(taken)} already; choose another name")
    KINDS[kind.name] = kind
    TASK_SPECS[kind.name] = kind.spec
    FAMILIES.update({family.name: family for family in kind.built_in})
    DATASETS.update(kind.datasets)


_FUNCTIONS = (QUADRATIC, FUNCTIONS, LASSO, FACTORIZATION, EXPRESSION)
_MODELS = (MLP, AUTOENCODER, REGRESSION, CONV, TRANSFORMER, STYLE)
for _kind in (*_FUNCTIONS, *_MODELS, AUGMENTED, MIXTURE):
    register(_kind)
PROBLEMS: tuple[plugins.Problem, ...] = plugins.load(register)
"""Plug-ins that could not be loaded, and why."""


def usual_recipe(tasks: TaskSpec) -> Recipe:
    """How a rule is trained on a family that says nothing of it: as on the first family of its kind. A mixture is
    trained as the first of its families, and validated on fewer tasks of each."""
    first, *others = tasks.weighted_points
    if others:
        recipe = usual_recipe(first.tasks)
        return recipe.model_copy(
            update={"validation_tasks": max(4, recipe.validation_tasks // len(tasks.weighted_points))}
        )
    if isinstance(first.tasks, AugmentedSpec):
        return usual_recipe(first.tasks.tasks)
    own = KINDS[first.tasks.kind].built_in
    return own[0].recipe if own else winning(meta_steps=600, tasks=8, loss_weighting="sqrt")


def problems_in_words() -> str:
    """A sentence about the plug-ins that could not be loaded here, with a space before it; "" where there are none."""
    if not PROBLEMS:
        return ""
    return f" Not loaded here: {'; '.join(f'{problem.plugin} ({problem.reason})' for problem in PROBLEMS)}."


def lacking_data(tasks: TaskSpec, data_dir: Path) -> str | None:
    """Which data set of these tasks is not in this folder, and the command that brings it; None where none is missing,
    or whoever needs it fetches it."""
    for name in tasks.datasets:
        module, _, attribute = DATASETS[name].partition(":")
        try:
            lacking = getattr(importlib.import_module(module), attribute).lacking
            missing: str | None = lacking(data_dir) if lacking is not None else None
        except Exception:  # a plug-in's module may raise anything; the worker will find out
            logger.exception("The data set %s (%s) cannot be looked for.", name, DATASETS[name])
            continue
        if missing is not None:
            return missing
    return next((lacking for table in tasks.tables if (lacking := missing_table(data_dir, table)) is not None), None)


def no_such_kind(name: object, plugin: str | None = None) -> str:
    """What to say of a kind that is not registered here. plugin: what brought it where it was."""
    advice = f"install {plugin}" if plugin else "install the plug-in that adds it"
    close = difflib.get_close_matches(name, KINDS, 1) if isinstance(name, str) and not plugin else []
    next_step = f"did you mean {close[0]!r}?" if close else f"{advice} here too."
    return f"There is no kind of family {name!r} here ({', '.join(KINDS)}); {next_step}{problems_in_words()}"
