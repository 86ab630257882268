"""The paper's figure 9: what Neural Art looks like, optimizer by optimizer and step by step.

Drawn from a report while it is at hand: pictures are too large for the results that are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.report.figures import render, titles
from app.report.pictures import draw_pictures, height_of
from benchmarks.reproduce.protocol import Measured, Opening

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEAD = 11.0, 0.75  # inches


def draw(measured: Sequence[Measured], opening: Opening, folder: Path) -> list[Path]:
    """Write a picture for each panel whose tasks have pictures: those of ours, the first meta-seed."""
    written: dict[str, Path] = {}
    for each in measured:
        ours = each.trained.training.name == opening.chosen
        if ours and each.panel.name not in written and "pictures" in each.report:
            path = folder / file_name(len(written))
            path.write_bytes(_drawn(each))
            written[each.panel.name] = path
    return list(written.values())


def file_name(panel: int) -> str:
    """The picture's file, by the panel's place in its experiment."""
    return f"figure-9-{panel + 1}.png"


def _drawn(each: Measured) -> bytes:
    title = f"Figure 9. {each.panel.name}"
    subtitle = f"Learned: {each.trained.training.name}, meta-seed {each.trained.seed}, on test tasks"

    def picture(figure: Figure) -> None:
        draw_pictures(figure, each.report)
        titles(figure, title, subtitle)

    return render(picture, (_WIDTH, _HEAD + height_of(each.report)), "png")
