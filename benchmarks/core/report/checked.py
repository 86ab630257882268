"""Where a meta-step's time goes, how exact the backends are, the first training step, the user's optimizer step."""

from __future__ import annotations

from benchmarks.core import ceilings
from benchmarks.core.parts import STEPS, WINDOW
from benchmarks.core.problem import COMPARED
from benchmarks.core.report.markdown import table
from benchmarks.core.results import Results, worst_of
from benchmarks.core.shares import ROUNDS
from benchmarks.core.statistics import Spread, badness, ratios


def share_lines(results: Results) -> list[str]:
    """The limit knows of the rule alone: its steps, and its backward without recomputing what the steps computed."""
    text: list[str] = []
    for problem in COMPARED:
        found = results.get(f"shares/{problem.slug}")
        if found is None:
            continue
        parts = {name: Spread.of(seconds).median for name, seconds in found["parts"].items()}
        whole = sum(parts.values())
        at_limit: dict[str, float] = {}
        if "ceilings" in results:
            work = problem.coordinate_steps
            at_limit[STEPS] = work * ceilings.seconds(results["ceilings"], ceilings.FORWARD_FLOP, ceilings.ACTIVATIONS)
            at_limit[WINDOW] = work * ceilings.seconds(results["ceilings"], ceilings.FLOP - ceilings.FORWARD_FLOP, 0)
        rows = [
            [
                name,
                f"{1e3 * seconds:.2f}",
                f"{100 * seconds / whole:.0f} %",
                f"{1e3 * at_limit[name]:.2f}" if name in at_limit else "0",
                f"{1e3 * (seconds - at_limit.get(name, 0.0)):.2f}",
            ]
            for name, seconds in sorted(parts.items(), key=lambda pair: -pair[1])
        ]
        limit = sum(at_limit.values())
        rows.append(["all", f"{1e3 * whole:.2f}", "100 %", f"{1e3 * limit:.2f}", f"{1e3 * (whole - limit):.2f}"])
        header = ["", "ms a meta-step", "share", "at the limit", "lost"]
        text += [f"### Where a meta-step of ours goes: {problem.title}, 1 thread", "", *table(header, rows), ""]
    if text:
        text += [f"Medians of {ROUNDS} turns with a clock around each part, which costs a little itself.", ""]
    return text


def accuracy_lines(results: Results) -> list[str]:
    found = results.get("accuracy")
    if found is None:
        return []
    rows = []
    for row in found["rows"]:
        tensor, worst = max(row["tensors"].items(), key=lambda pair: badness(pair[1]))
        verdict = "ok" if worst_of(row) <= row["allowed"] else "WRONG"
        rows.append(
            [
                f"{row['backend']}, {row['dtype']}",
                row["problem"],
                f"{worst:.1e}",
                tensor,
                f"{row['update']:.1e}",
                f"{row['allowed']:.0e}",
                verdict,
            ]
        )
    header = ["backend", "inputs of", "window gradient, worst tensor", "which", "sum of updates", "allowed", ""]
    missing = [f"\nNot here: {name}: {why}" for name, why in found["missing"].items()]
    title = "### Every backend against autograd in float64, on equal inputs"
    words = "Largest absolute difference over the largest absolute value."
    return [title, "", *table(header, rows), "", words, *missing, ""]


def first_step_lines(results: Results) -> list[str]:
    found = results.get("first_step")
    if found is None:
        return []
    names = {
        "answered": "the POST is answered",
        "running": "a worker has claimed it (status `running` received)",
        "recorded": "the first training step is in the live stream",
        "received": "the first training step is with the client (server-sent events)",
    }
    rows = [
        [
            text,
            f"{1e3 * (spread := Spread.of(found[name])).median:.0f}",
            f"{1e3 * spread.low:.0f}-{1e3 * spread.high:.0f}",
        ]
        for name, text in names.items()
        if name in found
    ]
    count = len(found["received"])
    return [
        f"### From POST to the first training step: one idle warm worker, {count} jobs one after another",
        "",
        *table(["until", "median ms", "least-most"], rows),
        "",
    ]


def optimizer_step_lines(results: Results) -> list[str]:
    sizes = sorted(int(name.split("/")[1]) for name in results if name.startswith("step/"))
    if not sizes:
        return []
    names: list[str] = []
    for size in sizes:
        names += [name for name in results[f"step/{size}"]["seconds"] if name not in names]
    titles = {
        "ours": "LearnedOptimizer",
        "ours, bfloat16 state": "LearnedOptimizer, bfloat16 state",
        "plain": "plain nn.LSTM",
        "adam": "Adam (foreach)",
    }
    names.sort(key=lambda name: (list(titles).index(name) if name in titles else 0.5, name))
    others = [name for name in names if name != "ours"]
    rows, notes = [], []
    for size in sizes:
        found = results[f"step/{size}"]
        seconds: dict[str, list[float]] = found["seconds"]
        row = [f"{found['coordinates']:,}"]
        row += [f"{Spread.of([1e3 * each for each in seconds[n]]):.2f}" if n in seconds else "-" for n in names]
        both = [name in seconds and "ours" in seconds for name in others]
        row += [
            f"{ratios(seconds[n], seconds['ours']):.2f}" if is_ else "-" for n, is_ in zip(others, both, strict=True)
        ]
        rows.append(row)
        notes += [f"{size:,} parameters, {name}: left out, {why}." for name, why in found["left_out"].items()]
        peaks = [f"{titles.get(name, name)} {each:.0f}" for name, each in found.get("peak_bytes", {}).items()]
        if peaks:
            notes.append(f"{size:,} parameters, bytes each that two steps add at their peak: {', '.join(peaks)}.")
    header = ["parameters", *(f"{titles.get(name, name)} ms" for name in names)]
    header += [f"{titles.get(name, name)} / ours" for name in others]
    title = "`LearnedOptimizer.step` of a model of 20 weights and 20 biases, one thread"
    return [f"### {title}", "", *table(header, rows), *([""] if notes else []), *notes, ""]


def cuda_lines() -> list[str]:
    """What stands about GPUs; `./run bench core --cuda` measures them where there is one, and prints only."""
    return [
        "### On CUDA",
        "",
        "The Triton kernel is written, tested in Triton's interpreter (`tests/sdk/test_triton.py`) and compiled for "
        "sm_80 and sm_90; it has not run on a card and **is not measured**. `./run bench core --cuda` measures it "
        "where there is one: meta-steps a second for 1 and 64 MNIST tasks, share of the card's limit, against eager "
        "PyTorch and JAX.",
        "",
    ]
