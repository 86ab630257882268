"""The command `gradsmith-server`."""

from app.cli.program import app, main

__all__ = ["app", "main"]
