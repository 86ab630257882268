"""What a check found: one clear line, and the next step where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Outcome(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, but not as one would wish
    FAIL = "fail"  # something will not work


@dataclass(frozen=True)
class Finding:
    """`advice` is empty when there is nothing to do."""

    check: str
    outcome: Outcome
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Outcome.OK, found)


def warn(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Outcome.WARN, found, advice)


def fail(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Outcome.FAIL, found, advice)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 when anything failed; warnings are no failure."""
    return int(any(finding.outcome is Outcome.FAIL for finding in findings))


def line(finding: Finding) -> str:
    """A finding as text for people: `fail  database  what was found`, and the advice below it."""
    text = f"{finding.outcome:<5} {finding.check:<12} {finding.found}"
    return f"{text}\n{'':<19}-> {finding.advice}" if finding.advice else text


def summary(findings: Sequence[Finding]) -> str:
    counts = {outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
    if not counts[Outcome.FAIL] and not counts[Outcome.WARN]:
        return f"All {len(findings)} checks passed."
    return f"{counts[Outcome.OK]} ok, {counts[Outcome.WARN]} to look at, {counts[Outcome.FAIL]} failed."


def document(findings: Sequence[Finding]) -> str:
    """All findings as JSON for programs."""
    return json.dumps(
        {"healthy": exit_code(findings) == 0, "checks": [asdict(finding) for finding in findings]}, indent=2
    )
