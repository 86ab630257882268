"""The OpenAPI document, which is part of the product.

FastAPI finds the paths, the parameters and the schemas; what every operation shares is said here, once: the errors that
anything can meet, the headers that every answer has, conditions and ranges, who may call, and where an answer leads.
`python -m app.write_openapi` writes docs/openapi.json; a test compares that copy with what the server serves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app.auth import required_scope
from app.http.problems import CATALOGUE, MEDIA_TYPE, ProblemDocument, add_response
from app.openapi.examples import PARAMETERS as KNOWN
from app.openapi.links import LINKS
from app.openapi.shared_answers import HEADERS, HEADERS_OF, problem_example

DESCRIPTION = (
    "Optimization as a service: name a family of tasks, and a learned optimizer is meta-trained for it, proved against "
    "tuned baselines on tasks it never saw, and filed in a versioned registry."
)
TAGS = {
    "jobs": "Meta-train a rule, measure an optimizer; follow it live, read its curve and its report.",
    "optimizers": "The registry: weights, records and model cards, by id, by version, by alias.",
    "families": "What can be trained on.",
    "datasets": "Tables of your own, which families can be made of.",
    "aliases": "Names of your own that move between a family's optimizers, and never by two at once.",
    "keys": "API keys of your workspace.",
    "health": "For supervisors, load balancers and Prometheus.",
}
METHODS = ("get", "put", "post", "delete", "patch")
_WITH_BODIES = ("put", "post", "delete", "patch")
_SCHEME = "apiKey"

_Operation = dict[str, Any]


def install(app: FastAPI, routes: Sequence[BaseRoute], *, keyed: bool = False) -> None:
    """`app.openapi()` as the product has it. `routes` are those of its routers; `keyed`: this server answers nobody
    without a key."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                separate_input_output_schemas=app.separate_input_output_schemas,
                license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
                tags=[{"name": name, "description": text} for name, text in TAGS.items()],
            )
            _restore_nulls(made, routes)
            app.openapi_schema = _finished(made, keyed)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, _Operation]]:
    """(path, method, operation), in the order of the document."""
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _finished(made: dict[str, Any], keyed: bool) -> dict[str, Any]:
    components = made["components"]
    schemas = components["schemas"]
    for replaced in ("HTTPValidationError", "ValidationError"):
        schemas.pop(replaced, None)
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["ProblemDocument"] = problem
    components["schemas"] = dict(sorted(schemas.items()))
    components["headers"] = HEADERS
    components["examples"] = {code: problem_example(code) for code in sorted(CATALOGUE)}
    components["securitySchemes"] = {
        _SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "gs_<id>_<secret>",
            "description": "An API key, as `gradsmith-server keys create` (in a checkout `./run keys create`) or "
            "POST /keys shows it once. A server on loopback needs none.",
        }
    }
    for path, method, operation in operations(made):
        _secure(operation, method, path, keyed)
        _name_parameters(operation)
        _say_conditions(operation, method)
        _complete_responses(operation, method)
    _share_refusals(made)
    return made


def _restore_nulls(made: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """FastAPI leaves every null out of the document, those of examples too."""
    for route in routes:
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            found = made["paths"][route.path][method.lower()]["responses"]
            for status, response in route.responses.items():
                for media_type, content in response.get("content", {}).items():
                    if "example" in content:
                        found[str(status)]["content"][media_type]["example"] = content["example"]


def _secure(operation: _Operation, method: str, path: str, keyed: bool) -> None:
    scope = required_scope(method.upper(), path)
    if scope is None:
        operation["security"] = []
        return
    operation["security"] = [{_SCHEME: [scope]}] if keyed else [{}, {_SCHEME: [scope]}]


def _name_parameters(operation: _Operation) -> None:
    for parameter in operation.get("parameters", []):
        _without_null(parameter)
        known = KNOWN.get(parameter["in"], {}).get(parameter["name"], {})
        for key, value in known.items():
            if key == "schema":
                parameter["schema"] |= value
            else:
                parameter.setdefault(key, value)


def _without_null(parameter: dict[str, Any]) -> None:
    """What may be left out of a URL or a header is there or not; it is never null, as FastAPI's schema has it."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        parameter["schema"] = kinds[0] | {key: value for key, value in schema.items() if key != "anyOf"}


def _say_conditions(operation: _Operation, method: str) -> None:
    """The headers that a GET may carry, by what it may answer."""
    if method != "get":
        return
    named = {parameter["name"] for parameter in operation.get("parameters", [])}
    responses = operation["responses"]
    for status, name, description in (
        ("304", "If-None-Match", "An `ETag` that you have: 304 when it still holds."),
        ("206", "Range", "Such as `bytes=0-1023`; one range. 206 with that part, 416 when there is none."),
        ("206", "If-Range", "The `ETag` that the parts you have are of; when it holds no more, all is sent."),
    ):
        if status in responses and name not in named:
            operation.setdefault("parameters", []).append(
                {
                    "name": name,
                    "in": "header",
                    "required": False,
                    "description": description,
                    "schema": {"type": "string", "title": name},
                }
            )


def _complete_responses(operation: _Operation, method: str) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        status: response
        for status, response in operation["responses"].items()
        if "HTTPValidationError" not in json.dumps(response)
    }
    if method in _WITH_BODIES:
        for code in ("invalid_json", "cross_origin", "too_slow", "body_too_large", "unsupported_media_type"):
            add_response(responses, code)
    public = operation["security"] == []
    for status, response in responses.items():
        headers = response.setdefault("headers", {})
        headers["X-Request-Id"] = _header("X-Request-Id")
        if not public:
            headers |= {name: _header(name) for name in ("RateLimit", "RateLimit-Policy")}
        for name in HEADERS_OF.get(str(status), ()):
            headers[name] = _header(name)
        if links := LINKS.get((operation["operationId"], str(status))):
            response["links"] = {link.name: link.document() for link in links}
    operation["responses"] = dict(sorted(responses.items(), key=lambda entry: str(entry[0])))


def _share_refusals(made: dict[str, Any]) -> None:
    """Operations that may be refused in the same ways say so in one place."""
    shared: dict[str, Any] = {}
    for _, _, operation in operations(made):
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get(MEDIA_TYPE)
            if content is not None:
                limited = () if "RateLimit" in response["headers"] else ("public",)
                name = ".".join((status, *sorted(content["examples"]), *limited))
                shared[name] = response
                operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    made["components"]["responses"] = dict(sorted(shared.items()))


def resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """What `node` refers to; itself when it is no reference."""
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}
