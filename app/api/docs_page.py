"""/docs: the API reference as one plain page, made from the OpenAPI document. No script, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from app.errors import CATALOGUE, MEDIA_TYPE
from app.report.page import STYLE

_STYLE = (
    STYLE
    + """
nav a { margin-right: 1rem; } section { border-top: 1px solid #e5e7eb; padding: .5rem 0 1rem; }
pre { background: #f8fafc; border: 1px solid #e5e7eb; border-radius: 4px; padding: .6rem; overflow-x: auto;
  font-size: 13px; max-height: 24rem; }
span.method { display: inline-block; min-width: 3.2rem; font: 600 13px ui-monospace, monospace; color: #1d4ed8; }
td.method { font: 600 13px ui-monospace, monospace; color: #1d4ed8; }
.path { font: 600 15px ui-monospace, monospace; } td, th { text-align: left; vertical-align: top; }
details > summary { cursor: pointer; color: #4b5563; }
"""
)


def docs_page(document: Mapping[str, Any]) -> str:
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    info = document["info"]
    body = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f'<p class="lead">{_prose(info.get("description", ""))}</p>',
        '<nav><a href="/openapi.json">OpenAPI document</a><a href="#schemas">Schemas</a>'
        '<a href="#problems">Errors</a></nav>',
        _contents(operations),
        *(_operation(path, method, operation) for path, method, operation in operations),
        _problems(),
        _schemas(document["components"]["schemas"]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _contents(operations: list[tuple[str, str, Mapping[str, Any]]]) -> str:
    rows = "".join(
        f'<tr><td class="method">{method.upper()}</td><td class="path">'
        f'<a href="#{escape(operation["operationId"])}">{escape(path)}</a></td>'
        f"<td>{_prose(operation['summary'])}</td></tr>"
        for path, method, operation in operations
    )
    return f"<table>{rows}</table>"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<section id="{escape(operation["operationId"])}"><h2><span class="method">{method.upper()}</span> '
        f'<span class="path">{escape(path)}</span></h2><p>{_prose(operation["summary"])}.</p>',
    ]
    if operation.get("description"):
        parts.append(f"<p>{_prose(operation['description'])}</p>")
    if operation.get("parameters"):
        parts.append(_parameters(operation["parameters"]))
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(_examples("Request body", media_type, content))
    for status, response in operation["responses"].items():
        contents = response.get("content", {})
        if MEDIA_TYPE in contents:
            codes = contents[MEDIA_TYPE].get("examples", {})
            links = " ".join(f'<a href="#problem-{code}"><code>{code}</code></a>' for code in codes)
            parts.append(f"<p><b>{status}</b> {links}</p>")
            continue
        described = _prose(response.get("description", "") or "")
        parts.append(f"<p><b>{status}</b> {described}</p>")
        parts += [_examples("", media_type, content) for media_type, content in contents.items()]
    return "".join(parts) + "</section>"


def _parameters(parameters: list[Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{escape(parameter['in'])}</td>"
        f"<td>{_prose(parameter.get('description', ''))}</td></tr>"
        for parameter in parameters
    )
    return f"<table>{rows}</table>"


def _examples(label: str, media_type: str, content: Mapping[str, Any]) -> str:
    values = [("", content["example"])] if "example" in content else []
    values += [(name, example["value"]) for name, example in content.get("examples", {}).items()]
    reference = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    link = f' <a href="#schema-{escape(reference)}">{escape(reference)}</a>' if reference else ""
    head = f"<p>{escape(label)} <code>{escape(media_type)}</code>{link}</p>"
    shown = ""
    for name, value in values:
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        shown += f"<details{' open' if len(text) < 400 else ''}><summary>example {escape(name)}</summary>"
        shown += f"<pre>{escape(text)}</pre></details>"
    return head + shown


def _problems() -> str:
    rows = "".join(
        f'<tr id="problem-{code}"><td><code>{code}</code></td><td>{kind.status}</td><td>{escape(kind.title)}</td>'
        f"<td>{_prose(kind.remedy)}</td></tr>"
        for code, kind in CATALOGUE.items()
    )
    return (
        '<section id="problems"><h2>Errors</h2><p>Every error is <code>application/problem+json</code> (RFC 9457); '
        f"programs look at <code>code</code>.</p><table>{rows}</table></section>"
    )


def _schemas(schemas: Mapping[str, Any]) -> str:
    parts = [
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<pre>{escape(json.dumps(schema, indent=2))}</pre></details>"
        for name, schema in sorted(schemas.items())
    ]
    return f'<section id="schemas"><h2>Schemas</h2>{"".join(parts)}</section>'


def _prose(text: str) -> str:
    """Escaped, with `code` between backticks."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
