"""M05 to M15, M21 and M44: faults of the network, planted in the modules that an engine is compiled from.

SmolLM2 has no soft-cap, no scaled embedding, no (1 + w) norm and no bias. There the same mistake is made the other way
round: what a model of another family has is done to this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from labsupport.validation.mutations.fault import Bench, Fault, swapped, within

WHERE = "the network"
Change = Callable[[Bench], AbstractContextManager[None]]


def layers(bench: Bench) -> list[Any]:
    """All decoder layers."""
    return [layer for stage in bench.model.network.stages for layer in stage.layers]


def shards(bench: Bench) -> list[Any]:
    """The attention of each layer."""
    return [shard for layer in layers(bench) for shard in layer.attention.shards]


def norms(bench: Bench) -> list[Any]:
    """Every RMSNorm, the last one among them."""
    each = [norm for layer in layers(bench) for norm in (layer.input_norm, layer.post_norm)]
    return [*each, bench.model.network.stages[-1].norm]


def linears(bench: Bench) -> list[Any]:
    """Every linear layer but the head."""
    found = [linear for shard in shards(bench) for linear in (shard.qkv, shard.dense)]
    mlps = [shard for layer in layers(bench) for shard in layer.mlp.shards]
    return [*found, *(linear for mlp in mlps for linear in (mlp.fc, mlp.gate, mlp.proj))]


def _each(find: Callable[[Bench], list[Any]], name: str, change: Callable[[Any], Any]) -> Change:
    """Exchange one attribute of many modules; ``change`` makes the new value from the module."""

    @contextmanager
    def swap(bench: Bench) -> Iterator[None]:
        changed = [(module, change(module)) for module in find(bench)]
        before = [getattr(module, name) for module, _ in changed]
        try:
            for module, value in changed:
                setattr(module, name, value)
            yield
        finally:
            for (module, _), value in zip(changed, before, strict=True):
                setattr(module, name, value)

    return swap


def _rope(factor: float) -> Change:
    """Theta times ``factor``: frequency i shrinks by factor ** (2i / size)."""
    import torch

    def slower(rotary: Any) -> Any:
        count = len(rotary.frequencies)
        return rotary.frequencies / factor ** (torch.arange(count) / count)

    return _each(lambda bench: [shard.rotary for shard in shards(bench)], "frequencies", slower)


@contextmanager
def _interleaved(_: Bench) -> Iterator[None]:
    import torch

    from labsupport.checkpoint.network.rotary import Rotary

    def forward(self: Any, x: Any, positions: Any) -> Any:
        angle = positions[:, None].float() * self.frequencies
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)

    with swapped(Rotary, forward=forward):
        yield


@contextmanager
def _gate_and_up(bench: Bench) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in layers(bench):
            for mlp in layer.mlp.shards:
                fc, gate = mlp.fc.weight, mlp.gate.weight
                stack.callback(setattr, mlp.fc, "weight", fc)
                stack.callback(setattr, mlp.gate, "weight", gate)
                mlp.fc.weight, mlp.gate.weight = gate, fc
        yield


def _embedding(change: Callable[[Any], Any]) -> Change:
    """Change the hidden states that the layers begin with."""

    @contextmanager
    def swap(bench: Bench) -> Iterator[None]:
        inputs = bench.model.network.stages[0].inputs
        honest = type(inputs).forward
        with swapped(inputs, forward=lambda tokens, positions: change(honest(inputs, tokens, positions))):
            yield

    return swap


@contextmanager
def _tiled(_: Bench) -> Iterator[None]:
    """Query head i reads KV head i % keys instead of i // group."""
    from labsupport.engine.paged import Paged

    honest = Paged.attend

    def attend(self: Any, q: Any, k: Any, v: Any, heads: Any) -> Any:
        group = heads.queries // heads.keys
        order = [g * heads.keys + kv for kv in range(heads.keys) for g in range(group)]
        back = [order.index(head) for head in range(heads.queries)]
        return honest(self, q[..., order, :], k, v, heads)[..., back, :]

    with swapped(Paged, attend=attend):
        yield


def _scale(change: Callable[[Any], float]) -> Change:
    return _each(shards, "heads", lambda shard: replace(shard.heads, scale=change(shard.heads)))


@contextmanager
def _sees_the_next(_: Bench) -> Iterator[None]:
    """The causal mask lets each token see the one behind it."""
    import torch

    from labsupport.engine import eager
    from labsupport.engine.paged import look_back as honest

    def look_back(positions: Any, table: Any, size: int, window: int | None) -> Any:
        at = honest(positions, table, size, window)
        keys = torch.arange(table.shape[-1] * size)
        return replace(at, bias=at.bias.masked_fill(keys == positions[:, None] + 1, 0.0))

    with swapped(eager, look_back=look_back):
        yield


