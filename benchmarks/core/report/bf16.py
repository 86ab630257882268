"""Products in bfloat16 against those in float32."""

from __future__ import annotations

from benchmarks.core.bf16 import ALLOWED
from benchmarks.core.report.markdown import table
from benchmarks.core.results import Results
from benchmarks.core.statistics import Spread, least_ratio, ratios

MARKS = ("<!-- core-bf16:begin -->", "<!-- core-bf16:end -->")


def lines(results: Results, command: str, date: str) -> list[str]:
    """The section, or nothing where it was not measured."""
    found = results.get("bf16")
    if found is None:
        return []
    machine, rows = results["machine"], []
    emulated = any(row["emulated"] for row in found["rows"])
    for row in found["rows"]:
        milliseconds = {products: [1e3 * each for each in own] for products, own in row["window"].items()}
        step = row["meta_step"]
        rows.append(
            [
                row["problem"],
                f"{Spread.of(milliseconds['float32']):.1f}",
                f"{Spread.of(milliseconds['bfloat16']):.1f}{' emulated' if row['emulated'] else ''}",
                f"{ratios(row['window']['bfloat16'], row['window']['float32']):.2f}",
                f"{least_ratio(row['window']['bfloat16'], row['window']['float32']):.2f}",
                f"{ratios(step['bfloat16'], step['float32']):.2f}",
                f"{row['off_float32']:.1e}{'' if row['off_float32'] <= ALLOWED else ' WRONG'}",
                f"{row['off_float64']['bfloat16']:.1e} ({row['off_float64']['float32']:.0e})",
            ]
        )
    names = found["rows"][0]["backends"]
    header = ["", "ms a window, float32", "bfloat16", "bfloat16 / float32", "by least times", "a whole meta-step"]
    return [
        "## The training core: products in bfloat16",
        "",
        f"`{command}`, {date}. {machine['processor']}, {machine['cores']} cores, {machine['flags']}; torch "
        f"{machine['torch']}; commit {machine['commit']}; load average before: {machine['load before']}.",
        "",
        f"The 2x20 LSTM with `recipe.products` float32 (backend `{names['float32']}`) and bfloat16 "
        f"(`{names['bfloat16']}`), off by default. A window is 20 steps of the rule and their meta-gradient, without "
        f"the tasks' own gradients; a whole meta-step has those and Adam as well. Times are of the processor, one "
        f"thread, the two in turn within one run: medians with (least-most), ratios pair by pair and by least times; "
        f"below 1 bfloat16 is faster. Off float32: the length of the difference between the two meta-gradients over "
        f"the length of float32's, {ALLOWED:.0e} is allowed. Off float64: the largest difference over the largest "
        f"value of a weight tensor, beside float32's own.",
        "",
        *table([*header, "off float32", "off float64"], rows),
        "",
        *(
            [
                "**Emulated:** no kernel here has AVX512-BF16, so products are made of float32 ones with the same "
                "rounding. The errors are those of the instruction up to the order of sums; the times say what "
                "emulation costs, and nothing about a CPU that has the instruction. The speed on such a CPU is not "
                "measured."
            ]
            if emulated
            else []
        ),
    ]
