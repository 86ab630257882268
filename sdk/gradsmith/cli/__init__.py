"""The command `gradsmith`: what the client can do, in a terminal."""

from __future__ import annotations


def main() -> None:
    """Run the command with the arguments of this process."""
    from gradsmith.cli.program import program

    program(prog_name="gradsmith")
