"""Text as HTML, escaped in one place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any


def attribute(text: str) -> str:
    return escape(text, quote=True)


def prose(text: str) -> str:
    """Escaped, with `code` between backticks and *emphasis* between stars, and a paragraph's line ends as spaces."""
    pieces = escape(" ".join(text.split())).split("`")
    return "".join(
        f"<code>{piece}</code>" if index % 2 else re.sub(r"\*(\w[\w -]*)\*", r"<em>\1</em>", piece)
        for index, piece in enumerate(pieces)
    )


def code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def link(target: str, inner: str) -> str:
    """A link to an anchor on this page. `inner` is HTML."""
    return f'<a href="#{attribute(target)}">{inner}</a>'


def table(rows: Iterable[Iterable[str]], heads: Iterable[str]) -> str:
    """A table whose cells are HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def sample(value: Any) -> str:
    """An example: folded when it is long, for it pushes the rest away."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    opened = " open" if text.count("\n") < 14 else ""
    return f"<details{opened}><summary>example</summary><pre>{escape(text)}</pre></details>"


def command(text: str) -> str:
    """A shell command, which the page's script gives a button to copy it."""
    return f'<pre class="command">{escape(text)}</pre>'
