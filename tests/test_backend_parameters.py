"""The config of ``tensorrt_llm`` as the backend reads it: what is unfilled, what is honored, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labsupport.backends.tensorrtllm import load as loading
from labsupport.backends.tensorrtllm.parameters import Parameters, read
from labsupport.engine.limits import BatchingType, CapacitySchedulerPolicy
from labsupport.errors import EngineError, ParameterError
from labsupport.repository.parameters import TENSORRT_LLM


def config(**values: str) -> dict[str, Any]:
    """A template whose placeholders are all left, but for ``values``."""
    filled = {p.key: f"${{{p.placeholder}}}" for p in TENSORRT_LLM if p.placeholder}
    filled |= {"gpt_model_type": "inflight_fused_batching", "gpt_model_path": "engine", **values}
    return {"parameters": {key: {"string_value": value} for key, value in filled.items()}}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "engine").mkdir()
    (tmp_path / "tensorrt_llm").mkdir()
    return tmp_path


def parameters(repository: Path, lines: list[str] | None = None, **values: str) -> Parameters:
    return read(config(**values), repository / "tensorrt_llm", (lines if lines is not None else []).append)


def test_what_is_unfilled_has_the_defaults_of_the_backend(repository: Path) -> None:
    lines: list[str] = []
    found = parameters(repository, lines)
    assert lines == []
    assert found == Parameters(
        engine=repository / "engine",
        batching_type=BatchingType.INFLIGHT,
        decoupled=False,
        half_logits=False,
        max_queue_size=0,
        max_beam_width=1,
        batch_scheduler_policy=CapacitySchedulerPolicy.GUARANTEED_NO_EVICT,
        kv_cache_free_gpu_mem_fraction=0.9,
        max_tokens_in_paged_kv_cache=None,
        max_attention_window_size=None,
        enable_kv_cache_reuse=True,
        enable_chunked_context=False,
        exclude_input_in_output=False,
        cancellation_check_period_ms=100,
        stats_check_period_ms=100,
        iter_stats_max_iterations=1000,
    )


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("batch_scheduler_policy", "max_utilization", CapacitySchedulerPolicy.MAX_UTILIZATION),
        ("max_tokens_in_paged_kv_cache", "2560", 2560),
        ("kv_cache_free_gpu_mem_fraction", "0.5", 0.5),
        ("enable_kv_cache_reuse", "False", False),
        ("enable_kv_cache_reuse", "0", False),
        ("enable_chunked_context", "TRUE", True),
        ("exclude_input_in_output", "1", True),
        ("cancellation_check_period_ms", "20", 20),
        ("max_attention_window_size", "8192,4096", 4096),
        ("max_beam_width", "4", 4),
    ],
)
def test_what_is_honored(repository: Path, key: str, text: str, value: Any) -> None:
    assert getattr(parameters(repository, **{key: text}), key) == value


@pytest.mark.parametrize(("text", "value"), [("V1", "V1"), ("inflight_batching", "inflight_fused_batching")])
def test_batching_types(repository: Path, text: str, value: str) -> None:
    assert parameters(repository, gpt_model_type=text).batching_type.value == value


@pytest.mark.parametrize(("key", "text"), [("batch_scheduler_policy", "best"), ("max_beam_width", "two")])
def test_what_cannot_be_read_is_told_and_the_default_is_used(repository: Path, key: str, text: str) -> None:
    lines: list[str] = []
    assert getattr(parameters(repository, lines, **{key: text}), key) == getattr(parameters(repository), key)
    assert key in lines[0]


def test_the_rest_of_the_config(repository: Path) -> None:
    whole = config() | {
        "model_transaction_policy": {"decoupled": True},
        "dynamic_batching": {"default_queue_policy": {"max_queue_size": 7}},
        "output": [{"name": "context_logits", "data_type": "TYPE_FP16"}],
    }
    found = read(whole, repository / "tensorrt_llm", print)
    assert (found.decoupled, found.max_queue_size, found.half_logits) == (True, 7, True)


REFUSED = [
    ({"gpt_model_type": "${batching_strategy}"}, "Invalid gpt_model_type"),
    ({"gpt_model_path": "${engine_dir}"}, "Both encoder and decoder model paths are empty"),
    ({"gpt_model_path": "nowhere"}, "Decoder (GPT) model path at nowhere does not exist"),
    ({"encoder_model_path": "/engines/encoder"}, "encoder_model_path '/engines/encoder' is not served"),
    ({"decoding_mode": "medusa"}, "decoding_mode 'medusa' is not served"),
    ({"decoding_mode": "lookahead"}, "decoding_mode 'lookahead' is not served"),
    ({"sink_token_length": "4"}, "sink_token_length '4' is not served"),
    ({"lora_prefetch_dir": "/lora"}, "lora_prefetch_dir '/lora' is not served"),
    ({"gpu_device_ids": "0,1"}, "several devices are not served"),
    ({"num_nodes": "2"}, "several devices are not served"),
    ({"participant_ids": "1,2"}, "participant_ids '1,2' is not served"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED)
def test_what_is_refused_by_name(repository: Path, values: dict[str, str], said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parameters(repository, **values)
    assert said in str(caught.value)


def test_an_absolute_path_and_the_servers_folder(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parameters(repository, gpt_model_path=str(repository / "engine")).engine == repository / "engine"
    (repository / "elsewhere" / "engine").mkdir(parents=True)
    monkeypatch.chdir(repository / "elsewhere")
    assert parameters(repository).engine == repository / "engine"  # the repository goes first
    (repository / "engine").rmdir()
    assert parameters(repository).engine == repository / "elsewhere" / "engine"


# --- on a real engine ---


@pytest.fixture(scope="module")
def engine() -> Path:
    from labsupport.checkpoint.convert import convert
    from labsupport.engine.build import build
    from labsupport.models import fetch

    return build(convert(fetch("smollm2-135m-instruct")).folder).folder


def loaded(repository: Path, engine: Path, **values: str) -> tuple[Any, str]:
    return loading.load(parameters(repository, gpt_model_path=str(engine), **values))


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("values", "blocks"),
    [({}, 256), ({"max_tokens_in_paged_kv_cache": "1000"}, 31), ({"kv_cache_free_gpu_mem_fraction": "0.01"}, None)],
)
def test_the_smaller_limit_of_the_cache_counts(
    repository: Path, engine: Path, values: dict[str, str], blocks: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labsupport.engine.loaded import Engine

    monkeypatch.setattr(loading, "_free_bytes", lambda: 4_000_000_000)
    executor, note = loaded(repository, engine, **values)
    expected = blocks or int(0.01 * 4e9) // Engine(engine).block_bytes()
    assert executor.blocks.usable == expected
    assert f"{expected} blocks of 32 tokens" in note


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("values", "said"),
    [({"max_beam_width": "4"}, "max_beam_width 4"), ({"max_attention_window_size": "512"}, "window_size 512 is not")],
)
def test_what_the_engine_was_not_built_for(repository: Path, engine: Path, values: dict[str, str], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        loaded(repository, engine, **values)


def test_a_folder_without_an_engine(repository: Path) -> None:
    with pytest.raises(EngineError, match="holds no engine"):
        loading.load(parameters(repository))
