"""Rules about the engine: is it there, whose is it, and does the config ask for more than was built in?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from labsupport.compatibility import load_compatibility, version_key
from labsupport.errors import LabError
from labsupport.repository.engine_config import EngineConfig, read_engine
from labsupport.repository.lint.repo import Model, Repo
from labsupport.repository.lint.rules import Hit, rule
from labsupport.repository.text_format import messages, set_parameter

TRUE = ("true", "1", "t", "y", "yes")


def _with_engine(repo: Repo) -> Iterator[tuple[Model, EngineConfig]]:
    for model in repo.engines():
        if (engine := repo.engine(model)) is not None:
            yield model, engine


def _set(model: Model, key: str, value: str) -> Callable[[], object]:
    return lambda: set_parameter(model.config, key, value)


def _on(model: Model, key: str) -> bool:
    return (model.get(key) or "").lower() in TRUE


@rule("engine-missing", pain=3, symptom="both encoder and decoder model paths are empty, or no such file: config.json")
def _engine_missing(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        path = model.get("gpt_model_path")
        if path is None:
            continue
        folder = repo.find(path)
        if not path or folder is None:
            yield Hit(model.at("gpt_model_path"), f"there is no folder {path!r}", "write the engine's folder there")
            continue
        try:
            read_engine(folder)
        except LabError as problem:
            yield Hit(model.at("gpt_model_path"), f"{problem.what}; {problem.why}", problem.fix)


@rule("engine-version", pain=3, symptom="the engine's version tag does not match, or a config key is unknown, at load")
def _engine_version(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        built = version_key(engine.version)  # nothing for an engine of the labs: TensorRT-LLM never sees it
        if built and built != version_key(repo.container.tensorrt_llm):
            fitting = load_compatibility().holding(engine.version)
            other = f", or serve with {fitting[-1].tag}" if fitting else ""
            yield Hit(
                model.at("gpt_model_path"),
                f"the engine was built by TensorRT-LLM {engine.version}; container {repo.container.tag} holds "
                f"{repo.container.tensorrt_llm}",
                f"build the engine again in the container that serves it{other}",
            )


@rule("no-engines-here", pain=28, symptom="the server starts, and the engine is ignored or refused")
def _no_engines_here(repo: Repo) -> Iterator[Hit]:
    flow = load_compatibility().workflow
    for model in repo.engines():
        backend = model.config.backend
        if backend not in ("tensorrtllm", "python", "${triton_backend}"):
            yield Hit(
                model.line("backend:"), f"backend {backend!r} does not serve engines", 'write backend: "tensorrtllm"'
            )
        elif version_key(repo.container.tensorrt_llm) > version_key(flow.last) or not repo.container.engines:
            yield Hit(
                model.line("backend:"),
                f"container {repo.container.tag} no longer serves engines; {flow.last_container} was the last",
                f"pin {load_compatibility().default}, or move on to {flow.successor}",
            )


@rule("beam-width", pain=16, symptom="the model does not load, or each request for beams is refused")
def _beam_width(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        wanted, built = model.get("max_beam_width") or "1", engine.build_config.max_beam_width
        if not wanted.isdigit() or int(wanted) > built:
            yield Hit(
                model.at("max_beam_width"),
                f"max_beam_width is {wanted}, and the engine was built for {built}",
                f"write {built}, or build the engine with a larger max_beam_width",
                _set(model, "max_beam_width", str(built)),
            )


@rule("batch-size", pain=17, symptom="requests wait although the GPU is idle, or the runtime refuses a batch")
def _batch_size(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        built = engine.build_config.max_batch_size
        if model.config.max_batch_size > built:
            yield Hit(
                model.line("max_batch_size:"),
                f"max_batch_size is {model.config.max_batch_size}, and the engine was built for {built}",
                f"write {built}, here and in preferred_batch_size",
                _cut_batch(model, built),
            )


@rule("no-batching", pain=20, symptom="requests run one by one, or a tensor has one dimension too many")
def _no_batching(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls", "ensemble"):
        if model.config.max_batch_size == 0:
            yield Hit(
                model.line("max_batch_size:|name:"),
                "max_batch_size is 0, so Triton adds no batch dimension; the five models count on it",
                "write 1 or more",
            )


@rule("kv-reuse", pain=24, symptom="requests fail, or nothing gets faster, with KV-cache reuse on")
def _kv_reuse(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        value = model.get("enable_kv_cache_reuse")
        unset = not value and version_key(repo.container.tensorrt_llm) >= (0, 19)
        if (unset or _on(model, "enable_kv_cache_reuse")) and not engine.reuses_kv_cache:
            yield Hit(
                model.at("enable_kv_cache_reuse"),
                ("reuse is on where nothing is said, since 0.19" if unset else "reuse is asked for")
                + ", and the engine has no paged context attention",
                "write false, or build the engine with --use_paged_context_fmha enable and a paged KV cache",
                _set(model, "enable_kv_cache_reuse", "false"),
            )


@rule("chunked-context", pain=24, symptom="the model does not load with enable_chunked_context")
def _chunked_context(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        if _on(model, "enable_chunked_context") and not engine.reuses_kv_cache:
            yield Hit(
                model.at("enable_chunked_context"),
                "a prompt in chunks needs paged context attention, and the engine has none",
                "write false, or build the engine with --use_paged_context_fmha enable",
                _set(model, "enable_chunked_context", "false"),
            )


@rule("prompt-limit", pain=17, level="warning", symptom="long prompts are refused, though they are below max_input_len")
def _prompt_limit(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        limits = engine.build_config
        if limits.max_num_tokens < limits.max_input_len and not _on(model, "enable_chunked_context"):
            yield Hit(
                model.at("gpt_model_path"),
                f"max_num_tokens {limits.max_num_tokens} is below max_input_len {limits.max_input_len}",
                "turn enable_chunked_context on, or build the engine with a larger max_num_tokens",
            )


@rule("no-room-to-answer", pain=17, level="warning", symptom="answers are short: max_tokens is cut in silence")
def _no_room(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        limits = engine.build_config
        if limits.max_seq_len is not None and limits.max_seq_len <= limits.max_input_len:
            yield Hit(
                model.at("gpt_model_path"),
                f"max_seq_len {limits.max_seq_len} counts prompt and answer; max_input_len is {limits.max_input_len}",
                "build the engine with a larger max_seq_len",
            )


@rule("logits-type", pain=14, symptom="requests for logits fail, or bring numbers that mean nothing")
def _logits_type(repo: Repo) -> Iterator[Hit]:
    kinds = messages().DataType
    for model, engine in _with_engine(repo):
        right = kinds.Value(engine.logits_type)
        for entry in model.config.output:
            if entry.name in ("context_logits", "generation_logits") and entry.data_type != right:
                yield Hit(
                    model.line(rf'name:\s*"{entry.name}"'),
                    f"{entry.name} is {kinds.Name(entry.data_type)}, and the engine writes {engine.logits_type}",
                    f"write {engine.logits_type} in all models",
                    _retype(repo, right),
                )


@rule("ranks", pain=25, symptom="MPI_ABORT at start: the world size does not fit the engine")
def _ranks(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        world = engine.pretrained_config.mapping.world_size
        groups = [group.split(",") for group in (model.get("gpu_device_ids") or "").split(";") if group]
        count = model.config.instance_group[0].count if model.config.instance_group else 1
        if groups and any(len(group) != world for group in groups):
            yield Hit(
                model.at("gpu_device_ids"),
                f"the engine has {world} rank(s), and gpu_device_ids names {[len(group) for group in groups]} GPU(s)",
                "name as many GPUs as there are ranks: commas within an instance, semicolons between instances",
            )
        elif count > 1 and len(groups) != count:
            yield Hit(
                model.line("instance_group"),
                f"{count} instances, and gpu_device_ids names {len(groups)} group(s) of GPUs",
                'one group an instance, such as "0,1;2,3", in orchestrator mode (--multi-model)',
            )


@rule("several-engines", pain=25, level="warning", symptom="MPI_ABORT, or the second model never loads")
def _several_engines(repo: Repo) -> Iterator[Hit]:
    split = [model for model, engine in _with_engine(repo) if engine.pretrained_config.mapping.world_size > 1]
    if split and len(repo.engines()) > 1:
        yield Hit(
            split[0].at("gpt_model_path"),
            f"{len(repo.engines())} models run engines, one of them on several ranks: leader mode serves one model",
            "start in orchestrator mode: launch_triton_server.py --multi-model",
        )


@rule("kv-memory", pain=18, symptom="out of memory at load: the second model finds no room for its KV cache")
def _kv_memory(repo: Repo) -> Iterator[Hit]:
    share: dict[str, float] = {}
    users: dict[str, list[Model]] = {}
    for model in repo.engines():
        if model.get("max_tokens_in_paged_kv_cache"):
            continue
        value = model.get("kv_cache_free_gpu_mem_fraction") or "0.9"
        for gpu in (model.get("gpu_device_ids") or "0").replace(";", ",").split(","):
            share[gpu] = share.get(gpu, 0.0) + (float(value) if _is_number(value) else 0.0)
            users.setdefault(gpu, []).append(model)
    for gpu, total in share.items():
        if len(users[gpu]) > 1 and total > 1:
            names = ", ".join(model.name for model in users[gpu])
            yield Hit(
                users[gpu][-1].at("kv_cache_free_gpu_mem_fraction"),
                f"{names} ask for {total:.2g} of the memory of GPU {gpu}",
                "give each a part, such as 0.4, or set max_tokens_in_paged_kv_cache on each",
            )


@rule("kv-fraction", pain=18, symptom="out of memory at load, or a pool of no blocks")
def _kv_fraction(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        value = model.get("kv_cache_free_gpu_mem_fraction")
        if value and not (_is_number(value) and 0 < float(value) < 1):
            yield Hit(
                model.at("kv_cache_free_gpu_mem_fraction"),
                f"kv_cache_free_gpu_mem_fraction is {value}: it is a part of the free memory, between 0 and 1",
                "write 0.9",
                _set(model, "kv_cache_free_gpu_mem_fraction", "0.9"),
            )


@rule("lora-rank", pain=23, symptom="a LoRA adapter is refused, or its id is never in the cache")
def _lora_rank(repo: Repo) -> Iterator[Hit]:
    for model, engine in _with_engine(repo):
        built, cached = engine.build_config.lora_config.max_lora_rank, model.get("lora_cache_max_adapter_size") or "64"
        if engine.build_config.plugin_config.lora_plugin and cached.isdigit() and int(cached) < built:
            yield Hit(
                model.at("lora_cache_max_adapter_size"),
                f"the cache takes adapters up to rank {cached}, and the engine was built for {built}",
                f"write {built}",
                _set(model, "lora_cache_max_adapter_size", str(built)),
            )
        elif model.get("lora_prefetch_dir") and not engine.build_config.plugin_config.lora_plugin:
            yield Hit(
                model.at("lora_prefetch_dir"),
                "adapters are to be loaded, and the engine was built without the LoRA plugin",
                "build the engine with --lora_plugin auto and --lora_target_modules",
            )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _cut_batch(model: Model, size: int) -> Callable[[], object]:
    def cut() -> None:
        model.config.max_batch_size = size
        preferred = model.config.dynamic_batching.preferred_batch_size
        kept = sorted({min(one, size) for one in preferred})
        del preferred[:]
        preferred.extend(kept)

    return cut


def _retype(repo: Repo, kind: int) -> Callable[[], object]:
    def change() -> None:
        for model in repo.readable("tensorrt_llm", "tensorrt_llm_bls", "ensemble"):
            for entry in [*model.config.input, *model.config.output]:
                if entry.name in ("context_logits", "generation_logits", "draft_logits"):
                    entry.data_type = kind

    return change
