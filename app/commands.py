"""The command that a message tells its reader to run, spelled as it works where the reader stands.

A checkout has `./run migrate`, an installation `gradsmith-server migrate`. Whoever was started by a person knows which
it was and hands it down by the environment, so that the API and the workers say the same.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings

STARTED_AS = "GRADSMITH_COMMAND"  # set by ./run, else by `started_as`; no setting of anybody's
INSTALLED = "gradsmith-server"


def started_as(argument: str, environment: MutableMapping[str, str]) -> None:
    """Note how this program was called. `argument` is its `sys.argv[0]`; what ./run has noted stays."""
    path = Path(argument)
    if path.name == INSTALLED and shutil.which(INSTALLED) is None:  # called by its path, in a folder that PATH lacks
        environment.setdefault(STARTED_AS, argument)


def command(words: str, settings: Settings | None = None) -> str:
    """`words`, such as `keys list`, as a shell takes them, in backquotes. With `settings`, for their data folder, where
    that is not the one which the command takes by itself."""
    program = os.environ.get(STARTED_AS) or INSTALLED
    where = f" --data {shlex.quote(str(settings.data_dir))}" if settings and _elsewhere(settings) else ""
    return f"`{shlex.quote(program)} {words}{where}`"


def _elsewhere(settings: Settings) -> bool:
    return bool(settings.data_dir != type(settings).model_fields["data_dir"].default)
