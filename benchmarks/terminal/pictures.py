"""A screen as SVG, PNG and text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from benchmarks.terminal.screen import Screen

_MARGIN_PIXELS = 24


def svg(screen: Screen, title: str) -> str:
    """The screen as a window with that title; text that can be selected."""
    console = Console(record=True, width=screen.columns, file=io.StringIO(), force_terminal=True, color_system="256")
    console.print(screen.rich() if screen.text() else Text(" "), soft_wrap=True)
    return console.export_svg(title=title, unique_id="terminal")


def draw(browser: Any, pictures: dict[str, str], folder: Path) -> None:
    """Write `folder/NAME.svg` and `NAME.png` for each name and SVG."""
    page = browser.new_page(device_scale_factor=1.5)
    for name, drawn in pictures.items():
        (folder / f"{name}.svg").write_text(drawn, encoding="utf-8")
        page.set_content(f"<body style='margin:{_MARGIN_PIXELS}px;width:1100px'>{_offline(drawn)}</body>")
        page.locator("svg").screenshot(path=folder / f"{name}.png")
    page.close()


def _offline(drawn: str) -> str:
    """Without fonts from elsewhere: a screen is drawn with what the machine has."""
    start, _, rest = drawn.partition("@font-face")
    if not rest:
        return drawn
    fonts, style, after = rest.rpartition("}\n\n") if "}\n\n" in rest else (rest, "", "")
    _, block, tail = rest.partition(".terminal-matrix")
    return f"{start}{block}{tail}" if block else f"{start}{fonts}{style}{after}"