def _window(size: int) -> Change:
    """A sliding window where the model has none."""
    return _each(shards, "heads", lambda shard: replace(shard.heads, window=size))


def _rounded(bits: int, group: int) -> Callable[[Any], Any]:
    """Weights on a grid of ``bits``, each ``group`` inputs with a scale of their own."""

    def restored(linear: Any) -> Any:
        weight = linear.weight
        cut = weight.unflatten(1, (-1, math.gcd(group, weight.shape[1])))
        top = 2 ** (bits - 1) - 1
        scale = cut.abs().amax(-1, keepdim=True) / top
        return ((cut / scale).round().clamp(-top - 1, top) * scale).flatten(1)

    return restored


def _wrong_axis(linear: Any) -> Any:
    """int8 with one scale an output, applied along the inputs instead; only a square matrix lets that pass."""
    weight = linear.weight
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale.T


@contextmanager
def _twice_over_ranks(_: Bench) -> Iterator[None]:
    """Two ranks, and both add what is to be added once before their parts are summed: here the residual."""
    from labsupport.checkpoint.network.layers import PreNorm

    def forward(self: Any, x: Any, memory: Any) -> Any:
        x = 2 * x + self.attention(self.input_norm(x), memory)
        return x + self.mlp(self.post_norm(x))

    with swapped(PreNorm, forward=forward):
        yield


def _softcap(bench: Bench) -> AbstractContextManager[None]:
    return swapped(bench.model.network.stages[-1].head, softcap=30.0)


def _scaled(x: Any) -> Any:
    return math.sqrt(x.shape[-1]) * x


def _bfloat16(x: Any) -> Any:
    import torch

    return x.to(torch.bfloat16).float()


MIRROR = "the other way round: SmolLM2 has none, and gets one"
FAULTS = (
    Fault("M05", "rope theta x 10", "L2", WHERE, within(_rope(10)), "10"),
    Fault("M05", "rope theta x 1.1", "L2", WHERE, within(_rope(1.1)), "1.1", measured=False),
    Fault("M05", "rope theta x 1.01", "L2", WHERE, within(_rope(1.01)), "1.01", measured=False),
    Fault("M06", "rope interleaved, not half-split", "L2", WHERE, within(_interleaved)),
    Fault("M07", "gate and up swapped", "L2", WHERE, within(_gate_and_up)),
    Fault("M08", "norm eps a tenth: 1e-5 as 1e-6", "L2", WHERE, within(_each(norms, "eps", lambda norm: norm.eps / 10)),
          "0.1"),
    Fault("M08", "norm eps x 0.9", "L2", WHERE, within(_each(norms, "eps", lambda norm: norm.eps * 0.9)), "0.9",
          measured=False),
    Fault("M09", "embedding scaled by sqrt(d)", "L2", WHERE, within(_embedding(_scaled)), "sqrt(d)", MIRROR),
    Fault("M09", "embedding rounded to bfloat16", "L2", WHERE, within(_embedding(_bfloat16)), "bfloat16",
          measured=False),
    Fault("M10", "RMSNorm by 1 + w", "L2", WHERE, within(_each(norms, "weight", lambda norm: norm.weight + 1)),
          note=MIRROR),
    Fault("M11", "KV heads tiled, not repeated", "L2", WHERE, within(_tiled)),
    Fault("M12", "no attention scale", "L2", WHERE, within(_scale(lambda _: 1.0)), "1"),
    Fault("M12", "attention scale of another head size", "L2", WHERE,
          within(_scale(lambda heads: 1 / math.sqrt(heads.size * 1.5))), "96", measured=False),
    Fault("M13", "causal mask one too far", "L2", WHERE, within(_sees_the_next), "+1"),
    Fault("M13", "a sliding window of 32", "L2", WHERE, within(_window(32)), "window", measured=False),
    Fault("M14", "final soft-cap of 30", "L2", WHERE, within(_softcap), note=MIRROR),
    Fault("M15", "int8 scale on the wrong axis", "L2", WHERE,
          within(_each(lambda bench: [shard.dense for shard in shards(bench)], "weight", _wrong_axis),
                 quantization="W8A16")),
    Fault("M21", "added on every rank", "L2", WHERE, within(_twice_over_ranks),
          note="SmolLM2 has no bias: the residual; L2, because nothing here asks the same model on one rank"),
    Fault("M44", "int4 weights served as float32", "L2", WHERE,
          within(_each(linears, "weight", _rounded(4, 64))), "int4"),
    Fault("M44", "int8 weights served as float32", "L2", WHERE,
          within(_each(linears, "weight", _rounded(8, 64))), "int8", measured=False),
)  # fmt: skip
