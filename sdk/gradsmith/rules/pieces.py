"""The named inputs that a rule may combine, and what each takes. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One named input.

    width: features of a coordinate
    directions: how many of them a head may go along
    means, squares: decays of the running means of gradients, and of their squares, that it is made of
    of_tensors: it looks across the coordinates of a tensor
    last: it compares the gradient with the last update
    counts: it asks how many steps there were
    planned: it asks how many there will be
    """

    width: int
    directions: int = 0
    means: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    of_tensors: bool = False
    last: bool = False
    counts: bool = False
    planned: bool = False


PIECES: dict[str, Piece] = {
    "log_sign": Piece(2),
    "raw": Piece(1, directions=1),
    "rnnprop": Piece(2, directions=2, means=(0.95,), squares=(0.95,), counts=True),
    "momenta": Piece(4, directions=4, means=(0.5, 0.9, 0.97), squares=(0.99,), counts=True),
    "scales": Piece(4, means=(0.9,), squares=(0.9, 0.99), counts=True),
    "tensor_scale": Piece(5, directions=3, means=(0.9, 0.97), squares=(0.99,), of_tensors=True, counts=True),
    "alignment": Piece(1, of_tensors=True, last=True, counts=True),
    "time": Piece(7, counts=True),
    "fraction": Piece(2, counts=True, planned=True),
}
"""Every named input. Features and directions have this order, whatever order the names were written in."""

TENSOR_NUMBERS = 3
"""What is remembered of a tensor: steps, its running mean square, and its running alignment."""


@dataclass(frozen=True)
class Combination:
    """Named inputs together: what they share is remembered once."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Combination:
        """The inputs of a setting such as "momenta+time". Raises ValueError for other names and for one named twice."""
        given = text.split("+")
        if len(set(given)) != len(given) or not set(given) <= PIECES.keys():
            raise ValueError(text)
        return cls(tuple(name for name in PIECES if name in given))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(PIECES[name] for name in self.names)

    @property
    def width(self) -> int:
        return sum(piece.width for piece in self.pieces)

    @property
    def directions(self) -> int:
        return sum(piece.directions for piece in self.pieces)

    @property
    def means(self) -> tuple[float, ...]:
        return tuple(sorted({decay for piece in self.pieces for decay in piece.means}))

    @property
    def squares(self) -> tuple[float, ...]:
        return tuple(sorted({decay for piece in self.pieces for decay in piece.squares}))

    @property
    def of_tensors(self) -> bool:
        return any(piece.of_tensors for piece in self.pieces)

    @property
    def last(self) -> bool:
        return any(piece.last for piece in self.pieces)

    @property
    def counts(self) -> bool:
        return any(piece.counts for piece in self.pieces)

    @property
    def planned(self) -> bool:
        return any(piece.planned for piece in self.pieces)

    @property
    def numbers(self) -> int:
        """What is counted: of each tensor where tensors are looked at, else of each coordinate."""
        return (TENSOR_NUMBERS if self.of_tensors else 1) + self.planned if self.counts else 0

    @property
    def state(self) -> int:
        """Numbers that are remembered of one coordinate."""
        return len(self.means) + len(self.squares) + self.last + (0 if self.of_tensors else self.numbers)
