"""Will it fit? What a model takes on a device, term by term, and how many tokens the rest has room for.

    sum = weights + KV cache + activations + fixed

* weights: parameters x bytes. Weight-only int8 and int4 (and fp8) shrink the linear layers; embedding and output head
  stay at 16 bits (TensorRT-LLM's default ``exclude_modules``). int4 is taken with one 16-bit scale per 128 weights.
* KV cache: 2 x layers x kv_heads x head_size x length x batch x bytes, at 16 bits (float32 models: 32). Sliding-window
  layers (Gemma 2 and 3) need less than this when the window is shorter than the sequence.
* activations: the widest point of a layer, the MLP, for one packed step of ``STEP_TOKENS``, and the logits.
  An estimate: TensorRT plans the real number at build time and prints it. Where attention writes its scores out, as
  our engine does, they count twice: before the softmax and after it.
* fixed: CUDA context, kernels, library workspaces. A rule of thumb, not a measurement.

With tensor parallelism each device holds 1/tp of the linear layers, of the head and of the KV heads (one at least),
and the whole embedding table. :class:`Plan` says how an engine is laid out; its defaults are a quick look at one GPU.

The cache may take ``POOL_FRACTION`` of what is left; that is what ``kv_cache_free_gpu_mem_fraction`` means.
Sources: TensorRT-LLM, "Memory Usage of TensorRT-LLM" and the defaults of trtllm-build (max_num_tokens 8192);
TensorRT, "How TensorRT Works", Memory, for the two copies of the weights during a build.
"""

from __future__ import annotations

from dataclasses import dataclass

from labsupport.doctor.shapes import Device, Shape
from labsupport.errors import ParameterError

STEP_TOKENS = 8192
FIXED_BYTES = 1_000_000_000
POOL_FRACTION = 0.9
GROUP = 128


@dataclass(frozen=True)
class Precision:
    """How weights are kept. ``bits`` of a linear weight, scales included; ``rest_bytes`` of all other weights.

    ``capability`` is the oldest compute capability with the arithmetic for it, None where any will do.
    """

    name: str
    bits: float
    rest_bytes: int
    kv_bytes: int
    capability: tuple[int, int] | None = None


PRECISIONS = {
    "float32": Precision("float32", 32, 4, 4),
    "bfloat16": Precision("bfloat16", 16, 2, 2, (8, 0)),
    "float16": Precision("float16", 16, 2, 2),
    "fp8": Precision("fp8", 8, 2, 2, (8, 9)),
    "int8": Precision("int8", 8, 2, 2),
    "int4": Precision("int4", 4 + 16 / GROUP, 2, 2),
}


@dataclass(frozen=True)
class Plan:
    """How an engine is laid out on its devices.

    Args:
        tp: devices that share each layer; every size below is that of one of them.
        step_tokens: tokens of one packed step, ``max_num_tokens``.
        tokens_per_block: the cache is handed out in blocks of so many tokens; 1 counts tokens.
        score_keys: keys for which attention writes its scores out; 0 where it does not (flash attention).
        fixed: bytes that are taken whatever the model.
    """

    tp: int = 1
    step_tokens: int = STEP_TOKENS
    tokens_per_block: int = 1
    score_keys: int = 0
    fixed: int = FIXED_BYTES


ONE_GPU = Plan()


@dataclass(frozen=True)
class Need:
    """One precision on one device; all sizes in bytes.

    Args:
        kv_per_token: cache of one token of one sequence.
        kv: cache of ``batch`` sequences of ``length`` tokens.
        pool: what the cache may take; negative where weights and reserve alone are too big.
        tokens: tokens that the pool has room for, over all sequences.
        longest: longest sequence at this batch, at most the model's context.
        largest_batch: sequences of ``length`` tokens that fit.
        ceiling: tokens a second of one sequence that the memory bandwidth allows, or None where it is not known.
        supported: False where the device lacks the arithmetic.
    """

    precision: str
    weights: int
    activations: int
    fixed: int
    kv_per_token: int
    kv: int
    pool: int
    tokens: int
    longest: int
    largest_batch: int
    ceiling: float | None
    supported: bool

    @property
    def total(self) -> int:
        """Everything that was asked for."""
        return self.weights + self.kv + self.activations + self.fixed

    @property
    def fits(self) -> bool:
        """True where the cache that was asked for goes into the pool."""
        return self.supported and self.kv <= self.pool


@dataclass(frozen=True)
class Build:
    """Least memory, in bytes, while ``trtllm-build`` runs: on the host and on the GPU."""

    host: int
    device: int


@dataclass(frozen=True)
class Verdict:
    """The answer for one model on one device: ``asked`` is the chosen precision, ``others`` the alternatives."""

    shape: Shape
    device: Device
    batch: int
    length: int
    asked: Need
    others: tuple[Need, ...]
    build: Build


