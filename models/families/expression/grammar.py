"""Parses expressions: text to a tree of nodes, each with the column where it begins. A grammar of its own, no `eval`.

    comparison: sum (("<" | "<=" | ">" | ">=") sum)?
    sum:        product (("+" | "-") product)*
    product:    unary (("*" | "/" | "@") unary)*
    unary:      "-" unary | power
    power:      postfix ("**" unary)?
    postfix:    atom ("[" index ("," index)* "]" | ".T")*
    atom:       number | name | name "(" arguments ")" | "(" comparison ")" | "[" comparison ("," comparison)* "]"
    index:      integer | integer? ":" integer?
    arguments:  (comparison | name "=" comparison) ("," ...)*

Precedence is Python's, and so is what each operator means for arrays in numpy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_TEXT = 4000
DEEPEST = 40
"""Levels of nesting. Python's own recursion takes about ten frames for each."""

RESERVED = frozenset({"T", "pi"})
"""Names that mean something in every expression."""

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<operator>\*\*|<=|>=|[-+*/@<>()\[\],:=.])"
)
_COMPARISONS = frozenset({"<", "<=", ">", ">="})


class ExpressionError(ValueError):
    """An expression that cannot be used: `str(error)` says where and why. column: the first character is 1."""

    def __init__(self, column: int, reason: str) -> None:
        super().__init__(f"column {column}: {reason}")
        self.column = column
        self.reason = reason


@dataclass(frozen=True)
class Token:
    """A word of the text. kind: number, name, operator or end."""

    kind: str
    text: str
    column: int


@dataclass(frozen=True)
class Node:
    """A part of an expression.

    kind: "number", "name", "call" (of `text`), "list", "index", "slice", "negative", "transpose", or a binary operator
    text: the number or the name as it was written
    inputs: the nodes that it is made of
    named: arguments of a call that were given by name
    """

    kind: str
    column: int
    text: str = ""
    inputs: tuple[Node, ...] = ()
    named: tuple[tuple[str, Node], ...] = ()


@dataclass(frozen=True)
class Definition:
    """A line `name = expression`, or `name(argument, ...) = expression`, which is a function."""

    name: str
    column: int
    arguments: tuple[str, ...] | None
    body: Node


def parsed(text: str) -> Node:
    """The expression. Raises ExpressionError."""
    reader = _Reader(_tokens(text))
    node = reader.comparison()
    reader.expect_end()
    return node


def parsed_definition(text: str) -> Definition:
    """The definition. Raises ExpressionError."""
    reader = _Reader(_tokens(text))
    name = reader.take("name", "a name, as in `residual = A @ theta - y`")
    arguments: list[str] | None = None
    if reader.accept("("):
        arguments = [reader.take("name", "the name of an argument").text]
        while reader.accept(","):
            arguments.append(reader.take("name", "the name of an argument").text)
        reader.expect(")")
        if len(set(arguments)) < len(arguments):
            raise ExpressionError(name.column, f"{name.text} has two arguments of one name")
    reader.expect("=")
    body = reader.comparison()
    reader.expect_end()
    return Definition(name.text, name.column, None if arguments is None else tuple(arguments), body)


def _tokens(text: str) -> list[Token]:
    if len(text) > LONGEST_TEXT:
        raise ExpressionError(
            LONGEST_TEXT + 1, f"this has {len(text)} characters, and at most {LONGEST_TEXT} are read; use definitions"
        )
    tokens: list[Token] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            advice = "; a power is written **" if text[place] == "^" else ""
            raise ExpressionError(place + 1, f"{text[place]!r} is no part of an expression{advice}")
        assert found.lastgroup is not None
        if found.lastgroup != "space":
            tokens.append(Token(found.lastgroup, found.group(), place + 1))
        place = found.end()
    return [*tokens, Token("end", "", len(text) + 1)]


