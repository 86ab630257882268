"""Small transformers side by side, each on sequences of its own: next-token cross-entropy (Vaswani et al. 2017)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import DatasetCorrupt
from models.families.transformer import MOST_HELD_OUT, TransformerSpec
from models.spec import Split
from models.table_spec import Table
from models.tasks.autograd_batch import AutogradBatch
from models.tasks.base import Family, HeldOut, TaskBatch
from models.tasks.randomness import bits, drawn, indices, normals, streams
from models.tasks.tables import Stretches, table_data


class TransformerBatch(AutogradBatch):
    """Sequences come from `_sequences`, (tasks, batch, tokens) int64."""

    def __init__(self, spec: TransformerSpec, seeds: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(len(seeds), spec.coordinates_per_task, dtype, device)
        self.spec = spec
        start = drawn(normals, streams(seeds, "start"), spec.coordinates_per_task, dtype)
        self._start = start.mul_(spec.start_std).to(device)
        self._stream = streams(seeds, "minibatch").to(device)

    def initial(self) -> Tensor:
        return self._start.reshape(-1).clone()

    def buffers(self) -> Mapping[str, Tensor]:
        return {"start": self._start, "stream": self._stream}

    def losses(self, theta: Tensor, step: int | Tensor) -> Tensor:
        return self._cross_entropy(theta, self._sequences(step)).mean(dim=(1, 2))

    @abstractmethod
    def _sequences(self, step: int | Tensor) -> Tensor:
        """The minibatch of a step."""

    def _cross_entropy(self, theta: Tensor, tokens: Tensor) -> Tensor:
        """The loss of each next token: (coordinates,), (tasks, batch, tokens) -> (tasks, batch, tokens - 1)."""
        logits = self._logits(self._tensors(theta), tokens)[:, :, :-1]
        return functional.cross_entropy(logits.permute(0, 3, 1, 2), tokens[:, :, 1:], reduction="none")

    def _tensors(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of theta by the name of their part, (tasks, *shape)."""
        by_task, found, first = theta.view(-1, self.coordinates_per_task), {}, 0
        for part in self.spec.parts():
            found[part.name] = by_task[:, first : first + part.size].view(-1, *part.shape)
            first += part.size
        return found

    def _logits(self, p: dict[str, Tensor], tokens: Tensor) -> Tensor:
        """(tasks, batch, tokens) -> (tasks, batch, tokens, vocabulary)."""
        tasks, batch, length = tokens.shape
        places = tokens.reshape(tasks, -1, 1).expand(-1, -1, self.spec.width)
        x = p["token"].gather(1, places).view(tasks, batch, length, -1) + p["place"].unsqueeze(1)
        hidden = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        for n in range(self.spec.layers):
            layer = f"layer{n}."
            z = _normalized(x)
            query, key, value = (self._by_head(_through(z, p[layer + name])) for name in ("query", "key", "value"))
            scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5  # (tasks, batch, heads, tokens, tokens)
            seen = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1) @ value
            x = x + _through(seen.transpose(2, 3).flatten(3), p[layer + "output"])
            up = _through(_normalized(x), p[layer + "up"]) + p[layer + "up_bias"][:, None, None]
            x = x + _through(functional.gelu(up), p[layer + "down"]) + p[layer + "down_bias"][:, None, None]
        return _through(_normalized(x), p["head"]) + p["head_bias"][:, None, None]

    def _by_head(self, x: Tensor) -> Tensor:
        """(tasks, batch, tokens, width) -> (tasks, batch, heads, tokens, width / heads)."""
        return x.view(*x.shape[:3], self.spec.heads, -1).transpose(2, 3)


def _through(x: Tensor, weight: Tensor) -> Tensor:
    """(tasks, batch, tokens, in), (tasks, in, out) -> (tasks, batch, tokens, out)."""
    return torch.bmm(x.flatten(1, 2), weight).view(*x.shape[:3], -1)


def _normalized(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-5).rsqrt()


