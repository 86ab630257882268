"""The OpenAPI document, which is part of the product.

`python -m app.write_openapi` writes docs/openapi.json; a test compares that copy with what the server serves.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.errors import ProblemDocument

VERSION = version("gradsmith-server")
DESCRIPTION = (
    "Optimization as a service: name a family of tasks, and a learned optimizer is meta-trained for it, proved against "
    "tuned baselines on tasks it never saw, and filed in a versioned registry."
)


def install(app: FastAPI) -> None:
    """`app.openapi()` with the problem document among the schemas, and without FastAPI's own 422."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes,
                separate_input_output_schemas=app.separate_input_output_schemas,
            )  # fmt: skip
            schemas = made["components"]["schemas"]
            for replaced in ("HTTPValidationError", "ValidationError"):
                schemas.pop(replaced, None)
            problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"))
            schemas["ProblemDocument"] = problem
            made["components"]["schemas"] = dict(sorted(schemas.items()))
            for methods in made["paths"].values():
                for operation in methods.values():
                    operation["responses"] = {
                        status: response
                        for status, response in operation["responses"].items()
                        if "HTTPValidationError" not in json.dumps(response)
                    }
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way


def text_of(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
