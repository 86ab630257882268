"""A server refuses at its start what a kernel would refuse in each job, and nothing else."""

from __future__ import annotations

from typing import get_args

import pytest

from app.settings import Settings
from gradsmith.rules.kernels.native import build as native
from gradsmith.rules.kernels.triton import choose as triton


def test_the_choices_are_those_of_the_kernels() -> None:
    assert set(get_args(Settings.model_fields["native"].annotation)) == set(native.CHOICES)
    assert set(get_args(Settings.model_fields["triton"].annotation)) == set(triton.CHOICES)


@pytest.mark.parametrize(("given", "read"), [("OFF", "off"), (" avx2 ", "avx2"), ("", "auto")])
def test_they_are_read_as_the_kernels_read_them(monkeypatch: pytest.MonkeyPatch, given: str, read: str) -> None:
    monkeypatch.setenv("GRADSMITH_NATIVE", given)
    assert Settings().native == native.BuildSettings.from_environment().instructions == read
