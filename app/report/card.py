"""The model card of an optimizer, in Markdown: a view over the registry, its job and its evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from app.report.claims import (
    break_even_sentence,
    seconds_sentence,
    target_sentence,
    validation_sentence,
    verdict_sentence,
)
from app.report.family import schedule_sentence, start_sentence
from app.report.words import (
    LABELS,
    METRICS,
    WHERE,
    headline,
    in_words,
    interval,
    measured_on,
    number,
    ordered,
    percent,
    shown,
)
from models.baselines import TUNED
from models.rule_spec import assigned
from models.spec import FamilySpec, Recipe


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card says, gathered by the caller."""

    id: str
    reference: str  # "quadratic@3"
    aliases: Sequence[str]  # "quadratic@best" ..., as they stand now
    created_at: datetime
    sha256: str
    size_bytes: int
    validation_score: float | None
    job: str | None  # None of one that was uploaded
    spec: Mapping[str, Any]  # the resolved meta_train spec
    runtime: Mapping[str, Any]
    summary: Mapping[str, Any]  # what training recorded of itself
    evaluations: Sequence[tuple[str, Mapping[str, Any]]]  # (job, result), newest first
    measuring: Sequence[tuple[str, str]] = ()  # (job, status) of evaluations that have not ended, newest first
    shortfall: str | None = None  # why `latest` and `best` may not name it
    tuned: Mapping[str, Any] | None = None  # of a tuned baseline: its name, rate, schedule and steps
    pays: str | None = None  # two sentences: should I use it?
    stands_for: str | None = None  # of a schedule that an evaluation made: the optimizer in whose place `best` names it
    uploaded: Mapping[str, Any] | None = None  # of one that was made elsewhere: by whom, when, from what, its claims
    description: str = ""  # its users' own words
    archived_at: datetime | None = None


