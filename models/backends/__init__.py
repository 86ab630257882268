"""How a rule is run and differentiated: one interface, and the backends that compute it.

`backend_for` binds a rule to the first backend that offers to run it: the native kernel on the CPU, Triton's on a CUDA
device, and plain torch for everything else. A job can force one (`resources.backend`), a worker can leave out the
kernels (GRADSMITH_NATIVE=off, GRADSMITH_TRITON=off). A job's record and card name what ran.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from gradsmith.rules import Rule, Rules, RuleSet
from gradsmith.rules.kernels.base import Refusal
from models.backends import native, triton
from models.backends.base import Backend, ExactWindow, Memory
from models.backends.composite import CompositeBackend
from models.backends.native import EMULATES, NativeBackend
from models.backends.plain_torch import TorchBackend
from models.backends.sampled import draw, sampled
from models.backends.triton import TritonBackend
from models.errors import BackendUnavailable
from models.spec import BackendName, MetaGradientMode, Products
from models.task_spec import Part

__all__ = [
    "EMULATES",
    "Backend",
    "CompositeBackend",
    "ExactWindow",
    "Memory",
    "NativeBackend",
    "TorchBackend",
    "TritonBackend",
    "backend_for",
    "draw",
    "dtype_for",
    "dtype_of",
    "sampled",
]

_Offered = Callable[[Rule, torch.dtype, torch.device, int, Sequence[Part]], Backend | Refusal]
_KERNELS: dict[str, _Offered] = {"native": native.offered, "triton": triton.offered}


def backend_for(
    rule: Rules,
    dtype: torch.dtype,
    device: torch.device,
    threads: int = 1,
    *,
    wanted: BackendName = "auto",
    parts: Sequence[Part] = (),
    mode: MetaGradientMode = "detached",
    products: Products = "float32",
) -> Backend:
    """The rule, bound to the fastest backend that can run it here, or to the one that is wanted; of several rules, each
    to its own.

    parts: the tensors of one task, for rules that look across coordinates, and for several rules
    mode: of the meta-gradients that it has to compute
    products: what the kernel's products multiply; in bfloat16 the native kernel of LSTM rules has them alone
    Raises BackendUnavailable when the wanted one cannot run it here; the message says why.
    """
    if isinstance(rule, RuleSet):
        bound = functools.partial(
            backend_for, dtype=dtype, device=device, threads=threads, wanted=wanted, mode=mode, products=products
        )
        return _composite(rule, parts, lambda one, own: bound(one, parts=own))
    if products == "bfloat16":
        return _with_bfloat16(rule, native.offered(rule, dtype, device, threads, parts, bfloat16=True))
    refusals: dict[str, str] = {}
    for name, offered in _KERNELS.items():
        if wanted in ("auto", name):
            offer = offered(rule, dtype, device, threads, parts)
            problem = offer if mode == "detached" or isinstance(offer, Refusal) else offer.exact_window(0, 0)
            if isinstance(problem, Refusal):
                refusals[name] = problem.reason
            elif not isinstance(offer, Refusal):
                return offer
    if wanted in ("auto", "torch", "reference"):
        return TorchBackend(rule, dtype, device, parts=parts, fused=wanted != "reference")
    raise BackendUnavailable(
        f"The job forces the backend {wanted}, which cannot run this rule ({rule.settings.in_words()}) here: "
        f"{refusals[wanted]}. Send resources.backend auto to run it on what there is; the worker's log may say more."
    )


def _with_bfloat16(rule: Rule, offer: Backend | Refusal) -> Backend:
    """Raises BackendUnavailable where there is no such kernel here."""
    if isinstance(offer, Refusal):
        raise BackendUnavailable(
            f"The job asks for products in bfloat16, which the native kernel computes alone, and that cannot run this "
            f"rule ({rule.settings.in_words()}) here: {offer.reason}. Send recipe.products float32; the worker's log "
            f"may say more."
        )
    return offer


def _composite(rules: RuleSet, parts: Sequence[Part], bind: Callable[[Rule, Sequence[Part]], Backend]) -> Backend:
    """Raises UnknownRule where a part has no rule."""
    owners = [rules.number_of(part.name, (part.role,)) for part in parts]
    members = []
    for number, (_, rule) in enumerate(rules.members()):
        places = [place for place, owner in enumerate(owners) if owner == number]
        members.append((bind(rule, [parts[place] for place in places]), places))
    return CompositeBackend(members, parts)


def dtype_for(wanted: BackendName, given: torch.dtype = torch.float32) -> torch.dtype:
    """The precision that a job runs in, from its start to its result. given: where the backend leaves the choice, that
    of the weights."""
    return {"reference": torch.float64, "native": torch.float32, "triton": torch.float32}.get(wanted, given)


def dtype_of(rule: Rules) -> torch.dtype:
    """That of its weights; float32 for a rule without any, such as a tuned one."""
    first = next(rule.parameters(), None)
    return torch.float32 if first is None else first.dtype
