"""The page as a whole: navigation, how to begin, operations by noun, errors, schemas."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from app.commands import command as run_by
from app.http.problems import CATALOGUE
from app.openapi.document import operations
from app.openapi.reference import operation, schema
from app.openapi.reference.curl import BASE
from app.openapi.reference.html import attribute, code, command, link, prose, table

_STATIC = Path(__file__).parents[2] / "static"

_FIRST_STEPS = f"""curl {BASE}/jobs --json '{{"kind": "meta_train", "family": "quadratic"}}'
curl -N {BASE}/jobs/$JOB/events
curl {BASE}/optimizers/quadratic@best -o quadratic.safetensors"""

_RULES = (
    ("Ids", "Sort by age. `<family>@<version>` and `<family>@<alias>` stand wherever an optimizer's id does; `latest` "
     "and `best` move by themselves."),
    ("Idempotency", "Send an `Idempotency-Key` with a POST that creates: the same key and body get the first answer "
     "again for 24 hours, with `Idempotent-Replayed: true`."),
    ("Pages", "`limit` and `after`. An answer has `data`, `has_more` and `next`: the `after` of the next page."),
    ("Caching", "What can be cached has an `ETag`; `If-None-Match` saves you the bytes. Weights by id or version never "
     "change."),
    ("Changes", "Whoever moves an alias sends `If-Match` with the `ETag` they saw: nobody's change is lost."),
    ("Requests", "Bodies are JSON of at most 1 MB. `X-Request-Id` is yours, or a new one; it stands in the server's "
     "log."),
    ("Limits", "`RateLimit` says how many calls are left and `RateLimit-Policy` how many there are; 429 says when to "
     "come back, in `Retry-After`."),
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    html: str
    policy: str  # the Content-Security-Policy that it needs

    def at(self, base_url: str) -> str:
        """The page's HTML, with commands that call `base_url`."""
        return self.html.replace(BASE, escape(base_url.rstrip("/")))


def reference_page(document: dict[str, Any], *, keyed: bool) -> Page:
    style = (_STATIC / "reference.css").read_text(encoding="utf-8")
    script = (_STATIC / "reference.js").read_text(encoding="utf-8")
    info = document["info"]
    found = list(operations(document))
    grouped = {tag["name"]: [each for each in found if each[2]["tags"][0] == tag["name"]] for tag in document["tags"]}
    schemas = document["components"]["schemas"]
    main = [
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        f'<p class="lead">{prose(info["description"])}</p>',
        _beginning(keyed),
    ]
    for tag in document["tags"]:
        name = tag["name"]
        main.append(
            f'<section id="{attribute(name)}-calls" class="noun"><h2>{escape(name.capitalize())}</h2>'
            f"<p>{prose(tag['description'])}</p></section>"
        )
        main += [operation.section(document, *each, keyed=keyed) for each in grouped[name]]
    main += [_problems(), '<section id="schemas"><h2>Schemas</h2></section>']
    main += [schema.section(name, value) for name, value in schemas.items()]
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title>"
        '<link rel="icon" href="/favicon.svg" type="image/svg+xml">'
        f"<style>{style}</style></head><body>"
        f'<a class="skip" href="#content">To the content</a>{_navigation(grouped, schemas)}'
        f'<main id="content">{"".join(main)}</main><script>{script}</script></body></html>\n'
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src 'self'; "
        "base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    return Page(html, policy)


def _navigation(grouped: Mapping[str, list[tuple[str, str, dict[str, Any]]]], schemas: Mapping[str, Any]) -> str:
    parts = [
        '<nav aria-label="Contents"><a class="home" href="/">Gradsmith</a>'
        '<label class="search" hidden>Search <kbd>/</kbd>'
        '<input type="search" id="search" autocomplete="off" spellcheck="false" placeholder="curve, 409, If-Match">'
        "</label>"
        '<p id="nothing" role="status" hidden>Nothing has all these words.</p>'
        '<ul><li><a href="#begin">Begin here</a></li><li><a href="#errors">Errors</a></li>'
        '<li><a href="/openapi.json">OpenAPI document</a></li></ul>'
    ]
    for tag, found in grouped.items():
        items = "".join(
            f"<li>{link(each['operationId'], f'{operation.badge(method)} <span>{escape(path)}</span>')}</li>"
            for path, method, each in found
        )
        parts.append(f"<h2>{link(f'{tag}-calls', escape(tag.capitalize()))}</h2><ul>{items}</ul>")
    items = "".join(f"<li>{link(f'schema-{name}', escape(name))}</li>" for name in schemas)
    return "".join(parts) + f"<h2>{link('schemas', 'Schemas')}</h2><ul>{items}</ul></nav>"


def _beginning(keyed: bool) -> str:
    keys = (
        "This server wants an API key with every call: "
        "<code>Authorization: Bearer gs_&lt;id&gt;_&lt;secret&gt;</code>. "
        f"{prose(run_by('keys create'))} on its machine makes the first."
        if keyed
        else "This server runs on its own machine and wants no key. One that others can reach wants "
        "<code>Authorization: Bearer gs_&lt;id&gt;_&lt;secret&gt;</code> with every call."
    )
    steps = _FIRST_STEPS
    if keyed:
        steps = steps.replace("curl ", "curl -H @me.key ")
    rules = "".join(f"<dt>{name}</dt><dd>{prose(text)}</dd>" for name, text in _RULES)
    return (
        f'<section id="begin"><h2>Begin here</h2><p>Train an optimizer, watch it, fetch it:</p>{command(steps)}'
        f"<dl>{rules}</dl></section>"
        f'<section id="keys"><h2>Keys</h2><p>{keys} A key has scopes: <code>read</code> looks, <code>submit</code> '
        "also starts and stops, <code>admin</code> also makes and revokes keys. What belongs to another workspace is "
        "answered 404, as if it were not there.</p></section>"
    )


def _problems() -> str:
    rows = [
        (f'<span id="problem-{name}">{code(name)}</span>', str(kind.status), escape(kind.title), prose(kind.remedy))
        for name, kind in sorted(CATALOGUE.items(), key=lambda entry: entry[1].status)
    ]
    return (
        '<section id="errors"><h2>Errors</h2><p>Every error is <code>application/problem+json</code> (RFC 9457), a '
        f"{schema.type_of({'$ref': '#/components/schemas/ProblemDocument'})}. Programs look at <code>code</code>, "
        "people at <code>detail</code>; <code>errors</code> names each place that is wrong by a JSON pointer.</p>"
        f"{table(rows, ('code', 'status', 'what happened', 'what to do'))}</section>"
    )
