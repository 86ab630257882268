"""What is wrong with a request is said in one sentence with the value and the next step, never in pydantic's words."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from app.http.problems import MOST_ERRORS
from models.baselines import TUNED
from tests.app.api.shelf import Shelf

SMALLEST = {"kind": "meta_train", "family": "quadratic"}
SMALLEST_JOB = '{"kind": "meta_train", "family": "quadratic"}'
JSON = {"Content-Type": "application/json"}
KINDS = (
    'send "meta_train" to train a rule on a family, '
    '"evaluate" to measure an optimizer of the registry against tuned baselines on held-out tasks, '
    '"preview" to see how tuned baselines do on a family, in seconds, before training anything, '
    'or "sweep" to train on a family with many recipes, and keep the best'
)
THEIRS = re.compile(r"Input should|Extract tag|extract tag|Field required|discriminator|String should|dictionary|Tuple")


def refused(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    assert not THEIRS.search(answer.text), answer.text
    problem = answer.json()
    assert problem["errors"][0]["message"] in problem["detail"]
    return [error["message"] for error in problem["errors"]]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("", f"The body is missing; send a JSON object such as {SMALLEST_JOB}"),
        ("null", f"The body is null; send a JSON object such as {SMALLEST_JOB}"),
        ("[1, 2]", f"The body is [1, 2]; send a JSON object such as {SMALLEST_JOB}"),
        ("7", f"The body is 7; send a JSON object such as {SMALLEST_JOB}"),
        ("{}", f"kind: is required, but missing in {{}}; {KINDS}"),
        ('{"kind": "train"}', f'kind: "train" is not one of the choices; {KINDS}'),
        ('{"kind": null}', f"kind: null is not one of the choices; {KINDS}"),
        ('{"kind": "evaluate"}', 'optimizer: is required, but missing in {"kind": "evaluate"}; add it'),
    ],
)
def test_a_body_that_is_no_job_is_told_what_one_is(standing_api: httpx.Client, body: str, detail: str) -> None:
    answer = standing_api.post("/jobs", content=body, headers=JSON)
    refused(answer)
    assert answer.json()["detail"] == detail


@pytest.mark.parametrize(
    ("method", "path", "example"),
    [
        ("PUT", "/families/quadratic/aliases/prod", '{"optimizer": "quadratic@1"}'),
        ("POST", "/keys", '{"name": "nightly training"}'),
    ],
)
def test_an_example_is_of_the_operation_that_was_called(
    standing_api: httpx.Client, method: str, path: str, example: str
) -> None:
    for body, found in (("", "missing"), ("7", "7")):
        answer = standing_api.request(method, path, content=body, headers=JSON)
        refused(answer)
        assert answer.json()["detail"] == f"The body is {found}; send a JSON object such as {example}"


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/keys", {"name": "x", "scope": ["read"]}, "'scope' is not a field here; did you mean 'scopes'?"),
        (
            "POST", "/keys", {"name": "x", "colour": "red"},
            "'colour' is not a field here; known are: name, scopes, expires_at, max_active_jobs",
        ),
        ("PUT", "/families/quadratic/aliases/prod", {"optimizer": "quadratic@1", "optimiser": ""},
         "'optimiser' is not a field here; did you mean 'optimizer'?"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_told_what_was_meant_by_every_operation(
    standing_api: httpx.Client, method: str, path: str, body: dict[str, Any], message: str
) -> None:
    assert refused(standing_api.request(method, path, json=body)) == [message]


def test_a_family_that_is_misspelt_in_a_path_is_told_which_was_meant(standing_api: httpx.Client, shelf: Shelf) -> None:
    for path in ("/families/quadratc", "/families/quadratc/aliases"):
        answer = standing_api.get(path)
        assert (answer.status_code, answer.json()["suggestion"]) == (404, "quadratic")
        assert "There is no family 'quadratc'. Did you mean 'quadratic'? Families: " in answer.json()["detail"]
    far = standing_api.get("/families/xyz").json()
    assert (far["suggestion"], "Did you mean" in far["detail"]) == (None, False)
    for wrong, meant in (("quadratc@best", "quadratic@best"), ("quadratc@1", "quadratic@1")):
        found = shelf.api.get(f"/optimizers/{wrong}")
        assert (found.status_code, f"Did you mean {meant}? " in found.json()["detail"]) == (404, True), found.text
        posted = shelf.api.post("/jobs", json={"kind": "evaluate", "optimizer": wrong})
        assert (posted.status_code, f"Did you mean {meant}? " in posted.json()["detail"]) == (422, True), posted.text
    for real in ("xyz@best", "quadratic-uniform@best"):  # nothing like it; a family, but without optimizers
        assert "Did you mean" not in shelf.api.get(f"/optimizers/{real}").text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": None}, "null is not a JSON object; send one such as {}, or leave it out"),
        (
            {"recipe": {"rule": "mlp"}},
            '"mlp" is text, not a JSON object; send one such as {"kind": "mlp"}, or leave it out',
        ),
        ({"recipe": {"rule": 5}}, '5 is not a JSON object; send one such as {"kind": "lstm"}, or leave it out'),
        (
            {"recipe": {"rules": {"bias": "mpl"}}},
            '"mpl" is text, not a JSON object; send one such as {"kind": "mlp"}, or leave it out',
        ),
        ({"recipe": [1]}, "[1] is an array, not a JSON object; send one such as {}, or leave it out"),
        ({"recipe": {"horizon": 0}}, "0 is too small; send 1 or more"),
        (
            {"recipe": {"horizon": "100"}},
            '"100" is text, not a whole number; send one such as 20, without quotes or fraction',
        ),
        ({"recipe": {"meta_learning_rate": 0}}, "0 is too small; send more than 0.0"),
        ({"recipe": {"meta_step": 9}}, "'meta_step' is not a field here; did you mean 'meta_steps'?"),
        (
            {"tasks": 64},
            "send a JSON object with the fields of the family's tasks that change, which schemas.tasks of GET "
            "/families/{name} lists; how many tasks there are is recipe.tasks for a training and evaluation.test_tasks "
            "for an evaluation; got 64",
        ),
        ({"tasks": {"dimensions": 9}}, "'dimensions' is not a field here; did you mean 'dimension'?"),
        ({"meta_step": 9}, "'meta_step' is not a field here; did you mean 'recipe.meta_steps'?"),
        ({"horizon": 9}, "'horizon' is not a field here; did you mean 'recipe.horizon'?"),
        (
            {"recipe": {"forget_bias": 2.0}},
            "'forget_bias' is not a field here; did you mean 'recipe.rule.forget_bias'?",
        ),
        ({"familly": "x"}, "'familly' is not a field here; did you mean 'family'?"),
        (
            {"recipe": {"rule": {"units": 9}}},
            "'units' is not a field here; known are: kind, hidden_size, layers, input, head, p, output_scale, "
            "forget_bias, averaging",
        ),
        (
            {"evaluation": {"baselines": ["adem"]}},
            '"adem" is not one of the choices (did you mean "adam"?); send "'
            + '", "'.join([*TUNED][:-1])
            + f'" or "{[*TUNED][-1]}"',
        ),
        ({"evaluation": {"baselines": []}}, "[] is too short; send 1 or more items"),
        ({"evaluation": {"baselines": "adam"}}, '"adam" is text, not an array; put it in square brackets'),
        ({"evaluation": {"baselines": "[nag,adm]"}}, '"[nag,adm]" is text, not an array; send ["nag", "adm"]'),
        ({"evaluation": {"baselines": "nag, adam"}}, '"nag, adam" is text, not an array; send ["nag", "adam"]'),
        ({"evaluate": "yes"}, '"yes" is text, not a truth value; send true or false, without quotes'),
        ({"metadata": {"a": 1}}, "1 is not text; put it in double quotes"),
        (
            {"metadata": {"a b": "1"}},
            '"a b" does not fit; send 1 to 64 letters, digits, dots, hyphens or underscores',
        ),
        ({"metadata": {"a": "x" * 513}}, f'"{"x" * 59}... (513 characters) is too long; send 512 characters or fewer'),
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, "17 items are too many; send 16 or fewer"),
    ],
)
def test_one_sentence_says_what_is_wrong(standing_api: httpx.Client, change: dict[str, Any], message: str) -> None:
    # one alone: nothing that follows from it is an error of its own
    assert refused(standing_api.post("/jobs", json=SMALLEST | change)) == [message]


A_FAMILY = 'send the name of a family, such as "quadratic" (GET /families lists them)'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"family": {"tasks": {"hidden": [16]}}},
            f'{{"tasks": {{"hidden": [16]}}}} is an object, not text; {A_FAMILY}; '
            "what a job may change of it goes into `tasks`, `recipe` and `evaluation`",
        ),
        ({"family": ["quadratic"]}, f'["quadratic"] is an array, not text; {A_FAMILY}'),
        ({"family": 3}, f"3 is not text; {A_FAMILY}"),
        ({"metadata": {"family": {}}}, '{} is an object, not text; send text in double quotes, such as "a"'),
        ({"metadata": {"family": 1}}, "1 is not text; put it in double quotes"),
        ({"metadata": {"a": None}}, 'null is not text; send text in double quotes, such as "a"'),
        ({"seed": [7]}, "[7] is an array, not a whole number; send one such as 20"),
        ({"seed": 7.5}, "7.5 is not a whole number; send one such as 20"),
        ({"seed": True}, "true is a truth value, not a whole number; send one such as 20"),
        ({"recipe": {"meta_learning_rate": {}}}, "{} is an object, not a number; send one such as 0.5"),
        (
            {"recipe": {"meta_learning_rate": "0.1"}},
            '"0.1" is text, not a number; send one such as 0.5, without quotes',
        ),
        ({"evaluate": 1}, "1 is not a truth value; send true or false"),
        (
            {"evaluation": {"baselines": {"adam": 1}}},
            '{"adam": 1} is an object, not an array; send its items in square brackets, or leave it out',
        ),
    ],
)
def test_advice_fits_the_type_that_was_sent(standing_api: httpx.Client, change: dict[str, Any], message: str) -> None:
    """Quotes and brackets are advised only where adding them, or leaving them out, mends the value."""
    assert refused(standing_api.post("/jobs", json=SMALLEST | change)) == [message]


def test_an_optimizer_that_is_no_text_is_told_what_names_one(standing_api: httpx.Client) -> None:
    advice = 'send an id or a reference, such as "quadratic@best"'
    for value, found in (({"id": 1}, '{"id": 1} is an object'), ([], "[] is an array"), (None, "null is")):
        wanted = f"{found}{'' if value is None else ','} not text; {advice}"
        for method, path, kind in (
            ("POST", "/jobs", {"kind": "evaluate"}),
            ("PUT", "/families/quadratic/aliases/prod", {}),
        ):
            answer = standing_api.request(method, path, json=kind | {"optimizer": value})
            assert refused(answer) == [wanted]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("/jobs?limit=ten", '"ten" is not a whole number; send digits, such as 20'),
        ("/jobs?limit=101", '"101" is too large; send 100 or less'),
        ("/jobs?stats=failed", "'stats' is not a parameter here; did you mean 'status'?"),
        ("/jobs?status=failed&status=queued", "'status' is given 2 times; give it once"),
        ("/optimizers?tag=a%3Db&tag=c%3Dd&alias=prod&alias=best", "'alias' is given 2 times; give it once"),
        (
            "/optimizers?best=1",
            "'best' is not a parameter here; known are: family, alias, tag, archived, limit, after",
        ),
    ],
)
def test_a_query_is_refused_likewise(standing_api: httpx.Client, query: str, message: str) -> None:
    assert refused(standing_api.get(query)) == [message]


@pytest.mark.parametrize(
    ("key", "value"), [("k" * 300, f'"{"k" * 59}... (300 characters)'), ("two words", '"two words"')]
)
def test_an_idempotency_key_that_does_not_fit_is_told_the_form(
    standing_api: httpx.Client, key: str, value: str
) -> None:
    answer = standing_api.post("/jobs", json=SMALLEST, headers={"Idempotency-Key": key})
    wanted = "send 1 to 255 visible ASCII characters without spaces, such as a UUID"
    assert refused(answer) == [f"{value} does not fit; {wanted}"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("foo", "alias of that family.")]
    + [(name, "version (they count from 1) and no alias (latest, best, or one of yours).") for name in ("-1", "0")],
)
def test_what_is_neither_version_nor_alias_is_called_so(api: httpx.Client, name: str, reason: str) -> None:
    wrong = f"{name!r} is no {reason}"
    found = api.get(f"/optimizers/quadratic@{name}")
    assert (found.status_code, wrong in found.json()["detail"]) == (404, True), found.text
    body = {"kind": "evaluate", "optimizer": f"quadratic@{name}"}
    posted = api.post("/jobs", json=body)
    assert (posted.status_code, wrong in posted.json()["detail"]) == (422, True), posted.text


def test_hundreds_of_unknown_fields_are_not_all_named(standing_api: httpx.Client) -> None:
    body = json.dumps(SMALLEST | {f"f{i}": 1 for i in range(1_500)})
    messages = refused(standing_api.post("/jobs", content=body, headers=JSON))
    assert len(messages) == MOST_ERRORS
