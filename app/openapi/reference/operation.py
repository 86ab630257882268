"""One operation: what it takes, a command to try it, what it answers and what may go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.http.problems import MEDIA_TYPE
from app.openapi.document import resolved
from app.openapi.reference.curl import commands
from app.openapi.reference.html import attribute, code, command, link, prose, sample, table
from app.openapi.reference.schema import type_of

Operation = Mapping[str, Any]


def section(document: dict[str, Any], path: str, method: str, operation: Operation, *, keyed: bool) -> str:
    name = operation["operationId"]
    heading = link(name, f"{badge(method)} {code(path)}")
    parts = [
        f'<section id="{attribute(name)}" class="operation"><h3>{heading}{_scope(operation)}</h3>'
        f"<p>{prose(operation['summary'])}.</p>",
    ]
    if operation.get("description"):
        parts.append(f"<p>{prose(operation['description'])}</p>")
    for label, text in commands(path, method, operation, keyed=keyed):
        parts += [f'<p class="label">{prose(label)}</p>' if label else "", command(text)]
    if operation.get("parameters"):
        parts.append(_parameters(operation["parameters"]))
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body</h4><p>{code(media_type)}: {type_of(content['schema'])}</p>")
    parts.append("<h4>Answers</h4>")
    refusals = []
    for status, response in operation["responses"].items():
        response = resolved(document, response)
        content = response.get("content", {})
        if MEDIA_TYPE in content:
            refusals.append((status, " ".join(link(f"problem-{each}", code(each)) for each in names_of(content))))
        else:
            parts.append(_answer(status, response))
    parts.append(table(refusals, ("status", "errors")))
    return "".join(parts) + "</section>"


def badge(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def names_of(content: Mapping[str, Any]) -> list[str]:
    return list(content[MEDIA_TYPE]["examples"])


def _scope(operation: Operation) -> str:
    scopes = [scope for choice in operation["security"] for names in choice.values() for scope in names]
    return f'<span class="scope">scope {link("keys", code(scopes[0]))}</span>' if scopes else ""


def _parameters(parameters: list[Mapping[str, Any]]) -> str:
    rows = [
        (
            code(parameter["name"]),
            parameter["in"],
            type_of(parameter["schema"]),
            prose(parameter.get("description", "")) + _default(parameter["schema"]),
        )
        for parameter in parameters
    ]
    return "<h4>Parameters</h4>" + table(rows, ("name", "in", "type", "meaning"))


def _default(schema: Mapping[str, Any]) -> str:
    return f" Default: {code(str(schema['default']))}." if schema.get("default") is not None else ""


def _answer(status: str, response: Mapping[str, Any]) -> str:
    told = response.get("description", "")
    said = "" if told == "Successful Response" else f" {prose(told)}"
    headers = [
        name for name in response.get("headers", {}) if name not in ("X-Request-Id", "RateLimit", "RateLimit-Policy")
    ]
    parts = [f'<p><span class="status">{status}</span>{said}']
    if headers:
        parts.append(f" Headers: {', '.join(code(name) for name in headers)}.")
    parts.append("</p>")
    for media_type, content in response.get("content", {}).items():
        schema = content.get("schema", {})
        parts.append(f"<p>{code(media_type)}: {type_of(schema) if schema else 'text'}</p>")
        if "example" in content:
            parts.append(sample(content["example"]))
    return "".join(parts)
