"""The parts of a page that needs nothing else: document, tables, pictures inline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

# Pages run no script and load nothing; everything that they show is inline.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff; margin: 2rem auto; max-width: 1020px;
  padding: 0 1rem; }
h1 { font-size: 1.45rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.lead { color: #4b5563; margin-top: 0; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #e5e7eb; }
th:first-child, td:first-child { text-align: left; } thead th { color: #6b7280; font-weight: 600; }
.wins { color: #047857; font-weight: 600; } .loses { color: #b91c1c; font-weight: 600; } .ties { color: #6b7280; }
tr.learned td { font-weight: 600; } caption { text-align: left; color: #6b7280; padding: .3rem 0; }
.scroll { overflow-x: auto; } code { background: #f3f4f6; padding: 0 .25rem; border-radius: 3px; }
"""


class Markup(str):
    """HTML that is escaped already."""


def inline(svg: bytes) -> Markup:
    """A picture inside a page, where an XML prologue has no place."""
    return Markup(re.sub(r"^.*?(?=<svg)", "", svg.decode(), flags=re.DOTALL))


def document(title: str, parts: Iterable[str]) -> str:
    """A page that needs nothing else. parts: HTML"""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def table(
    title: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    note: str = "",
    classes: Sequence[str] = (),
) -> str:
    """A heading with its table. `classes` names the class of each row, from the first on."""
    body = ""
    for position, row in enumerate(rows):
        style = f' class="{classes[position]}"' if position < len(classes) else ""
        cells = "".join(f"<td>{cell if isinstance(cell, Markup) else escape(cell)}</td>" for cell in row)
        body += f"<tr{style}>{cells}</tr>"
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    return (
        f'<h2>{escape(title)}</h2><div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
