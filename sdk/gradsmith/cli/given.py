"""Values that commands take: settings by path, labels, and records by the shortest name that is clear."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gradsmith.cli.outcome import NOT_FOUND, in_words, refuse
from gradsmith.errors import NotFound

if TYPE_CHECKING:
    from gradsmith.client import Client

BRACKETED = re.compile(r"\[[^\[\]{}\"]*\]")
LAST = "@last"
_LOOKED_THROUGH = 1000


_LISTS = ("evaluation.baselines", "evaluation.schedules", "evaluation.untuned")
"""Fields that hold a list, where `nag,adam` and `nag` are lists as well."""


def value(text: str) -> Any:
    """JSON where it can be read so; `[nag,adam]`, a list of words; else text."""
    try:
        return json.loads(text)
    except ValueError:
        return words(text) if BRACKETED.fullmatch(text.strip()) else text


def words(text: str) -> list[Any]:
    """The items of `nag,adam` and of `[nag,adam]`."""
    bare = text.strip().removeprefix("[").removesuffix("]")
    return [value(item) for each in bare.split(",") if (item := each.strip(" '"))]


def settings(pairs: Sequence[str], sections: Sequence[str], read: Callable[[str], Any] = value) -> dict[str, Any]:
    """Nested values of `path=value` pairs: "recipe.meta_steps=300" is {"recipe": {"meta_steps": 300}}.

    sections: what a path may begin with; read: how a value is read
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        path, separator, text = pair.partition("=")
        first, *rest = path.split(".")
        if not separator or first not in sections:
            takes = f"--set takes {', '.join(f'{name}...=VALUE' for name in sections)}, not {pair!r}"
            refuse(f"{takes}{_meant(first, rest, text, sections) if separator else ''}")
        place, names = found, [first, *rest]
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                refuse(f"--set gives {path!r} a value within a value; give each field once")
        given = read(text)
        place[names[-1]] = words(text) if path in _LISTS and isinstance(given, str) else given
    return found


_SECTION_OF = {
    "recipe": (
        "horizon", "meta_learning_rate", "meta_steps", "objective", "patience", "rollback", "rule",
        "starts", "tasks", "validation_horizons", "validation_interval", "validation_tasks",
    ),
    "evaluation": (
        "baselines", "bootstrap_samples", "horizon", "schedules", "test_tasks", "tuning_tasks", "untuned",
    ),
    "tasks": ("activation", "dimension", "hidden"),
}  # fmt: skip
"""Fields that people set most, by where they are."""


def _meant(first: str, rest: Sequence[str], text: str, sections: Sequence[str]) -> str:
    """What a path that begins with no section may have meant: its section was left out, or is misspelt."""
    close = difflib.get_close_matches(first, sections, 1) if rest else []
    within = [name for name in sections if first in _SECTION_OF.get(name, ())]
    path = [*(close or within[:1]), *([] if close else [first]), *rest]
    return f"; did you mean {'.'.join(path)}={text}?" if close or within else ""


def labels(pairs: Sequence[str]) -> dict[str, str]:
    """Labels of `key=value` pairs."""
    found = dict(pair.partition("=")[::2] for pair in pairs)
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        refuse(f"a label is KEY=VALUE, not {wrong[0]!r}")
    return found


def job_id(client: Client, name: str) -> str:
    """The id of the job that `name` means: an id, the beginning or the end of one, or @last.

    Ends with exit code 4 where it is none, or several.
    """
    if _is_whole(name, "job"):
        return name
    listed = (job.id for job in client.jobs.list(limit=1 if name == LAST else 100))
    return _only(listed, name, "job", "`gradsmith train FAMILY` starts one")


def optimizer_named(client: Client, name: str) -> str:
    """The reference or id of the optimizer that `name` means: FAMILY@..., an id, its beginning or its end, or @last.

    Ends with exit code 4 where it is none, or several.
    """
    if ("@" in name and name != LAST) or _is_whole(name, "opt"):
        return name
    if name != LAST and any(each.name == name for each in client.families.list()):
        refuse(f"{name!r} is a family, not an optimizer; did you mean {name}@best or {name}@latest?", NOT_FOUND)
    listed = (each.id for each in client.optimizers.list(limit=1 if name == LAST else 100))
    return _only(listed, name, "optimizer", "`gradsmith train FAMILY --follow` makes one")


def key_id(client: Client, name: str) -> str:
    """The id of the API key that `name` means: an id, its beginning or its end.

    Ends with exit code 4 where it is none, or several.
    """
    if _is_whole(name, "key"):
        return name
    listed = (each.id for each in client.keys.list(limit=100))
    return _only(listed, name, "key", "`gradsmith keys create NAME` makes one")


def nothing_of(client: Client, family: str, noun: str) -> str:
    """What to say where a list of one family's jobs or optimizers is empty."""
    known = [each.name for each in client.families.list()]
    close = [] if family in known else difflib.get_close_matches(family, known, 1)
    if close:
        return f"No {noun}s of family {family!r}. Did you mean {close[0]!r}?"
    if family not in known:
        return f"No {noun}s of family {family!r}, and there is no such family; `gradsmith families` lists those known."
    return f"No {noun}s of family {family!r} that match. `gradsmith {noun}s` lists those of every family."


@contextmanager
def meant(name: str, names: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Names the closest of `names` where `name` is not found. Ends with exit code 4 then."""
    try:
        yield
    except NotFound as error:
        close = difflib.get_close_matches(name, names(), 1)
        also = f" Did you mean {close[0]!r}?" if close and "Did you mean" not in str(error) else ""
        refuse(f"{in_words(error)}{also}", NOT_FOUND)


def optimizer_names(client: Client, name: str) -> list[str]:
    """The references that an optimizer's `name` could have been: aliases and versions of its family."""
    family = name.partition("@")[0]
    found = client.optimizers.list(family=family, limit=100)
    return list(dict.fromkeys(f"{family}@{alias}" for each in found.data for alias in (*each.aliases, each.version)))


def _is_whole(name: str, prefix: str) -> bool:
    return len(name) == len(prefix) + 33 and name.startswith(f"{prefix}_")


def _only(ids: Iterable[str], name: str, noun: str, made_by: str) -> str:
    """The one of `ids`, newest first, that `name` begins or ends."""
    seen, found = 0, []
    for each in itertools.islice(ids, _LOOKED_THROUGH):
        seen += 1
        if name == LAST:
            return each
        if each.startswith(name) or each.partition("_")[2].startswith(name) or each.endswith(name):
            found.append(each)
        if len(found) > 1:
            both = f"{found[0]} and {found[1]}"
            refuse(f"{name!r} begins or ends several {noun}s, such as {both}; give more", NOT_FOUND)
    if not seen:
        refuse(f"there is no {noun} yet; {made_by}", NOT_FOUND)
    if not found:
        refuse(f"there is no {noun} {name!r} among the newest {seen}; `gradsmith {noun}s` lists them", NOT_FOUND)
    return found[0]
