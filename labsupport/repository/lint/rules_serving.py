"""Rules about serving: streams, queues, instances, modes, and how the models fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from labsupport.repository.lint.repo import Model, Repo
from labsupport.repository.lint.rules import Hit, rule
from labsupport.repository.parameters import TENSORRT_LLM
from labsupport.repository.text_format import set_parameter

STRATEGIES = ("inflight_fused_batching", "inflight_batching", "V1", "v1")
MODES = ("", "auto", "top_k", "top_p", "top_k_top_p", "beam_search", "medusa", "redrafter", "lookahead", "eagle")
YES_OR_NO = [one.key for one in TENSORRT_LLM if one.value in ("true", "false")]


def _set(model: Model, key: str, value: str) -> Callable[[], object]:
    return lambda: set_parameter(model.config, key, value)


def _decoupled(model: Model) -> bool:
    return bool(model.config.model_transaction_policy.decoupled)


@rule("decoupled-pair", pain=15, symptom="every call of the BLS fails, or streaming does")
def _decoupled_pair(repo: Repo) -> Iterator[Hit]:
    for bls in repo.readable("tensorrt_llm_bls"):
        for engine in repo.readable(bls.get("tensorrt_llm_model_name") or "tensorrt_llm"):
            if _decoupled(bls) != _decoupled(engine):
                yield Hit(
                    bls.line("decoupled|name:"),
                    f"{engine.name} is {'' if _decoupled(engine) else 'not '}decoupled, and the BLS is"
                    f" {'' if _decoupled(bls) else 'not'}".rstrip(),
                    "give both the same; streaming needs true",
                    _couple(bls, _decoupled(engine)),
                )


@rule(
    "no-streaming",
    pain=15,
    level="warning",
    symptom='"Streaming is only supported if model is deployed using decoupled mode"',
)
def _no_streaming(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        if not _decoupled(model):
            yield Hit(
                model.line("decoupled|name:"),
                "the model is not decoupled: requests with stream are refused",
                "write decoupled: true in tensorrt_llm and tensorrt_llm_bls, if users are to stream",
            )


@rule("no-final-flag", pain=30, symptom="the server answers once and hangs")
def _no_final_flag(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable():
        decoupled = model.config.backend == "python" and _decoupled(model)
        if decoupled and model.source and "COMPLETE_FINAL" not in model.source:
            yield Hit(
                f"{model.name}/{model.versions[0].name}/model.py",
                "a decoupled model must end each request with the final flag, also after an error",
                "sender.send(flags=TRITONSERVER_RESPONSE_COMPLETE_FINAL) on every way out",
            )


@rule(
    "bare-final-flag",
    pain=21,
    level="warning",
    symptom="the client waits for ever: no response with data is marked as the last",
)
def _bare_final_flag(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("tensorrt_llm_bls"):
        if _decoupled(model) and model.source and not model.ours:
            yield Hit(
                f"{model.name}/{model.versions[0].name}/model.py",
                "this BLS sends the final flag alone, after the last text",
                "ask for enable_empty_final_response and do not count it (pain 22), or take the BLS of labs assemble",
            )


@rule("bls-instances", pain=20, symptom="requests run one by one")
def _bls_instances(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("tensorrt_llm_bls"):
        count = sum(group.count or 1 for group in model.config.instance_group) or 1
        if not _decoupled(model) and count == 1 and model.config.max_batch_size > 1:
            better = min(4, model.config.max_batch_size)
            yield Hit(
                model.line("instance_group|name:"),
                "the BLS is not decoupled and has one instance, which serves one request at a time",
                f"raise bls_instance_count to {better} or more, or make both models decoupled",
                _instances(model, better),
            )


@rule("bls-target", pain=15, symptom="the BLS asks for a model that is not there")
def _bls_target(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("tensorrt_llm_bls"):
        for key in ("tensorrt_llm_model_name", "tensorrt_llm_draft_model_name"):
            name = model.get(key)
            if name and name not in repo.models:
                yield Hit(
                    model.at(key), f"{key} is {name!r}, and there is no such model", f"one of {', '.join(repo.models)}"
                )


@rule(
    "batching-strategy", pain=20, symptom="the model does not load, or every request waits for the slowest of its batch"
)
def _batching_strategy(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        value = model.get("gpt_model_type")
        if value is not None and value not in STRATEGIES[:2]:
            yield Hit(
                model.at("gpt_model_type"),
                "V1 is the old static batching" if value in STRATEGIES else f"gpt_model_type {value!r} is unknown",
                "write inflight_fused_batching",
                _set(model, "gpt_model_type", "inflight_fused_batching"),
            )


@rule("decoding-mode", pain=13, symptom="the model does not load, or sampling parameters have no effect")
def _decoding_mode(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        mode = model.get("decoding_mode") or ""
        lookahead = [f"lookahead_{part}" for part in ("window_size", "ngram_size", "verification_set_size")]
        if mode not in MODES:
            yield Hit(
                model.at("decoding_mode"),
                f"decoding_mode {mode!r} is unknown",
                f"one of {', '.join(MODES[2:])}, or nothing",
            )
        elif mode in ("medusa", "eagle") and not model.get(f"{mode}_choices"):
            yield Hit(model.at("decoding_mode"), f"{mode} needs {mode}_choices", f"write {mode}_choices")
        elif mode == "lookahead" and not all(model.get(key) for key in lookahead):
            yield Hit(model.at("decoding_mode"), "lookahead needs its three sizes", f"write {', '.join(lookahead)}")
        elif mode == "beam_search" and (model.get("max_beam_width") or "1") == "1":
            yield Hit(
                model.at("decoding_mode"),
                "beam_search with max_beam_width 1",
                "raise max_beam_width, or leave decoding_mode empty",
                _set(model, "decoding_mode", ""),
            )


@rule("beams-and-streams", pain=16, level="warning", symptom="an error, or text that changes after it was shown")
def _beams_and_streams(repo: Repo) -> Iterator[Hit]:
    for bls in repo.readable("tensorrt_llm_bls"):
        for engine in repo.readable(bls.get("tensorrt_llm_model_name") or "tensorrt_llm"):
            wide = (engine.get("max_beam_width") or "1") not in ("0", "1")
            if not bls.ours and wide and _decoupled(bls) and (bls.get("accumulate_tokens") or "").lower() == "true":
                yield Hit(
                    bls.at("accumulate_tokens"),
                    "accumulate_tokens works for one beam only, and the engine may be asked for more",
                    "serve beams without streaming, or build the engine for one beam",
                )


@rule("booleans", pain=24, symptom="a setting that is on in the file is off in the server")
def _booleans(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        if model.config.backend != "python":
            continue
        for key in YES_OR_NO:
            value = model.get(key)
            if value and value not in ("true", "false", "1", "0"):
                low = value.lower()
                yield Hit(
                    model.at(key),
                    f"{key} is {value!r}, and the Python variant takes only 1 and true for yes",
                    f"write {low}",
                    _set(model, key, low) if low in ("true", "false") else None,
                )


@rule("queue-delay", pain=20, level="warning", symptom="the first token comes late, at any load")
def _queue_delay(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("preprocessing", "tensorrt_llm"):
        delay = model.config.dynamic_batching.max_queue_delay_microseconds
        if delay > 100_000:
            yield Hit(
                model.line("max_queue_delay_microseconds"),
                f"up to {delay / 1e6:g} s are spent waiting for other requests; in-flight batching does not need that",
                "write 0 to 1000 (the unit is microseconds)",
                lambda model=model: setattr(model.config.dynamic_batching, "max_queue_delay_microseconds", 0),  # type: ignore[misc]
            )


@rule("ensemble-map", pain=15, symptom="the ensemble does not load: a tensor of a step is not in its model")
def _ensemble_map(repo: Repo) -> Iterator[Hit]:
    for ensemble in repo.readable("ensemble"):
        for step in ensemble.config.ensemble_scheduling.step:
            for model in repo.readable(step.model_name):
                inputs = {entry.name for entry in model.config.input}
                outputs = {entry.name for entry in model.config.output}
                for name in [*(set(step.input_map) - inputs), *(set(step.output_map) - outputs)]:
                    yield Hit(
                        ensemble.line(rf'key:\s*"{name}"'),
                        f"the step {model.name} uses {name}, which {model.name} does not declare",
                        "take all five configs of one version",
                    )


@rule("guided-decoding", pain=1, symptom="the model does not load with guided_decoding_backend set")
def _guided(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        backend = model.get("guided_decoding_backend")
        if backend and backend != "xgrammar":
            yield Hit(model.at("guided_decoding_backend"), f"{backend!r} is unknown", "write xgrammar, or nothing")
        elif backend and not (model.get("tokenizer_dir") and model.get("xgrammar_tokenizer_info_path")):
            yield Hit(
                model.at("guided_decoding_backend"),
                "guided decoding needs tokenizer_dir and xgrammar_tokenizer_info_path, and one is empty",
                "make the file with generate_xgrammar_tokenizer_info.py of the container, and write both",
            )


def _couple(model: Model, decoupled: bool) -> Callable[[], object]:
    def couple() -> None:
        model.config.model_transaction_policy.decoupled = decoupled

    return couple


def _instances(model: Model, count: int) -> Callable[[], object]:
    def raise_count() -> None:
        groups = model.config.instance_group
        (groups[0] if groups else groups.add()).count = count

    return raise_count
