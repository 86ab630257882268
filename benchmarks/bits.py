"""The bits of trained weights, to see whether a change of the code changes them.

    ./run bench bits [--from 825e349] [--meta-steps 6]

Trains the paper's rule on `quadratic` and on `digits-mlp` for a few meta-steps and prints the SHA-256 of each weights
file, which depends on the seed, the spec and the machine's instruction set. --from has a commit, taken from git's
history, train the same in this environment's packages; the program ends with status 1 where a digest differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from workshop.old import checkout
from workshop.served import ROOT

FAMILIES = ("quadratic", "digits-mlp")

_PROGRAM = """
import hashlib, sys
import models.spec
from models.meta_train import TrainingResult, meta_train
from models.spec import MetaTrainSpec, Resources, overridden
if hasattr(models.spec, "BUILT_IN_FAMILIES"):  # before there was a register
    families = models.spec.BUILT_IN_FAMILIES
else:
    from models.families import FAMILIES as families
family = families[sys.argv[1]]
try:  # the recipe that families had at first, whatever is theirs now
    from models.families.recipes import PAPER
    recipe = PAPER[family.name]
except ModuleNotFoundError:
    recipe = family.recipe
recipe = overridden(recipe, {"meta_steps": int(sys.argv[2]), "validation_interval": 3, "validation_tasks": 8})
spec = MetaTrainSpec(
    family=family, seed=1, recipe=recipe, evaluate=False, evaluation=family.evaluation, resources=Resources()
)
[result] = [event for event in meta_train(spec) if isinstance(event, TrainingResult)]
print(hashlib.sha256(result.weights).hexdigest())
"""


def digest(version: Path, family: str, meta_steps: int) -> str:
    """SHA-256 of the weights file that the code in this folder trains. Raises CalledProcessError."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(version), str(version / "sdk")))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, family, str(meta_steps)],
        cwd=version,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run bench bits", description="The bits of trained weights.")
    parser.add_argument("--from", dest="commit", help="also train with the code of this commit, and compare")
    parser.add_argument("--meta-steps", type=int, default=6, help="length of each training (default: 6)")
    options = parser.parse_args(arguments)
    ours = {family: digest(ROOT, family, options.meta_steps) for family in FAMILIES}
    for family, sha256 in ours.items():
        print(f"{family:<12} {sha256}", flush=True)
    if options.commit is None:
        return 0
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        version = checkout(options.commit, Path(folder))
        for family, sha256 in ours.items():
            theirs = digest(version, family, options.meta_steps)
            same = theirs == sha256
            differing += not same
            print(f"{family:<12} {theirs} at {options.commit}: {'the same' if same else 'DIFFERENT'}", flush=True)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
