"""Newton and Schulz's iteration, which Muon makes of its momentum (Jordan et al. 2024), and the way back through it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gradsmith.rules.segments import Segments

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
_NO_NORM = 1e-30  # what a matrix of zeros is divided by


def orthogonalized_tensors(values: Tensor, segments: Segments) -> Tensor:
    """Each matrix among the tensors orthogonalized and times 0.2 sqrt(its longer side), so that its root mean square is
    about Adam's (Liu et al. 2025, "Muon is scalable for LLM training"); zeros for what is no matrix: (coordinates,)."""
    pieces = segments.pieces(values)
    found = [torch.zeros_like(piece) for piece in pieces]
    for (rows, columns), places in segments.matrices.items():
        alike = torch.cat([pieces[place] for place in places]) if len(places) > 1 else pieces[places[0]]
        made = orthogonalized(alike.reshape(-1, rows, columns)) * (0.2 * math.sqrt(max(rows, columns)))
        for place, piece in zip(places, torch.split(made.reshape(alike.shape), segments.count), strict=True):
            found[place] = piece
    return segments.joined(found)


def orthogonalized(matrices: Tensor) -> Tensor:
    """(n, rows, columns), with the singular vectors as they are, and the singular values near 1 where they are not much
    smaller than the largest. Matrices of zeros stay as they are. Differentiable once."""
    made: Tensor = _Orthogonalized.apply(matrices)  # type: ignore[no-untyped-call]
    return made


class _Orthogonalized(torch.autograd.Function):
    """With X the matrix over its norm, lying down: X <- a X + (b G + c G G) X with G = X X', five times. autograd
    through the same takes some eight times as long for small matrices."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        a, b, c = COEFFICIENTS
        ctx.tall = matrices.shape[1] > matrices.shape[2]
        lying = matrices.mT if ctx.tall else matrices
        norm = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True).clamp(min=_NO_NORM)
        X, kept = lying / norm, []
        for _ in range(ITERATIONS):
            G = torch.bmm(X, X.mT)
            P = torch.baddbmm(G, G, G, beta=b, alpha=c)
            kept += [X, G, P]
            X = torch.baddbmm(X, P, X, beta=a)
        ctx.save_for_backward(norm, *kept)
        made: Tensor = X.mT if ctx.tall else X
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, worth: Tensor) -> Tensor:
        """worth: dL / d(result)"""
        a, b, c = COEFFICIENTS
        norm, *kept = ctx.saved_tensors
        D = worth.mT if ctx.tall else worth
        for first in reversed(range(0, len(kept), 3)):
            X, G, P = kept[first : first + 3]
            of_P = torch.bmm(D, X.mT)
            both = of_P + of_P.mT
            product = torch.bmm(both, G)
            of_G = both.mul_(b).add_(product, alpha=c).add_(product.mT, alpha=c)  # dL/dG and its transpose, added
            D = torch.baddbmm(torch.baddbmm(D, P, D, beta=a), of_G, X)
        X = kept[0]
        D = (D - X * (D * X).sum(dim=(1, 2), keepdim=True)) / norm
        found: Tensor = D.mT if ctx.tall else D
        return found