class _Reader:
    """Recursive descent over the tokens. Depth is counted, so that no text exhausts Python's stack."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    def comparison(self) -> Node:
        left = self._sum()
        if self._ahead.text in _COMPARISONS:
            operator = self._next()
            left = Node(operator.text, operator.column, inputs=(left, self._sum()))
            if self._ahead.text in _COMPARISONS:
                raise ExpressionError(self._ahead.column, "a comparison cannot be compared; multiply two comparisons")
        return left

    def _sum(self) -> Node:
        return self._left_associative(("+", "-"), self._product)

    def _product(self) -> Node:
        return self._left_associative(("*", "/", "@"), self._unary)

    def _left_associative(self, operators: tuple[str, ...], operand: object) -> Node:
        assert callable(operand)
        left: Node = operand()
        while self._ahead.kind == "operator" and self._ahead.text in operators:
            operator = self._next()
            left = Node(operator.text, operator.column, inputs=(left, operand()))
        return left

    def _unary(self) -> Node:
        self._enter()
        sign = self.accept("-")
        node = Node("negative", sign.column, inputs=(self._unary(),)) if sign else self._power()
        self._depth -= 1
        return node

    def _power(self) -> Node:
        base = self._postfix()
        operator = self.accept("**")
        return Node("**", operator.column, inputs=(base, self._unary())) if operator else base

    def _postfix(self) -> Node:
        node = self._atom()
        while True:
            if opened := self.accept("["):
                indices = [self._index()]
                while self.accept(","):
                    indices.append(self._index())
                self.expect("]")
                node = Node("index", opened.column, inputs=(node, *indices))
            elif dot := self.accept("."):
                attribute = self.take("name", "T, which transposes")
                if attribute.text != "T":
                    raise ExpressionError(
                        attribute.column,
                        f"there is no .{attribute.text}, only .T, which transposes; functions are called by their name "
                        f"alone, as in sum(x)",
                    )
                node = Node("transpose", dot.column, inputs=(node,))
            else:
                return node

    def _atom(self) -> Node:
        token = self._next()
        if token.kind == "number":
            return Node("number", token.column, token.text)
        if token.kind == "name":
            return self._call(token) if self.accept("(") else Node("name", token.column, token.text)
        if token.text == "(":
            inside = self.comparison()
            self.expect(")")
            return inside
        if token.text == "[":
            items = [self.comparison()]
            while self.accept(","):
                items.append(self.comparison())
            self.expect("]")
            return Node("list", token.column, inputs=tuple(items))
        raise ExpressionError(token.column, f"{_shown(token)} stands where a value should be")

    def _call(self, name: Token) -> Node:
        inputs: list[Node] = []
        named: list[tuple[str, Node]] = []
        if not self.accept(")"):
            while True:
                first, second = (
                    self._tokens[self._place : self._place + 2] if self._ahead.kind == "name" else (None,) * 2
                )
                if first is not None and second is not None and second.text == "=":
                    self._place += 2
                    named.append((first.text, self.comparison()))
                elif named:
                    raise ExpressionError(self._ahead.column, "arguments without a name come before those with one")
                else:
                    inputs.append(self.comparison())
                if not self.accept(","):
                    break
            self.expect(")")
        return Node("call", name.column, name.text, tuple(inputs), tuple(named))

    def _index(self) -> Node:
        column = self._ahead.column
        start = None if self._ahead.text == ":" else self._integer()
        if not self.accept(":"):
            assert start is not None
            return Node("number", column, start)
        stop = None if self._ahead.text in {"]", ","} else self._integer()
        return Node("slice", column, f"{start or ''}:{stop or ''}")

    def _integer(self) -> str:
        sign = "-" if self.accept("-") else ""
        number = self.take("number", "a whole number; an index is written out")
        if not number.text.isdigit():
            raise ExpressionError(number.column, f"{number.text} is no index; use a whole number")
        return sign + number.text

    @property
    def _ahead(self) -> Token:
        return self._tokens[self._place]

    def _next(self) -> Token:
        token = self._ahead
        self._place = min(self._place + 1, len(self._tokens) - 1)
        return token

    def accept(self, operator: str) -> Token | None:
        """The token, where the text goes on with this operator."""
        return self._next() if self._ahead.kind == "operator" and self._ahead.text == operator else None

    def expect(self, operator: str) -> None:
        if not self.accept(operator):
            raise ExpressionError(self._ahead.column, f"{_shown(self._ahead)} stands where {operator!r} should be")

    def take(self, kind: str, wanted: str) -> Token:
        if self._ahead.kind != kind:
            raise ExpressionError(self._ahead.column, f"{_shown(self._ahead)} stands where there should be {wanted}")
        return self._next()

    def expect_end(self) -> None:
        if self._ahead.kind != "end":
            raise ExpressionError(self._ahead.column, f"{_shown(self._ahead)} stands where the expression should end")

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ExpressionError(
                self._ahead.column, f"this is nested more than {DEEPEST} levels deep; name its parts in definitions"
            )


def _shown(token: Token) -> str:
    return "the end" if token.kind == "end" else repr(token.text)
