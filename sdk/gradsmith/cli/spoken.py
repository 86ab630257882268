"""The server's words as a terminal has them: commands where it names requests."""

from __future__ import annotations

import re

_WORD = r"([\w@{}<>.-]*[\w@{}<>-])"
_COMMANDS = (
    (r'POST /jobs with \{"kind": "evaluate", "optimizer": "([^"]*)"\}', r"evaluate \1"),
    (rf"POST /jobs/{_WORD}/retry", r"jobs retry \1"),
    (rf"POST /families/{_WORD}/preview", r"families preview \1"),
    (r"POST /jobs( with a family)?", "train FAMILY"),
    (r"POST /families", "families create FILE"),
    (r"POST /datasets", "data add FILE"),
    (r"POST /optimizers", "optimizers upload FILE"),
    (r"POST /keys", "keys create NAME"),
    (rf"GET /families/{_WORD}/aliases", r"optimizers list --family \1"),
    (rf"GET /jobs\?sweep={_WORD}", r"jobs list --sweep \1"),
    (rf"GET /optimizers\?family={_WORD}", r"optimizers list --family \1"),
    (rf"GET /datasets/{_WORD}", r"data show \1"),
    (rf"GET /(jobs|optimizers|families)/{_WORD}(?![\w/])", r"\1 show \2"),
    (r"GET /datasets", "data"),
    (r"GET /(jobs|optimizers|families|keys)(?![\w/?])", r"\1"),
)
_REQUESTS = [(re.compile(rf"`?{request}`?"), f"`gradsmith {command}`") for request, command in _COMMANDS]
_NO_KEY = "Send an API key: `Authorization: Bearer gs_<id>_<secret>`."
_JOB = re.compile(r"\bjob_[0-9a-f]{24}([0-9a-f]{8})\b")
_LIST = re.compile(r" Families: [^.]*\.")


def as_commands(said: str) -> str:
    """The same sentence. What may have been meant takes the place of all that there is."""
    said = said.replace(_NO_KEY, "An API key is needed: `gradsmith login` keeps one, or set GRADSMITH_API_KEY.")
    for request, command in _REQUESTS:
        said = request.sub(command, said)
    return _LIST.sub(" `gradsmith families` lists them.", said) if "Did you mean" in said else said


def with_short_ids(said: str) -> str:
    """The same with the last eight characters of each job's id, which every command takes for it."""
    return _JOB.sub(r"\1", said)