class MarkovBatch(TransformerBatch):
    """`until`: the cumulated probabilities of the next token, (tasks, vocabulary, vocabulary). The logarithms of the
    probabilities are normal with standard deviation 2 before they are made to add up to 1."""

    def __init__(self, spec: TransformerSpec, seeds: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(spec, seeds, dtype, device)
        V = spec.vocabulary
        logits = drawn(normals, streams(seeds, "chain"), V * V, torch.float32).mul_(2.0)
        self.until = logits.view(-1, V, V).softmax(dim=2).cumsum(dim=2).to(device)

    def buffers(self) -> Mapping[str, Tensor]:
        return {**super().buffers(), "until": self.until}

    def _sequences(self, step: int | Tensor) -> Tensor:
        batch, length = self.spec.batch_size, self.spec.tokens
        count = batch * length
        chances = (bits(self._stream, count, first=step * count) & ((1 << 24) - 1)).float() * 2.0**-24
        chances = chances.view(self.tasks, batch, length)
        found = [(chances[:, :, 0] * self.spec.vocabulary).long()]
        for place in range(1, length):
            rows = self.until.gather(1, found[-1].unsqueeze(2).expand(-1, -1, self.spec.vocabulary))
            following = (rows < chances[:, :, place, None]).sum(dim=2)
            found.append(following.clamp(max=self.spec.vocabulary - 1))
        return torch.stack(found, dim=2)


class TableTransformerBatch(TransformerBatch):
    """Sequences are rows of each task's group. tokens: (rows, tokens) int64"""

    def __init__(
        self,
        spec: TransformerSpec,
        tokens: Tensor,
        of: Stretches,
        seeds: Tensor,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(spec, seeds, dtype, device)
        self._rows = tokens.to(device)
        self._of = of

    def buffers(self) -> Mapping[str, Tensor]:
        of = self._of
        found = {"first": of.first, "count": of.count, "held": of.held_first, "held count": of.held_count}
        return {**super().buffers(), **found}

    def _sequences(self, step: int | Tensor) -> Tensor:
        places = indices(self._stream, step, self.spec.batch_size, self._of.count[:, None])
        return self._rows[self._of.first[:, None] + places]

    def held_out(self, theta: Tensor) -> HeldOut:
        """Accuracy: the share of next tokens that are the likeliest."""
        losses, hits = [], []
        with torch.no_grad():
            for task, own in enumerate(theta.view(self.tasks, -1)):
                first, count = int(self._of.held_first[task]), int(self._of.held_count[task])
                tokens = self._rows[first : first + min(count, MOST_HELD_OUT)].unsqueeze(0)
                logits = self._logits(self._tensors(own), tokens)[0, :, :-1]
                following = tokens[0, :, 1:]
                losses.append(functional.cross_entropy(logits.flatten(0, 1), following.flatten()))
                hits.append((logits.argmax(dim=2) == following).to(self.dtype).mean())
        return HeldOut(torch.stack(losses), torch.stack(hits))


class TransformerFamily(Family):
    """Draws a Markov chain, or a group of the table's, and theta_0 from N(0, start_std^2)."""

    def __init__(self, spec: TransformerSpec, splits: Collection[Split], data_dir: Path | None) -> None:
        super().__init__(f"transformer/{spec.model_dump_json()}", spec.coordinates_per_task, splits)
        self.spec = spec
        self._tokens: Tensor | None = None
        if isinstance(spec.dataset, Table):
            data = table_data(
                *(spec.dataset, splits, data_dir),
                classes=spec.dataset.target_lowest is None,
                standardize=False,
                standardize_target=False,
                split_seed=0,
            )
            tokens = data.inputs.long()
            if not bool(((tokens == data.inputs) & (tokens >= 0) & (tokens < spec.vocabulary)).all()):
                raise DatasetCorrupt(
                    f"The inputs of {spec.dataset.name} are not all tokens from 0 to {spec.vocabulary - 1}; send a "
                    f"larger vocabulary, or whole numbers without gaps."
                )
            self._tokens, self._splits = tokens, data.splits

    def _batches(self, seeds: Tensor, split: Split, dtype: torch.dtype, device: torch.device) -> tuple[TaskBatch, ...]:
        if self._tokens is None:
            return (MarkovBatch(self.spec, seeds, dtype, device),)
        there = self._splits[split]
        group = indices(streams(seeds, "group"), 0, 1, len(there.first))[:, 0]
        each = (there.first, there.count, there.held_first, there.held_count)
        of = Stretches(*(stretch[group].to(device) for stretch in each))
        return (TableTransformerBatch(self.spec, self._tokens, of, seeds, dtype, device),)
