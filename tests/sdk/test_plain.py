"""Values of requests: numbers of any library are sent as numbers, and what JSON cannot hold is named with its field."""

from __future__ import annotations

import json
import subprocess
import sys
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from gradsmith.errors import GradsmithError, UnsendableValue
from gradsmith.plain import plain

SENT = [
    (np.int64(3), 3),
    (np.uint8(200), 200),
    (np.float32(0.5), 0.5),
    (np.float64(0.1), 0.1),
    (np.float16(0.25), 0.25),
    (np.bool_(True), True),
    (np.str_("digits"), "digits"),
    (np.array(7), 7),
    (np.arange(3), [0, 1, 2]),
    (np.array([[0.5], [1.5]], dtype=np.float32), [[0.5], [1.5]]),
    (np.array([1, "a", None], dtype=object), [1, "a", None]),
    ([np.int32(1), (np.float32(2.0),)], [1, [2.0]]),
    (torch.tensor(4), 4),
    (torch.tensor([True, False]), [True, False]),
    (MappingProxyType({"a": np.int8(1)}), {"a": 1}),
]


@pytest.mark.parametrize(("value", "expected"), SENT, ids=[repr(value) for value, _ in SENT])
def test_numbers_of_any_library_are_numbers(value: Any, expected: Any) -> None:
    sent = json.loads(json.dumps(plain({"recipe": {"x": value}})))["recipe"]["x"]
    assert sent == expected
    assert type(sent) is type(expected)  # 1 == True


def test_numbers_that_are_none_stay_what_they_are() -> None:
    assert json.dumps(plain([np.float32("nan"), np.float64("inf")])) == "[NaN, Infinity]"


class Endless:
    def tolist(self) -> Endless:
        return self


@pytest.mark.parametrize("value", [1 + 2j, np.complex64(1), np.datetime64("2026-01-02"), {1}, b"x", object, Endless()])
def test_what_json_cannot_hold_is_named_with_its_field(value: Any) -> None:
    with pytest.raises(UnsendableValue, match=r"^/recipe/learning~1rates/1 is ") as caught:
        plain({"recipe": {"learning/rates": [0, value]}})
    assert isinstance(caught.value, GradsmithError)
    assert isinstance(caught.value, TypeError)


def test_a_key_that_is_no_string_and_a_list_that_holds_itself_are_named() -> None:
    with pytest.raises(UnsendableValue, match="/recipe has the key 3"):
        plain({"recipe": {3: 1}})
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnsendableValue, match=r"/tasks/0/0.*nested"):
        plain({"tasks": endless})


def test_numpy_is_not_imported_for_it() -> None:
    code = "import gradsmith, gradsmith.plain, sys; gradsmith.Client; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
