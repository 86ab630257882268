"""Where an answer leads: the `links` of the OpenAPI document, by which tools go from one call to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Link:
    """An OpenAPI link from an answer to the operation that takes a part of it, by runtime expressions."""

    name: str
    operation: str
    parameters: Mapping[str, str]
    description: str

    def document(self) -> dict[str, Any]:
        return {
            "operationId": self.operation,
            "parameters": dict(self.parameters),
            "description": self.description,
        }


def _jobs(at: str) -> tuple[Link, ...]:
    """What can be done with a job whose id stands at `at`."""
    return tuple(
        Link(name, operation, {"job_id": at}, description)
        for name, operation, description in (
            ("job", "jobs_get", "How it stands."),
            ("events", "jobs_events", "Its events, as they happen."),
            ("curve", "jobs_curve", "Its loss curve."),
            ("report", "jobs_report", "What its evaluation found."),
            ("cancel", "jobs_cancel", "Stop it."),
            ("retry", "jobs_retry", "Run it again, once it has failed or was cancelled."),
        )
    )


def _optimizers(at: str) -> tuple[Link, ...]:
    return (
        Link("optimizer", "optimizers_get", {"reference": at}, "Its weights, or its record."),
        Link("card", "optimizers_card", {"reference": at}, "Its model card."),
        Link("anatomy", "optimizers_anatomy", {"reference": at}, "Its updates, once it has been evaluated."),
    )


def _forms_of_job(at: str) -> tuple[Link, ...]:
    """The addresses of single forms: no `Accept` is needed there."""
    curve = (
        Link(f"curve_{form}", f"jobs_curve_{form}", {"job_id": at}, f"Its loss curve as {name}.")
        for form, name in (("json", "JSON"), ("csv", "CSV"), ("bin", "raw columns"), ("png", "a picture"))
    )
    report = (
        Link(f"report_{form}", f"jobs_report_{form}", {"job_id": at}, f"What its evaluation found, as {name}.")
        for form, name in (("json", "JSON"), ("html", "a page"), ("png", "a picture"))
    )
    search = (
        Link("search", "jobs_search", {"job_id": at}, "What a sweep has tried."),
        Link("search_png", "jobs_search_png", {"job_id": at}, "What a sweep has tried, as a picture."),
        Link("search_svg", "jobs_search_svg", {"job_id": at}, "What a sweep has tried, as a drawing."),
    )
    return (*curve, *report, *search)


def _forms_of_optimizer(at: str) -> tuple[Link, ...]:
    anatomy = (
        Link(f"anatomy_{form}", f"optimizers_anatomy_{form}", {"reference": at}, f"Its updates, as {name}.")
        for form, name in (("json", "JSON"), ("svg", "a drawing"), ("png", "a picture"))
    )
    return (
        Link("weights", "optimizers_weights", {"reference": at}, "Its weights."),
        Link("file", "optimizers_file", {"reference": at}, "Its weights with their card."),
        Link("record", "optimizers_record", {"reference": at}, "Its record."),
        Link("card", "optimizers_card", {"reference": at}, "Its model card."),
        Link("card_md", "optimizers_card_md", {"reference": at}, "Its model card as Markdown."),
        Link("card_txt", "optimizers_card_txt", {"reference": at}, "Its model card as text that browsers show."),
        Link("anatomy", "optimizers_anatomy", {"reference": at}, "Its updates, once it has been evaluated."),
        *anatomy,
    )


def _page(operation: str, **kept: str) -> Link:
    return Link(
        "next_page", operation, {"after": "$response.body#/next", **kept}, "The next page, with the same filters."
    )


_JOB = _jobs("$response.body#/id")
_OF_JOB = (
    *_JOB,
    Link("optimizer", "optimizers_get", {"reference": "$response.body#/optimizer"}, "What it made, or measures."),
    Link("evaluation", "jobs_report", {"job_id": "$response.body#/evaluation"}, "What its evaluation found."),
)
_FAMILY_NAME = "$request.path.name"
_ALIAS_PATH = {"name": _FAMILY_NAME, "alias": "$request.path.alias"}
_CONDITION = {"If-Match": "$response.header.ETag"}
_MOVE = Link("move", "aliases_put", _ALIAS_PATH | _CONDITION, "Move it, unless somebody else has meanwhile.")
_DELETE = Link("delete", "aliases_delete", _ALIAS_PATH | _CONDITION, "Delete it, unless somebody else has moved it.")
_NAMED = Link("optimizer", "optimizers_get", {"reference": "$response.body#/reference"}, "The optimizer that it names.")

LINKS: dict[tuple[str, str], tuple[Link, ...]] = {
    ("jobs_create", "202"): _JOB,
    ("jobs_list", "200"): (_page("jobs_list"), *_jobs("$response.body#/data/0/id")[:1]),
    ("jobs_curves", "200"): _jobs("$response.body#/data/0/job")[:1],
    ("jobs_get", "200"): (*_OF_JOB, *_forms_of_job("$response.body#/id")),
    ("jobs_cancel", "200"): _JOB,
    ("jobs_cancel", "202"): _JOB,
    ("jobs_retry", "202"): _JOB,
    ("families_list", "200"): (
        Link("family", "families_get", {"name": "$response.body#/data/0/name"}, "Its recipe and schemas."),
        Link("aliases", "aliases_list", {"name": "$response.body#/data/0/name"}, "Your aliases of it."),
    ),
    ("families_create", "201"): (
        Link("family", "families_get", {"name": "$response.body#/name"}, "As it is."),
        Link("aliases", "aliases_list", {"name": "$response.body#/name"}, "Your aliases of it."),
    ),
    ("families_get", "200"): (
        Link("aliases", "aliases_list", {"name": _FAMILY_NAME}, "Your aliases of it."),
        Link("preview", "families_preview", {"name": _FAMILY_NAME}, "What a training on it would need."),
    ),
    ("families_preview", "202"): tuple(link for link in _jobs("$response.body#/job/id") if link.name != "curve"),
    ("datasets_list", "200"): (
        Link("dataset", "datasets_get", {"dataset": "$response.body#/data/0/name"}, "Its columns, classes and groups."),
        Link("fetch", "datasets_fetch", {"dataset": "$response.body#/built_in/0/name"}, "Download it."),
        Link("state", "datasets_fetch_state", {"dataset": "$response.body#/built_in/0/name"}, "How that stands."),
    ),
    ("datasets_create", "201"): (
        Link("dataset", "datasets_get", {"dataset": "$response.body#/name"}, "As it is."),
        Link("delete", "datasets_delete", {"dataset": "$response.body#/name"}, "Delete it, while no family needs it."),
    ),
    ("aliases_list", "200"): (
        _page("aliases_list", name=_FAMILY_NAME),
        Link("alias", "aliases_get", {"name": _FAMILY_NAME, "alias": "$response.body#/data/0/alias"}, "With its ETag."),
    ),
    ("aliases_get", "200"): (_MOVE, _DELETE, _NAMED),
    ("aliases_put", "200"): (_MOVE, _DELETE),
    ("aliases_put", "201"): (Link("alias", "aliases_get", _ALIAS_PATH, "As it is now."), _MOVE, _DELETE),
    ("optimizers_list", "200"): (_page("optimizers_list"), *_optimizers("$response.body#/data/0/id")[:1]),
    ("optimizers_create", "201"): (
        *_optimizers("$response.body#/id")[:2],
        Link("change", "optimizers_change", {"reference": "$response.body#/id"}, "Describe it, or archive it."),
        Link("delete", "optimizers_delete", {"reference": "$response.body#/id"}, "Delete it, while nothing needs it."),
    ),
    ("optimizers_get", "200"): _forms_of_optimizer("$request.path.reference"),
    ("keys_create", "201"): (
        Link("key", "keys_get", {"key_id": "$response.body#/id"}, "The key, without its token."),
        Link("revoke", "keys_revoke", {"key_id": "$response.body#/id"}, "Revoke it."),
    ),
    ("keys_list", "200"): (
        _page("keys_list"),
        Link("key", "keys_get", {"key_id": "$response.body#/data/0/id"}, "One of them."),
    ),
}
