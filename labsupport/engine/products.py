"""Matrix products as the engine computes them: matrix by matrix for a prompt, row by row for a token.

One token against a matrix [out, in] does two operations a weight, so it runs as fast as weights can be read. The
product of a library is made for many rows; for a few rows a plain loop over the weights, written here as a product and
a sum, is compiled into just the reading. Several rows share each weight that was read: their sums sit in one loop. One
row reads several bands of the matrix at a time, since memory answers several streams faster than one.

Weights of fewer bits lie packed in 32-bit words. A word is loaded once; each of its numbers is cut out by a mask, which
leaves it ``256 ** j`` (or ``16 ** j``) too large. The activations are made as much smaller beforehand, and nothing is
rounded by it, since all these factors are powers of two.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labsupport.checkpoint.network.linear import Linear
from labsupport.checkpoint.network.quantized import WHOLE, Stored, quantized_linear
from labsupport.checkpoint.quantize.arithmetic import Quantized

Many = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""x [..., in], weight [out, in], bias [out] or None -> [..., out]."""


def settled(x: Tensor) -> Tensor:
    """``x``, computed and written down before anything reads it.

    Without this the compiler repeats the norm or the activation that makes ``x`` inside the loop over the weights, for
    each row of the matrix anew.
    """
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


class Product(nn.Module, ABC):
    """A linear layer in the engine. ``few`` chooses the loop over the weights; the graph of the context has it off.

    Args:
        bias: [out], or None.
        many: the library's product of matrices.
    """

    bias: Tensor | None

    def __init__(self, bias: Tensor | None, many: Many = F.linear) -> None:
        super().__init__()
        self.register_buffer("bias", bias)
        self.many, self.few = many, False

    def forward(self, x: Tensor) -> Tensor:
        """[1, rows, in] -> [1, rows, out]."""
        if not self.few:
            return self.many(x, self.restored(x.dtype), self.bias)
        y = self.rows(x.flatten(0, -2).float())
        y = y if self.bias is None else y + self.bias.float()  # rounded once, after the sum
        return torch.unflatten(y.to(x.dtype), 0, x.shape[:-1])

    @abstractmethod
    def rows(self, x: Tensor) -> Tensor:
        """float32 [rows, in] -> float32 [rows, out], without the bias."""

    @abstractmethod
    def restored(self, dtype: torch.dtype) -> Tensor:
        """The weights, [out, in]."""


class FloatProduct(Product):
    """Weights of 32 or 16 bits.

    Args:
        linear: the layer that it takes the place of.
    """

    weight: Tensor

    def __init__(self, linear: Linear, many: Many = F.linear) -> None:
        super().__init__(linear.bias, many)
        self.register_buffer("weight", linear.weight)

    def rows(self, x: Tensor) -> Tensor:
        parts = bands(self.weight.float(), len(x))
        return torch.cat([(part * row).sum(-1) for row in settled(x) for part in parts]).view(len(x), -1)

    def restored(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)


class PackedProduct(Product):
    """Weight-only int8 or int4: ``(q + offset)`` packed in words, and a scale for each group of inputs in a row.

    Args:
        whole: the whole numbers and their scales.
        bias: [out], or None.
        prequant: factors on the inputs (AWQ), [in], or None.
        tile: rows of the matrix that lie side by side in memory; see ``tile_of``.
    """

    words: Tensor
    scale: Tensor
    shrink: Tensor
    prequant: Tensor | None

    def __init__(
        self,
        whole: Quantized,
        bias: Tensor | None,
        prequant: Tensor | None = None,
        many: Many = F.linear,
        tile: int = 1,
    ) -> None:
        super().__init__(bias, many)
        self.bits, self.offset, self.each = whole.bits, 1 << (whole.bits - 1), 32 // whole.bits
        self.register_buffer("words", tiled(pack(whole), tile))
        self.register_buffer("scale", tiled(whole.scale, tile))
        self.register_buffer("prequant", prequant)
        self.register_buffer("shrink", torch.tensor([2.0 ** (-whole.bits * j) for j in range(self.each)]))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.prequant is None else x * self.prequant)

    def rows(self, x: Tensor) -> Tensor:
        x = torch.unflatten(x, -1, (self.scale.shape[1], self.each, -1))  # [rows, groups, numbers of a word, words]
        small = settled(x * self.shrink[:, None])
        # what the offsets add to each word; the topmost number is read with its sign and has none
        above = settled((x[:, :, :-1] * self.offset).sum(2))
        parts = list(zip(bands(self.words, len(x)), bands(self.scale, len(x)), strict=True))
        sums = [self._sum(words, scale, *row) for row in zip(small, above, strict=True) for words, scale in parts]
        return torch.cat(sums).view(len(x), -1)

    def _sum(self, words: Tensor, scale: Tensor, row: Tensor, above: Tensor) -> Tensor:
        """Some tiles of the matrix; row [groups, numbers of a word, words], above [groups, words] -> [rows of them]."""
        cut = self._cut(words)
        total = cut[0] * row[:, 0, :, None] - above[:, :, None]
        for j in range(1, self.each):
            total = total + cut[j] * row[:, j, :, None]
        return (total * scale[:, :, None]).sum((1, 2))

    def restored(self, dtype: torch.dtype) -> Tensor:
        planes = [
            number * self.shrink[j] - (self.offset if j < self.each - 1 else 0)
            for j, number in enumerate(self._cut(self.words))
        ]  # each [tiles, groups, words, rows of a tile]
        if self.words.shape[-1] == 1:
            return (torch.stack(planes, dim=2) * self.scale[:, :, None, None]).flatten(1).to(dtype)
        # columns first: rows that lie side by side stay so, where turning them would take longer than the product
        planes = [(plane * self.scale[:, :, None]).to(dtype).permute(1, 2, 0, 3) for plane in planes]
        return torch.stack(planes, dim=1).flatten(0, 2).flatten(1).t()

    def _cut(self, words: Tensor) -> list[Tensor]:
        """Number j of every word, ``2 ** (bits * j)`` times too large, all but the topmost with ``offset`` added."""
        return [(words & mask).float() for mask in masks(self.bits)]