def _rules(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rule. Several have their parts each, or their pattern where the family's plug-in is gone. What another
    version trained, and this one does not know, is shown as it is stored."""
    try:
        recipe = Recipe.model_validate(spec["recipe"])
    except ValidationError:
        rules = {"*": spec["recipe"].get("rule"), **spec["recipe"].get("rules", {})}
        return [(f"Rule for `{_inline(pattern)}`", _inline(json.dumps(rule))) for pattern, rule in rules.items()]
    if not recipe.rules:
        return [("Rule", recipe.rule.config.in_words())]
    try:
        parts = FamilySpec.model_validate(spec["family"]).tasks.parts()
    except ValidationError:
        return [(f"Rule for `{pattern}`", rule.config.in_words()) for pattern, rule in recipe.rules.items()]
    found = assigned(recipe.rule, recipe.rules, parts).values()
    if len(found) == 1:
        return [("Rule", rule.config.in_words()) for rule, _ in found]
    return [
        (f"Rule for {', '.join(f'`{_inline(part.name)}`' for part in own)}", rule.config.in_words())
        for rule, own in found
    ]


def card_markdown(facts: CardFacts) -> str:
    family = facts.spec["family"]
    changes = in_words(family.get("overrides", {}))
    lines = [
        f"# {facts.reference}",
        "",
        f"{_kind(facts)} for **{_inline(family['title'])}**"
        + (f", its tasks changed: {changes}." if changes else f": {_inline(family['description'])}"),
        "",
        *([_quoted(facts.description), ""] if facts.description else []),
        *_table(
            ("", ""),
            [
                ("Optimizer", f"`{facts.id}`"),
                ("Aliases", ", ".join(f"`{alias}`" for alias in facts.aliases) or "none"),
                ("Family", f"`{family['name']}`" + (f", with {changes}" if changes else "")),
                *_made(facts),
                ("Seed", str(facts.spec["seed"])),
                ("Validation score", f"{number(facts.validation_score)}{_criterion(facts.spec)}"),
                *([("Job", f"`{facts.job}`")] if facts.job is not None else []),
                *_uploaded(facts),
                ("Weights", f"{facts.size_bytes:,} bytes, sha256 `{facts.sha256}`"),
                ("Created", facts.created_at.strftime("%Y-%m-%d %H:%M UTC")),
                *([("Archived", facts.archived_at.strftime("%Y-%m-%d %H:%M UTC"))] if facts.archived_at else []),
            ],
        ),
        "",
        *([] if facts.pays is None else ["## Should I use it?", "", _inline(facts.pays), ""]),
        "## Verdict against tuned baselines",
        "",
        *_verdicts(facts),
        "",
        *_updates(facts),
        "## Where it should not be used",
        "",
        *_limits(facts),
        "",
        "## Cost and code",
        "",
        *_table(("", ""), _recorded(facts)),
        "",
        "## How to use it",
        "",
        "```python",
        "import gradsmith",
        "",
        f'optimizer = gradsmith.LearnedOptimizer(model.parameters(), "{facts.reference}"{_steps(facts)})',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _criterion(spec: Mapping[str, Any]) -> str:
    """What the score is of; nothing for a recipe of another version that this one does not know."""
    try:
        return f" ({Recipe.model_validate(spec['recipe']).criterion})"
    except ValidationError:
        return ""


def _uploaded(facts: CardFacts) -> list[tuple[str, str]]:
    """Who brought an optimizer and from what, and what its file claims."""
    if facts.uploaded is None:
        return []
    source, by = facts.uploaded.get("source"), facts.uploaded.get("by")
    words = [f"from {source}" if source else "", f"by the key `{by}`" if by else ""]
    claims = facts.uploaded.get("claims", {})
    named = f"`{claims['reference']}`" if claims.get("reference") else "without a card"
    told = f"; validation score there {number(claims['validation_score'])}" if "validation_score" in claims else ""
    return [
        ("Uploaded", " ".join(filter(None, [facts.created_at.strftime("%Y-%m-%d"), *words]))),
        ("Its file says", f"{named}{told}; nothing of that was checked here"),
    ]


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _knows_steps(facts: CardFacts) -> bool:
    try:
        return Recipe.model_validate(facts.spec["recipe"]).knows_steps
    except ValidationError:
        return False


def _steps(facts: CardFacts) -> str:
    """The argument of LearnedOptimizer that a rule needs which asks how many steps there are."""
    return f", steps={facts.spec['recipe']['horizon']}" if _knows_steps(facts) else ""


def _kind(facts: CardFacts) -> str:
    if facts.stands_for is not None:
        return "A learned schedule, without a network,"
    if facts.uploaded is not None:
        return "An uploaded optimizer"
    return "A learned optimizer" if facts.tuned is None else "The best tuned baseline, not learned,"


def _made(facts: CardFacts) -> list[tuple[str, str]]:
    recipe = facts.spec["recipe"]
    if facts.tuned is not None:
        tuned = facts.tuned
        return [
            ("Horizon", f"{tuned['steps']} steps, which it was tuned for"),
            ("Optimizer", f"{_label(tuned)}, learning rate {number(tuned['learning_rate'])}, {tuned['schedule']}"),
        ]
    if facts.uploaded is not None and not facts.uploaded.get("claims", {}).get("recipe_told"):
        return [*_rules(facts.spec), ("Meta-training", "unknown: its file does not say how it was trained")]
    return [
        ("Horizon", f"{recipe['horizon']} steps, trained in windows of {recipe['unroll_steps']}"),
        *_rules(facts.spec),
        (
            "Planned steps",
            "it asks how many steps a run has: pass `steps`"
            if _knows_steps(facts)
            else "it does without; a baseline whose rate falls to zero knows how many steps a run has",
        ),
        ("Meta-training", f"{recipe['meta_steps']:,} meta-steps of {recipe['tasks']} tasks"),
    ]


def _label(tuned: Mapping[str, Any]) -> str:
    name = str(tuned["baseline"])
    return LABELS.get(name, name)


def _verdicts(facts: CardFacts) -> list[str]:
    lines: list[str] = []
    for job, status in facts.measuring:
        lines += [f"**Being measured.** Evaluation job `{job}` is {status}; its verdict will appear here.", ""]
    if facts.tuned is not None and not facts.evaluations:
        lines += [
            f"**Nothing was learned.** Evaluation job `{facts.job}` tuned it, and it was the best of its baselines. "
            f"`{facts.spec['family']['name']}@best` names it where no trained optimizer has a lower validation score.",
            "",
        ]
        return lines[:-1]
    if facts.stands_for is not None:
        best = f"{facts.spec['family']['name']}@best"
        lines += [
            f"**As good as `{facts.stands_for}`.** Evaluation job `{facts.job}` trained it with the budget of that "
            f"optimizer's training, and found it as good on fresh validation tasks. Where `{best}` would name that "
            "optimizer, it names this schedule.",
            "",
        ]
        if not facts.evaluations:
            return lines[:-1]
    if not facts.evaluations and not facts.measuring:
        return ["**Not measured.** Run an `evaluate` job for it before you rely on it."]
    for job, result in facts.evaluations:
        best = result["comparisons"]["best_baseline"]
        lines += [f"**{_inline(headline(result))}.**", ""]
        lines.append(
            f"On **{result['test_tasks']}** held-out tasks of `{measured_on(result)}` over {result['horizon']} steps "
            f"(seed {result['seed']}, job `{job}`) it:"
        )
        lines.append("")
        lines += [f"- {verdict_sentence(result, best[metric], metric)}" for metric in METRICS]
        lines += [f"- {told}" for told in (seconds_sentence(result), target_sentence(result)) if told is not None]
        lines.append("")
        if (validated := validation_sentence(result)) is not None:
            lines += [validated, ""]
        for said in (schedule_sentence(result), start_sentence(result)):
            lines += [said, ""] if said is not None else []
        if (pays := break_even_sentence(result)) is not None:
            lines += [f"**Break-even.** {pays}", ""]
        rows = [
            (
                shown(result, name, "final"),
                f"{number(found['final']['ratio_of_means'])} ({interval(found['final']['ratio_interval'])})",
                f"{number(found['final']['ratio_of_medians'])} ({interval(found['final'].get('medians_interval'))})",
                percent(found["final"]["share_won"]),
                found["final"]["verdict"],
                found["area"]["verdict"],
            )
            for name in ordered(result["comparisons"])
            if name != "best_baseline"
            for found in [result["comparisons"][name]]
        ]
        lines += _table(
            (
                "against",
                "at the end: ratio of means (95 %)",
                "ratio of medians (95 %)",
                "tasks won",
                "verdict",
                "over the curve: verdict",
            ),
            rows,
        )
        lines.append("")
    return lines[:-1]


def _updates(facts: CardFacts) -> list[str]:
    """Where its updates are shown. Evaluations of older versions have none."""
    if not any("anatomy" in result for _, result in facts.evaluations):
        return []
    return [
        "## What its updates look like",
        "",
        f"`GET /optimizers/{facts.id}/anatomy` shows them on one held-out task beside those of other optimizers: as a "
        f"function of the gradient, and over the steps of a run. [Picture](/optimizers/{facts.id}/anatomy.svg)",
        "",
    ]


def _sentence(reason: str) -> str:
    """A job's reason without its code: `worse_than_standing_still: the best ...` is told as "The best ..."."""
    text = reason.partition(": ")[2] or reason
    return _inline(text[:1].upper() + text[1:])


def _limits(facts: CardFacts) -> list[str]:
    family, horizon = facts.spec["family"]["name"], facts.spec["recipe"]["horizon"]
    if facts.tuned is not None:
        steps = facts.tuned["steps"]
        limits = [
            f"On tasks unlike `{family}`. Its learning rate was tuned there; tune it again for other tasks.",
            f"For another number of steps than {steps}. The best learning rate and schedule depend on it.",
        ]
        if (baseline := TUNED.get(facts.tuned["baseline"])) is not None and baseline.limit:
            limits.append(baseline.limit)
        limits += [f"**Anywhere.** {_sentence(facts.shortfall)}"] if facts.shortfall is not None else []
        return [f"- {limit}" for limit in limits]
    limits = [
        f"On tasks unlike `{family}`. With another architecture, another loss or gradients of another scale it may "
        "fail; evaluate it there first.",
        f"For many more than {horizon} steps. It was trained on trajectories of that length and may stall or diverge "
        "after them.",
        "Where a run must converge to an optimum. It was trained to be fast over its horizon, not to converge.",
    ]
    lost = {
        f"{measured_on(result)} ({WHERE[metric]})"
        for _, result in facts.evaluations
        for metric in METRICS
        if result["comparisons"]["best_baseline"][metric]["verdict"] == "loses"
    }
    if lost:
        limits.insert(0, f"**Where a tuned baseline beat it.** {', '.join(sorted(lost))}.")
    if not facts.evaluations:
        limits.insert(0, "**Anywhere, until it has been measured.**")
    if facts.shortfall is not None:
        limits.insert(0, f"**Anywhere.** {_sentence(facts.shortfall)}")
    return [f"- {limit}" for limit in limits]


def _recorded(facts: CardFacts) -> list[tuple[str, str]]:
    """What training and its worker recorded, as rows; leaves out what the card has said already."""
    training = dict(facts.summary.get("training", facts.summary))
    runtime = {**facts.runtime, **facts.summary.get("runtime", {}), **training.pop("runtime", {})}
    runtime.pop("hostname", None)  # a card travels; whose machine it was stays here
    return _flat(training) + _flat(runtime)


def _flat(source: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in source.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: ")
        elif isinstance(value, float):
            rows.append((name, number(value)))
        elif isinstance(value, int) and not isinstance(value, bool):
            rows.append((name, f"{value:,}"))
        elif isinstance(value, str | bool):
            rows.append((name, str(value)))
    return rows


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
        *("| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]


def _inline(text: str) -> str:
    """The text on one line."""
    return " ".join(str(text).split())
