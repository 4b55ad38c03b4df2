"""The kernels of :mod:`labsupport.engine.gpu`, in Triton (the language, not the server)."""

# mypy: ignore-errors
import triton
import triton.language as tl

LOW = tl.constexpr(-1e30)  # stands for -inf where a block holds nothing to be seen, so that differences stay numbers


@triton.jit
def multiply(
    x, weight, other, out, count, COLUMNS: tl.constexpr, WHOLE: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr
):
    """Some rows of a matrix times a vector; the second half of the programs takes the other matrix."""
    if tl.program_id(1) == 1:
        weight, out = other, out + count
    row, step = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, STEP)
    total = tl.zeros([ROWS, STEP], tl.float32)
    for first in tl.static_range(0, COLUMNS, STEP):
        at = first + step
        places = weight + row[:, None].to(tl.int64) * COLUMNS + at[None, :]
        if WHOLE and first + STEP <= COLUMNS:
            part, numbers = tl.load(x + at), tl.load(places, eviction_policy="evict_first")
        else:
            inside = at < COLUMNS
            part = tl.load(x + at, mask=inside, other=0.0)
            numbers = tl.load(places, mask=(row < count)[:, None] & inside[None, :], other=0.0)
        total += numbers.to(tl.float32) * part.to(tl.float32)[None, :]
    tl.store(out + row, tl.sum(total, 1).to(out.dtype.element_ty), mask=row < count)


@triton.jit
def look(
    q,
    keys,
    values,
    table,
    bias,
    mixed,
    top,
    total,
    width,
    scale,
    softcap,
    KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    TOKENS: tl.constexpr,
    SIZE: tl.constexpr,
    CAPPED: tl.constexpr,
):
    """One query over one block: its largest score, the sum of the weights below it, and the values mixed by them."""
    place, row = tl.program_id(0), tl.program_id(2)
    query, head = row * KEYS * GROUP + tl.program_id(1), tl.program_id(1) // GROUP
    block = tl.load(table + row * width + place)
    token, number = tl.arange(0, TOKENS), tl.arange(0, SIZE)
    at = ((block * TOKENS + token[:, None]) * KEYS + head) * SIZE + number[None, :]
    k, v = tl.load(keys + at).to(tl.float32), tl.load(values + at).to(tl.float32)
    one = tl.load(q + query * SIZE + number).to(tl.float32)
    scores = tl.sum(k * one[None, :], 1) * scale
    if CAPPED:
        scores = softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)  # tanh
    scores += tl.load(bias + (row * width + place) * TOKENS + token)
    most = tl.maximum(tl.max(scores, 0), LOW)
    weights = tl.exp(scores - most)
    part = query * width + place
    tl.store(top + part, most)
    tl.store(total + part, tl.sum(weights, 0))
    tl.store(mixed + part * SIZE + number, tl.sum(weights[:, None] * v, 0))


@triton.jit
def join(mixed, top, total, out, width, STEP: tl.constexpr, SIZE: tl.constexpr):
    """All blocks of one query: each part counts as much as its largest score is below the largest of all."""
    query = tl.program_id(0)
    step, number = tl.arange(0, STEP), tl.arange(0, SIZE)
    highest = tl.full((), LOW, tl.float32)
    for first in range(0, width, STEP):
        most = tl.load(top + query * width + first + step, mask=first + step < width, other=LOW)
        highest = tl.maximum(highest, tl.max(most, 0))
    whole = tl.zeros([SIZE], tl.float32)
    weight = tl.full((), 0.0, tl.float32)
    for first in range(0, width, STEP):
        part, inside = query * width + first + step, first + step < width
        share = tl.exp(tl.load(top + part, mask=inside, other=LOW) - highest)
        weight += tl.sum(share * tl.load(total + part, mask=inside, other=0.0), 0)
        parts = tl.load(mixed + part[:, None] * SIZE + number[None, :], mask=inside[:, None], other=0.0)
        whole += tl.sum(share[:, None] * parts, 0)
    tl.store(out + query * SIZE + number, (whole / weight).to(out.dtype.element_ty))