def bands(matrix: Tensor, rows: int) -> tuple[Tensor, ...]:
    """The rows of a matrix in up to four equal bands, which one loop reads side by side; fewer for several ``rows``.

    Each band keeps a sum for each of the rows, and a CPU holds few of them in its registers. A GPU has enough streams.

    Example:
        >>> [len(band) for band in bands(torch.zeros(12, 5), rows=1)], len(bands(torch.zeros(12, 5), rows=8))
        ([3, 3, 3, 3], 1)
    """
    most = max(1, 4 // rows) if matrix.device.type == "cpu" else 1
    return matrix.chunk(next(count for count in (4, 2, 1) if count <= most and len(matrix) % count == 0))


def masks(bits: int) -> list[int]:
    """What cuts number j out of a 32-bit word, as signed integers: the last one keeps the sign.

    Example:
        >>> [hex(mask) for mask in masks(8)]
        ['0xff', '0xff00', '0xff0000', '-0x1000000']
    """
    lowest = (1 << bits) - 1
    found = [lowest << (bits * j) for j in range(32 // bits)]
    return [*found[:-1], -(1 << (32 - bits))]


def pack(whole: Quantized) -> Tensor:
    """Whole numbers [out, in] -> words, int32 [out, groups, in / groups / numbers of a word].

    Word k of a group holds its numbers k, k + words, k + 2 words ...: neighbors in a row stay neighbors in the loop.
    All but the topmost are stored with ``2 ** (bits - 1)`` added, so that a mask gives them unsigned.
    """
    each, groups = 32 // whole.bits, whole.scale.shape[1]
    numbers = torch.unflatten(whole.values.to(torch.int64), 1, (groups, each, -1))
    numbers[:, :, :-1] += 1 << (whole.bits - 1)
    numbers[:, :, -1] &= (1 << whole.bits) - 1
    shifts = torch.arange(each)[:, None] * whole.bits
    words = (numbers << shifts).sum(2)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def tile_of(whole: Quantized) -> int:
    """How many rows of the matrix one instruction of a CPU computes together; 1: it runs along a row instead.

    A group of 64 inputs of 4 bits is 8 words, half of what an instruction of 512 bits takes. Across rows it is always
    full, and each row has its own scale at hand. With one scale for the whole row, running along it is as fast, and a
    prompt's weights are restored sooner.
    """
    rows, groups = whole.scale.shape
    wide = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8  # numbers of 32 bits
    return math.gcd(rows, wide) if groups > 1 else 1


def tiled(matrix: Tensor, tile: int) -> Tensor:
    """[out, ...] -> [tiles, ..., rows of a tile]: the rows of a tile lie side by side."""
    return torch.unflatten(matrix, 0, (-1, tile)).movedim(1, -1).contiguous()


def packs(algo: str | None, columns: int, groups: int) -> bool:
    """Whether weights of this form fill words of 32 bits."""
    return algo in WHOLE and columns // groups % (4 if algo == "W8A16" else 8) == 0


def engine_quantized(
    many: Many, device: str = "cpu"
) -> Callable[[Stored, Tensor | None, torch.dtype], Linear | PackedProduct]:
    """Makes the engine's layer of what a quantized module of a checkpoint holds; see ``RankTensors.quantized``.

    Weight-only forms keep their whole numbers. FP8 and SmoothQuant, whose activations are rounded too, run restored, as
    the proof runs them: the arithmetic is theirs, the bytes are not.
    """

    def make(stored: Stored, bias: Tensor | None, dtype: torch.dtype) -> Linear | PackedProduct:
        algo = stored.config.quantization.quant_algo
        if algo in WHOLE:
            whole, prequant = stored.whole(), stored.prequant()
            if packs(algo, whole.values.shape[1], whole.scale.shape[1]):
                tile = tile_of(whole) if device == "cpu" else 1  # a GPU's threads read along a row together
                return PackedProduct(whole, bias, None if prequant is None else prequant.to(dtype), many, tile)
        return quantized_linear(stored, bias, dtype)

    return make


def lower(module: nn.Module, make: Callable[[Linear], nn.Module]) -> None:
    """Put what ``make`` makes of it in the place of every plain :class:`Linear` below ``module``."""
    for name, child in module.named_children():
        if type(child) is Linear:
            setattr(module, name, make(child))
        else:
            lower(child, make)


def for_few_rows(module: nn.Module, few: bool) -> None:
    """Choose the loops (generation) or the library (context) in every product below ``module``."""
    for part in module.modules():
        if isinstance(part, Product):
            part.few = few
