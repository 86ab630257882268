"""Each operation as a command to paste into a shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

BASE = "\x00base\x00"
"""Stands for this server's URL until a request says what that is."""

# What a call cannot do without, though its schema has to leave it open.
_HEADERS = {
    "aliases_put": "If-None-Match: *",
    "aliases_delete": 'If-Match: "3-0198f0c2a4b07e3f"',
}
_SENT = {"text/csv": "customers.csv"}
_FILES = {
    "application/vnd.safetensors": "quadratic.safetensors",
    "application/octet-stream": "curve.f64",
    "image/png": "picture.png",
    "text/html": "report.html",
}


def commands(path: str, method: str, operation: Mapping[str, Any], *, keyed: bool) -> list[tuple[str, str]]:
    """(what it is for, command): one for each example of a body, or for each form that the answer has."""
    where = path
    asked = []
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            where = where.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
        elif parameter["in"] == "query" and parameter.get("required"):
            example = parameter["example"]
            values = example if isinstance(example, list) else [example]
            asked += [f"{parameter['name']}={value}" for value in values]
    where += f"?{'&'.join(asked)}" if asked else ""
    words = ["curl"] if method in ("get", "post") else ["curl", "-X", method.upper()]
    if method == "post" and "requestBody" not in operation:
        words += ["-X", "POST"]
    forms = [form for answer in operation["responses"].values() for form in _forms(answer)]
    if "text/event-stream" in forms:
        words.append("-N")
    parts = [f"{shlex.join(words)} {BASE}{where}"]
    if keyed and operation["security"]:
        parts.append("-H @me.key")
    if header := _HEADERS.get(operation["operationId"]):
        parts.append(f"-H {shlex.quote(header)}")
    given = operation.get("requestBody", {}).get("content", {})
    if sent := next((form for form in given if form in _SENT), None):
        return [("", _joined(*parts, f"-H {shlex.quote(f'Content-Type: {sent}')}", f"--data-binary @{_SENT[sent]}"))]
    if bodies := _bodies(operation):
        return [(label, _joined(*parts, f"--json {_quoted(body)}")) for label, body in bodies]
    made = []
    for index, form in enumerate(forms or [""]):
        accept = (f"-H {shlex.quote(f'Accept: {form}')}",) if index else ()
        file = (f"-o {_FILES[form]}",) if form in _FILES else ()
        made.append((f"As `{form}`" if len(forms) > 1 else "", _joined(*parts, *accept, *file)))
    return made


def _joined(*parts: str) -> str:
    line = " ".join(parts)
    return line if len(line) - len(BASE) < 70 else " \\\n  ".join(parts)


def _quoted(body: Any) -> str:
    line = json.dumps(body)
    return shlex.quote(line if len(line) < 80 else json.dumps(body, indent=2))


def _forms(answer: Mapping[str, Any]) -> list[str]:
    return [form for form in answer.get("content", {}) if form != "application/problem+json"]


def _bodies(operation: Mapping[str, Any]) -> list[tuple[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return [(example.get("summary", ""), example["value"]) for example in content.get("examples", {}).values()]
