"""How `gradsmith` and `gradsmith-server` read their arguments, show their help and refuse what is wrong: alike."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

INTERRUPTED = 130
_F = TypeVar("_F", bound=Callable[..., Any])
_Refused = cast(type[Exception], typer.BadParameter.__mro__[2])  # ClickException: typer has a click of its own
_VALUES = {"int": "N", "float": "NUMBER", "Path": "PATH", "str": "TEXT"}


class _Styled:
    """What commands and groups of commands have in common."""

    def collect_usage_pieces(self, context: Any) -> list[str]:
        pieces = [_argument(each) for each in self._parameters(context, "argument")]
        return [*(["COMMAND"] if isinstance(self, TyperGroup) else []), *pieces, "[OPTIONS]"]

    def format_options(self, context: Any, formatter: Any) -> None:
        commands = []
        if isinstance(self, TyperGroup):
            named = ((name, self.get_command(context, name)) for name in self.list_commands(context))
            commands = [(name, _first_sentence(each.help or "")) for name, each in named if each and not each.hidden]
        arguments = [(_name(each), _help(each)) for each in self._parameters(context, "argument")]
        options = [(_option(each), _help(each)) for each in self._parameters(context, "option")]
        for title, rows in (("Commands", commands), ("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        if context.parent is None:
            formatter.write_paragraph()
            formatter.write_text(f"`{context.command_path} COMMAND --help` says more.")

    def main(self, *arguments: Any, **given: Any) -> Any:
        """Run, and end with an exit code; what cannot be understood is said in one line, and ends with 2."""
        if not given.get("standalone_mode", True):
            return super().main(*arguments, **given)  # type: ignore[misc]
        try:
            code = super().main(*arguments, **given | {"standalone_mode": False})  # type: ignore[misc]
        except _Refused as error:
            sys.exit(_refused(error, given.get("prog_name") or "gradsmith"))
        except typer.Abort:  # Ctrl-C or the end of input where something was asked for
            typer.echo(err=True)
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)

    def _parameters(self, context: Any, kind: str) -> list[Any]:
        found = self.get_params(context)  # type: ignore[attr-defined]
        return [each for each in found if each.param_type_name == kind and not getattr(each, "hidden", False)]


class Command(_Styled, TyperCommand):
    """A command."""


class Group(_Styled, TyperGroup):
    """Commands under a name."""


class Commands(typer.Typer):
    """A program, or the commands under one name of it."""

    def __init__(
        self,
        name: str,
        help: str | None = None,  # noqa: A002
        *,
        alone: bool = False,
        completion: bool = False,
    ) -> None:
        """help: None for what the callback says; alone: whether the name does something without a command"""
        own: dict[str, Any] = {"help": help} if help else {}
        super().__init__(
            name=name, cls=Group, **own, invoke_without_command=alone,
            no_args_is_help=not alone, add_completion=completion, pretty_exceptions_enable=False, rich_markup_mode=None,
            context_settings={"help_option_names": ["-h", "--help"]},
        )  # fmt: skip

    def command(self, name: str | None = None, **given: Any) -> Callable[[_F], _F]:
        """Registers a function, in this style; see `typer.Typer.command`."""
        return super().command(name, cls=Command, **given)


def _argument(parameter: Any) -> str:
    name = _name(parameter) + ("..." if parameter.nargs != 1 and parameter.metavar is None else "")
    return name if parameter.required or name.startswith("[") else f"[{name}]"


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper().replace("_", "-"))


def _option(parameter: Any) -> str:
    names = " / ".join((", ".join(sorted(parameter.opts, key=len)), *parameter.secondary_opts))
    if parameter.is_flag or parameter.count:
        return names
    kind = parameter.type_descriptor
    choices = "|".join(getattr(each, "value", str(each)) for each in kind.choices or ()) if kind.is_choice else ""
    shown = parameter.metavar or choices or _VALUES.get(re.sub(r".*[.\[]|\W", "", parameter.bare_type()), "VALUE")
    return f"{names} {shown}"


def _help(parameter: Any) -> str:
    """What it is, and what it is when it is not given."""
    said = parameter.help or ""
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    flag = getattr(parameter, "is_flag", False)
    if default is None or default in (False, "", (), []) or (flag and not parameter.secondary_opts):
        return said
    if flag:
        default = (parameter.opts if default else parameter.secondary_opts)[0]
    return f"{said} ({getattr(default, 'value', default)})"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.])\s|\n\s*\n", inspect.cleandoc(text).replace("\n", " "), maxsplit=1)[0].strip()


def _refused(error: Any, program: str) -> int:
    """Says what cannot be understood, and where help is; the exit code."""
    from gradsmith.cli.show import say

    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help())
        return 0
    path = context.command_path if context is not None else program
    say(f"{program}: {_sentence(error)} `{path} --help` says more.", err=True)
    return int(error.exit_code)


def _sentence(error: Any) -> str:
    context: Any = getattr(error, "ctx", None)
    said, command = str(error.format_message()).strip(), context and context.command
    if found := re.match(r"No such command '(.*?)'", said):
        return f"there is no command {found[1]!r}{_meant(found[1], getattr(command, 'commands', {}))}"
    if found := re.match(r"No such option:? '?([^' ]+)", said):
        names = [name for each in command.get_params(error.ctx) for name in (*each.opts, *each.secondary_opts)]
        return f"there is no option {found[1]}{_meant(found[1], names)}"
    if found := re.match(r"Missing (?:argument|option|parameter) '(.*?)'", said):
        return f"{found[1] if found[1].startswith('-') else found[1].upper()} is missing."
    if found := re.match(r"Invalid value for '(.*?)'(?: / '.*?')*: (.*)", said, re.DOTALL):
        return f"{found[1]}: {found[2].rstrip('.')}."
    if said == "Missing command.":
        return f"name a command: {', '.join(getattr(command, 'commands', {}))}."
    return f"{said[:1].lower()}{said[1:].rstrip('.')}."


def _meant(given: str, names: Any) -> str:
    close = difflib.get_close_matches(given, [*names], 1)
    return f". Did you mean {close[0]!r}?" if close else "."
