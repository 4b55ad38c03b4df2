"""The five configs as typed messages: ``ModelConfig`` of Triton, filled from an engine and a few options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from labsupport.compatibility import load_compatibility, version_key
from labsupport.errors import ParameterError
from labsupport.repository.contract import (
    CLIENT_NAMES,
    ENCODED_NAMES,
    FEATURES,
    INPUTS,
    LOGITS,
    OUTPUTS,
    PROMPT_NAMES,
    RESULTS,
    Tensor,
    named,
)
from labsupport.repository.engine_config import EngineConfig
from labsupport.repository.parameters import PARAMETERS
from labsupport.repository.text_format import ModelConfig, messages, set_parameter

NAMES = {"0.20": "0.20.0", "0.19": "0.19.0"}


@dataclass(frozen=True)
class Options:
    """What a person decides; everything else follows from the engine.

    Args:
        decoupled: answers may come in pieces. Both ``tensorrt_llm`` and the BLS get it, because a mixed pair fails.
        max_queue_delay_us: how long the scheduler waits for more requests, in microseconds.
        max_queue_size: how many requests may wait; 0 is without limit.
        names: tensor names of TensorRT-LLM ``0.20`` or ``0.19``.
        instances: how many copies of each Python model. A BLS that is not decoupled serves one request a copy.
        mounted_at: where the repository will lie; paths in the configs start there. Empty: they are relative to it.
        parameters: official keys of ``tensorrt_llm`` to set, such as ``kv_cache_free_gpu_mem_fraction``.
    """

    decoupled: bool = True
    max_queue_delay_us: int = 0
    max_queue_size: int = 0
    names: str = "0.20"
    instances: int = 1
    mounted_at: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.names not in NAMES:
            raise ParameterError(
                f"names {self.names!r}",
                why="the request tensors have two sets of names",
                fix=f"one of {', '.join(NAMES)}",
            )
        known = {parameter.key for parameter in PARAMETERS["tensorrt_llm"]}
        if unknown := sorted(set(self.parameters) - known):
            raise ParameterError(
                f"tensorrt_llm has no parameter {unknown[0]!r}",
                why="a key that the model does not read is ignored in silence, so it is refused here",
                fix=f"one of {', '.join(sorted(known))}",
            )
        negative = {"max_queue_delay_us": self.max_queue_delay_us, "max_queue_size": self.max_queue_size}
        wrong = [f"{name} {value}" for name, value in negative.items() if value < 0]
        if wrong or self.instances < 1:
            raise ParameterError(
                wrong[0] if wrong else f"instances {self.instances}",
                why="delays and sizes start at 0, and a model needs one instance",
                fix="give a larger number",
            )

    @property
    def version(self) -> str:
        """The TensorRT-LLM version whose names are used."""
        return NAMES[self.names]


@dataclass(frozen=True)
class Assets:
    """Where the configs say that things are: paths, relative to the repository or absolute."""

    engine: str
    tokenizer: str


def build_configs(engine: EngineConfig, assets: Assets, options: Options) -> dict[str, ModelConfig]:
    """The configs of the five models, by name.

    Raises:
        ParameterError: the options do not fit the engine.
    """
    beams = options.parameters.get("max_beam_width", "1")
    if not beams.isdigit() or not 1 <= int(beams) <= engine.build_config.max_beam_width:
        raise ParameterError(
            f"max_beam_width {beams}",
            why=f"the engine was built for {engine.build_config.max_beam_width} beam(s)",
            fix="leave it out, or build the engine with a larger max_beam_width",
        )
    makers = {
        "preprocessing": _python_model,
        "tensorrt_llm": _tensorrt_llm,
        "postprocessing": _python_model,
        "tensorrt_llm_bls": _python_model,
        "ensemble": _ensemble,
    }
    configs = {}
    for name, make in makers.items():
        config = messages().ModelConfig(name=name, max_batch_size=engine.build_config.max_batch_size)
        _add_tensors(config, engine, options)
        make(config, engine, options)
        _add_parameters(config, _values(name, engine, assets, options))
        configs[name] = config
    return configs


def _add_tensors(config: ModelConfig, engine: EngineConfig, options: Options) -> None:
    for tensor in INPUTS[config.name]:
        entry = config.input.add(name=named(tensor.name, options.version), data_type=_kind(tensor, engine))
        entry.dims.extend(tensor.dims)
        entry.optional = tensor.optional
        entry.allow_ragged_batch = tensor.ragged
        if tensor.scalar:
            entry.reshape.SetInParent()  # an empty shape: [1] becomes []
    for tensor in OUTPUTS[config.name]:
        config.output.add(name=tensor.name, data_type=_kind(tensor, engine)).dims.extend(tensor.dims)


def _kind(tensor: Tensor, engine: EngineConfig) -> int:
    filled = {LOGITS: engine.logits_type, FEATURES: "TYPE_FP16"}.get(tensor.kind, f"TYPE_{tensor.kind}")
    number: int = messages().DataType.Value(filled)
    return number


def _tensorrt_llm(config: ModelConfig, engine: EngineConfig, options: Options) -> None:
    config.backend = "tensorrtllm"
    config.model_transaction_policy.decoupled = options.decoupled
    config.dynamic_batching.preferred_batch_size.append(engine.build_config.max_batch_size)
    _queue(config, options)
    _instances(config, 1)  # the executor batches by itself, and chooses its GPUs


def _python_model(config: ModelConfig, engine: EngineConfig, options: Options) -> None:
    config.backend = "python"
    _instances(config, options.instances)
    if config.name == "tensorrt_llm_bls":
        config.model_transaction_policy.decoupled = options.decoupled
        if not options.decoupled and options.instances == 1:
            config.instance_group[0].count = min(4, engine.build_config.max_batch_size)
    elif config.name == "preprocessing":
        _queue(config, options)
    else:
        config.dynamic_batching.SetInParent()


def _queue(config: ModelConfig, options: Options) -> None:
    config.dynamic_batching.max_queue_delay_microseconds = options.max_queue_delay_us
    config.dynamic_batching.default_queue_policy.max_queue_size = options.max_queue_size


def _instances(config: ModelConfig, count: int) -> None:
    config.instance_group.add(count=count, kind=messages().ModelInstanceGroup.KIND_CPU)


def _ensemble(config: ModelConfig, engine: EngineConfig, options: Options) -> None:  # noqa: ARG001
    config.platform = "ensemble"
    rename = {client: named(client, options.version) for client in CLIENT_NAMES}
    inputs = {named(inner, options.version): rename[client] for client, inner in CLIENT_NAMES.items()}
    _step(config, "preprocessing", {inner: client for client, inner in PROMPT_NAMES.items()}, _hidden(ENCODED_NAMES))
    answers = {"output_ids": "_TOKENS_BATCH", "sequence_length": "_SEQUENCE_LENGTH"}
    encoded = {inner: f"_{name}" for name, inner in ENCODED_NAMES.items()}
    _step(config, "tensorrt_llm", encoded | inputs, answers | {tensor.name: tensor.name for tensor in RESULTS})
    tokens = {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"}
    _step(config, "postprocessing", tokens, {"OUTPUT": "text_output"})


def _hidden(names: Iterable[str]) -> dict[str, str]:
    return {name: f"_{name}" for name in names}


def _step(config: ModelConfig, model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    step = config.ensemble_scheduling.step.add(model_name=model, model_version=-1)
    step.input_map.update(inputs)
    step.output_map.update(outputs)


def _add_parameters(config: ModelConfig, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        set_parameter(config, key, value)


def _values(name: str, engine: EngineConfig, assets: Assets, options: Options) -> dict[str, str]:
    """Every key of a model with its value: our default, what the engine says, what the caller says; the last wins."""
    values = {parameter.key: parameter.value for parameter in PARAMETERS[name]}
    found = {"gpt_model_path": assets.engine, "tokenizer_dir": assets.tokenizer}
    if name == "tensorrt_llm":
        found |= {
            "max_beam_width": str(engine.build_config.max_beam_width),
            "enable_kv_cache_reuse": str(engine.reuses_kv_cache).lower(),  # the default since 0.19 is on, always
            "lora_cache_max_adapter_size": str(engine.build_config.lora_config.max_lora_rank),
            "tokenizer_dir": "",  # read for guided decoding only
        }
        found |= options.parameters
    return {key: found.get(key, value) for key, value in values.items()}


def names_for(version: str) -> str:
    """The set of names that TensorRT-LLM ``version`` uses.

    Example:
        >>> names_for("0.21.0"), names_for("0.18.2")
        ('0.20', '0.19')
    """
    if not version_key(version):
        return "0.20"
    seed = load_compatibility().tensor_name("seed", version)
    return next(key for key, full in NAMES.items() if named("seed", full) == seed)
