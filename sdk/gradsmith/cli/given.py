"""Values that commands take: settings by path, labels, and jobs by the shortest name that is clear."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradsmith.cli.outcome import NOT_FOUND, refuse

if TYPE_CHECKING:
    from gradsmith.client import Client

LAST = "@last"
_LOOKED_THROUGH = 1000


def settings(pairs: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """Nested values of `path=value` pairs: "recipe.meta_steps=300" is {"recipe": {"meta_steps": 300}}.

    A value is JSON where it can be read so, else text. sections: what a path may begin with
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        path, separator, text = pair.partition("=")
        first, *rest = path.split(".")
        if not separator or first not in sections:
            refuse(f"--set takes {', '.join(f'{name}...=VALUE' for name in sections)}, not {pair!r}")
        place, names = found, [first, *rest]
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                refuse(f"--set gives {path!r} a value within a value; give each field once")
        place[names[-1]] = _value(text)
    return found


def labels(pairs: Sequence[str]) -> dict[str, str]:
    """Labels of `key=value` pairs."""
    found = dict(pair.partition("=")[::2] for pair in pairs)
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        refuse(f"a label is KEY=VALUE, not {wrong[0]!r}")
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def job_id(client: Client, name: str) -> str:
    """The id of the job that `name` means: an id, the beginning or the end of one, or @last.

    Ends with exit code 4 where it is none, or several.
    """
    if len(name) == len("job_") + 32 and name.startswith("job_"):
        return name
    seen, after = 0, None
    found: list[str] = []
    while seen < _LOOKED_THROUGH:
        page = client.jobs.list(limit=100, after=after)
        if name == LAST:
            if not page.data:
                refuse("there is no job yet; `gradsmith train FAMILY` starts one", NOT_FOUND)
            return page.data[0].id
        found += [job.id for job in page.data if job.id.startswith((name, f"job_{name}")) or job.id.endswith(name)]
        seen, after = seen + len(page.data), page.next
        if len(found) > 1:
            refuse(f"{name!r} begins or ends several jobs, such as {found[0]} and {found[1]}; give more", NOT_FOUND)
        if after is None:
            break
    if not found:
        refuse(f"there is no job {name!r} among the newest {seen}; `gradsmith jobs` lists them", NOT_FOUND)
    return found[0]
