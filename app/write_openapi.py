"""`python -m app.write_openapi` writes docs/openapi.json, the committed copy of what the server serves."""

from __future__ import annotations

import sys
from pathlib import Path

from app.main import create_app
from app.openapi.document import text_of
from app.settings import Settings


def main() -> int:
    target = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"
    target.write_text(text_of(create_app(Settings()).openapi()), encoding="utf-8")
    print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