def weight_bytes(shape: Shape, precision: str, tp: int = 1) -> int:
    """Bytes of the weights that one of ``tp`` devices holds at ``precision``.

    Example:
        >>> from labsupport.doctor.shapes import known_shapes
        >>> weight_bytes(known_shapes()["llama-2-7b"], "float16")
        13476831232
    """
    form = PRECISIONS[precision]
    linear, table = shape.parameters - shape.table_parameters, shape.vocab * shape.hidden
    head = 0 if shape.tied and tp == 1 else table // tp  # a tied head shares the table only where both are whole
    return int(linear * form.bits / 8 / tp) + (table + head) * form.rest_bytes


def kv_bytes_per_token(shape: Shape, precision: str, tp: int = 1) -> int:
    """Bytes of keys and values of one token on one of ``tp`` devices: 2 x layers x kv_heads x head_size x bytes.

    Example:
        >>> from labsupport.doctor.shapes import known_shapes
        >>> kv_bytes_per_token(known_shapes()["llama-2-7b"], "float16") == 512 * 1024
        True
    """
    heads = -(-shape.kv_heads // tp)
    return 2 * shape.layers * heads * shape.head_size * PRECISIONS[precision].kv_bytes


def step_bytes(shape: Shape, precision: str, plan: Plan = ONE_GPU) -> int:
    """Estimate: residual, layer input, gate and up of one packed step."""
    width = 2 * shape.hidden + 2 * shape.intermediate // plan.tp
    return plan.step_tokens * width * PRECISIONS[precision].rest_bytes


def score_bytes(shape: Shape, plan: Plan) -> int:
    """float32 scores of one step, before the softmax and after it, and the mask: 0 with flash attention."""
    return plan.step_tokens * plan.score_keys * 4 * (2 * shape.heads // plan.tp + 1)


def logit_bytes(shape: Shape, batch: int) -> int:
    """float32 logits of ``batch`` sequences."""
    return batch * shape.vocab * 4


def activation_bytes(shape: Shape, precision: str, batch: int, plan: Plan = ONE_GPU) -> int:
    """All that a step writes: its activations, scores and logits."""
    return step_bytes(shape, precision, plan) + score_bytes(shape, plan) + logit_bytes(shape, batch)


def need(shape: Shape, device: Device, precision: str, *, batch: int, length: int, plan: Plan = ONE_GPU) -> Need:
    """What ``batch`` sequences of ``length`` tokens take on ``device`` (on each of them) at ``precision``."""
    form = PRECISIONS[precision]
    weights, per_token = weight_bytes(shape, precision, plan.tp), kv_bytes_per_token(shape, precision, plan.tp)
    activations = activation_bytes(shape, precision, batch, plan)
    pool = int(POOL_FRACTION * (device.memory_bytes - weights - activations - plan.fixed))
    block = plan.tokens_per_block
    blocks, each = max(pool, 0) // (per_token * block), -(-length // block)
    found = tuple(map(int, device.compute_capability.split("."))) if device.compute_capability else None
    return Need(
        precision=precision,
        weights=weights,
        activations=activations,
        fixed=plan.fixed,
        kv_per_token=per_token,
        kv=per_token * batch * each * block,
        pool=pool,
        tokens=blocks * block,
        longest=min(blocks // batch * block, shape.context),
        largest_batch=blocks // each,
        ceiling=device.bandwidth_gb_s * 1e9 / weights if device.bandwidth_gb_s else None,
        supported=form.capability is None or found is None or found >= form.capability,
    )


def check_question(shape: Shape, *, dtype: str, batch: int, length: int) -> None:
    """Whether the question makes sense.

    Raises:
        ParameterError: ``dtype`` is not a known precision, ``batch`` or ``length`` is below 1, or ``length`` is beyond
            what the model was published for.
    """
    if dtype not in PRECISIONS:
        raise ParameterError(
            f"dtype {dtype!r} is not a precision of the table",
            why=f"it holds {', '.join(PRECISIONS)}",
            fix="--dtype float16",
        )
    for name, value in (("batch", batch), ("length", length)):
        if value < 1:
            raise ParameterError(f"{name} {value} is not a count", why="it must be 1 or more", fix=f"--{name} 1")
    if length > shape.context:
        raise ParameterError(
            f"length {length} is beyond the context of {shape.title}",
            why=f"the model was published for at most {shape.context} tokens, prompt and answer together",
            fix=f"--length {shape.context}",
        )


def judge(shape: Shape, device: Device, *, dtype: str = "float16", batch: int = 8, length: int = 2048) -> Verdict:
    """Hold a model against a device, at the chosen precision and at the alternatives.

    Raises:
        ParameterError: the question makes no sense; see :func:`check_question`.
    """
    check_question(shape, dtype=dtype, batch=batch, length=length)
    sizes = {name: need(shape, device, name, batch=batch, length=length) for name in PRECISIONS}
    others = tuple(sizes[name] for name in ("float16", "fp8", "int8", "int4") if name != dtype)
    sixteen = weight_bytes(shape, "float16")  # weight-only formats are made from 16-bit weights while building
    return Verdict(
        shape=shape,
        device=device,
        batch=batch,
        length=length,
        asked=sizes[dtype],
        others=others,
        build=Build(host=2 * sixteen, device=sizes[dtype].weights + sizes[dtype].activations + FIXED_BYTES),
    )
