"""What operations share in the OpenAPI document: an example of every problem, and the headers of answers."""

from __future__ import annotations

from typing import Any

from app.http.problems import CATALOGUE, FieldError, document_of
from app.openapi.examples import JOB_ID

HEADERS_OF = {
    "401": ("WWW-Authenticate",),
    "408": ("Connection",),
    "416": ("Content-Range",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
HEADERS: dict[str, dict[str, Any]] = {
    name: {"description": description, "required": required, "schema": {"type": "string"}, "example": example}
    for name, required, description, example in (
        ("X-Request-Id", True, "Yours, or a new one; in the server's log too.", "req_0190f5a0c3d27c1e8a6b4f2d9e7c1a35"),
        ("RateLimit-Policy", False, "How often this key may call: `q` times in `w` seconds.", '"default";q=600;w=60'),
        ("RateLimit", False, "`r` calls are left, and the count starts anew in `t` seconds.", '"default";r=599;t=60'),
        ("Retry-After", True, "Seconds after which to try again.", "2"),
        ("WWW-Authenticate", True, "What was wrong with the key (RFC 6750).", 'Bearer realm="gradsmith"'),
        ("Content-Range", True, "How many bytes there are.", "bytes */21204"),
        ("Connection", True, "The rest of the body is not read.", "close"),
    )
}  # fmt: skip


def problem_example(code: str) -> dict[str, Any]:
    kind = CATALOGUE[code]
    document = document_of(
        code,
        f"{kind.title}. {kind.remedy}",
        instance=_INSTANCES.get(code.partition("_")[0], "/jobs"),
        request_id="req_0190f5a0c3d27c1e8a6b4f2d9e7c1a35",
        errors=[_PROBLEM_ERROR] if code == "invalid_request" else [],
    )
    return {"summary": kind.remedy, "value": document}


_PROBLEM_ERROR = FieldError(
    location="body",
    pointer="/recipe/meta_steps",
    code="greater_than_equal",
    message="0 is too small; send 1 or more",
)
# Where a problem's example happened, by the first word of its code.
_INSTANCES = {
    "job": f"/jobs/{JOB_ID}",
    "optimizer": "/optimizers/quadratic@7",
    "family": "/families/quadratc",
    "alias": "/families/quadratic/aliases/production",
    "precondition": "/families/quadratic/aliases/production",
    "key": "/keys/key_0198f0c2a4b07e3f9d5c1b2a3d4e5f60",
    "no": f"/jobs/{JOB_ID}/curve",
    "range": "/optimizers/quadratic@1",
}
