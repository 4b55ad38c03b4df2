"""labs assemble: the contract of 0.20 and 0.19, the seed's folders, paths that move, whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from repositories_made import VOCABULARY, engine_json, good, home, make_engine, tokenizer_folder

from labsupport.cli import labs
from labsupport.errors import LabError, ParameterError, RepositoryError
from labsupport.repository.assemble import assemble, model_files
from labsupport.repository.contract import ENSEMBLE_IN, INPUTS, MODELS, OUTPUTS
from labsupport.repository.engine_config import EngineConfig, read_engine
from labsupport.repository.launch import server_arguments
from labsupport.repository.model_config import Assets, Options, build_configs, names_for
from labsupport.repository.parameters import PARAMETERS, QUOTED, UNQUOTED
from labsupport.repository.text_format import from_text, parameter, read_model_config, to_text

# The placeholders of NVIDIA's templates at 0.20, as read there.
TEMPLATES = """
    triton_backend triton_max_batch_size decoupled_mode max_queue_delay_microseconds max_queue_size
    logits_datatype encoder_input_features_data_type preprocessing_instance_count
    postprocessing_instance_count bls_instance_count tokenizer_dir add_special_tokens multimodal_model_path
    engine_dir max_num_images skip_special_tokens accumulate_tokens tensorrt_llm_model_name
    tensorrt_llm_draft_model_name multimodal_encoders_name max_beam_width batching_strategy encoder_engine_dir
    max_tokens_in_paged_kv_cache max_attention_window_size sink_token_length batch_scheduler_policy
    kv_cache_free_gpu_mem_fraction cross_kv_cache_fraction kv_cache_host_memory_bytes kv_cache_onboard_blocks
    exclude_input_in_output cancellation_check_period_ms stats_check_period_ms iter_stats_max_iterations
    request_stats_max_iterations enable_kv_cache_reuse normalize_log_probs enable_chunked_context
    gpu_device_ids participant_ids num_nodes lora_cache_optimal_adapter_size lora_cache_max_adapter_size
    lora_cache_gpu_memory_fraction lora_cache_host_memory_bytes lora_prefetch_dir decoding_mode
    lookahead_window_size lookahead_ngram_size lookahead_verification_set_size medusa_choices eagle_choices
    gpu_weights_percent enable_context_fmha_fp32_acc multi_block_mode cuda_graph_mode cuda_graph_cache_size
    speculative_decoding_fast_logits guided_decoding_backend xgrammar_tokenizer_info_path
"""
PLACEHOLDERS = set(TEMPLATES.split())


def configs(options: Options | None = None, **engine: Any) -> dict[str, Any]:
    config = EngineConfig.model_validate(engine_json(**engine))
    return build_configs(config, Assets("_assets/m/engines", "_assets/m/tokenizer"), options or Options())


def test_every_placeholder_of_the_templates_has_a_home() -> None:
    ours = {one.placeholder for rows in PARAMETERS.values() for one in rows if one.placeholder}
    assert PLACEHOLDERS - ours - set(UNQUOTED) - set(QUOTED) == set()
    assert ours - PLACEHOLDERS == set()


def test_nothing_is_left_unfilled_and_every_config_reads_back() -> None:
    for name, config in configs().items():
        text = to_text(config)
        assert "${" not in text
        assert from_text(text) == config
        assert set(config.parameters) == {one.key for one in PARAMETERS[name]}


def test_the_contract_counts_what_the_templates_count() -> None:
    assert {name: (len(INPUTS[name]), len(OUTPUTS[name])) for name in MODELS} == {
        "preprocessing": (13, 20),
        "tensorrt_llm": (60, 19),
        "postprocessing": (2, 1),
        "tensorrt_llm_bls": (40, 17),
        "ensemble": (34, 17),
    }
    assert {t.name for t in INPUTS["tensorrt_llm"] if not t.optional} == {"input_lengths", "request_output_len"}
    assert [t.name for t in ENSEMBLE_IN if not t.optional] == ["text_input", "max_tokens"]


@pytest.mark.parametrize(
    ("names", "seed", "least"), [("0.20", "seed", "min_tokens"), ("0.19", "random_seed", "min_length")]
)
def test_names_of_both_versions_and_the_ensemble_agrees(names: str, seed: str, least: str) -> None:
    made = configs(Options(names=names))
    for name in ("tensorrt_llm", "tensorrt_llm_bls", "ensemble"):
        inputs = {entry.name for entry in made[name].input}
        assert {seed, least} <= inputs
        assert not ({"seed", "min_tokens", "random_seed", "min_length"} - {seed, least}) & inputs
    for step in made["ensemble"].ensemble_scheduling.step:
        model = made[step.model_name]
        assert set(step.input_map) <= {entry.name for entry in model.input}
        assert set(step.output_map) <= {entry.name for entry in model.output}
    sources = {outer for step in made["ensemble"].ensemble_scheduling.step for outer in step.output_map.values()}
    wanted = {outer for step in made["ensemble"].ensemble_scheduling.step for outer in step.input_map.values()}
    assert wanted <= sources | {entry.name for entry in made["ensemble"].input}
    assert {entry.name for entry in made["ensemble"].output} <= sources


def test_what_follows_from_the_engine() -> None:
    made = configs(
        build_config__max_batch_size=3,
        build_config__plugin_config={"use_paged_context_fmha": False},
        pretrained_config__logits_dtype="float16",
    )
    engine = made["tensorrt_llm"]
    assert {config.max_batch_size for config in made.values()} == {3}
    assert list(engine.dynamic_batching.preferred_batch_size) == [3]
    assert parameter(engine, "enable_kv_cache_reuse") == "false"
    assert parameter(engine, "max_beam_width") == "4"
    text = to_text(engine)
    assert text.count("TYPE_FP16") == 2 + 1 + 1 + 1 + 1  # two outputs, draft logits, features, prompt table, LoRA


def test_decoupled_comes_in_pairs_and_a_bls_that_waits_has_copies() -> None:
    for decoupled in (True, False):
        made = configs(Options(decoupled=decoupled, max_queue_delay_us=100, max_queue_size=64))
        modes = {made[name].model_transaction_policy.decoupled for name in ("tensorrt_llm", "tensorrt_llm_bls")}
        assert modes == {decoupled}
        assert made["tensorrt_llm_bls"].instance_group[0].count == (1 if decoupled else 4)
        assert made["tensorrt_llm"].dynamic_batching.max_queue_delay_microseconds == 100
        assert made["preprocessing"].dynamic_batching.default_queue_policy.max_queue_size == 64


def test_the_folders_of_a_repository(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "engines" / "int8", pretrained_config__mapping={"world_size": 2, "tp_size": 2})
    made = assemble(engine, tokenizer_folder("gemma"), output=tmp_path / "repository")
    found = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*")}
    for name in MODELS:
        assert {f"{name}/1", f"{name}/config.pbtxt"} <= found
        for file in model_files(name):
            assert (made.folder / name / "1" / file.name).read_bytes() == file.read_bytes()
    assets = "_assets/tokenizer-gemma"
    assert {f"{assets}/engines/rank1.engine", f"{assets}/tokenizer/tokenizer.json"} <= found
    assert f"{assets}/tokenizer/generation_config.json" in found
    assert not any(name.endswith((".safetensors", ".bin", "labs.json")) for name in found if "/" in name)


def test_an_engine_is_linked_and_not_copied(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "engine")
    folder = assemble(engine, tokenizer_folder("bytes"), output=tmp_path / "repository").folder
    (placed,) = folder.glob("_assets/*/engines/rank0.engine")
    assert placed.samefile(engine / "rank0.engine")
    assert not placed.is_symlink()


def test_a_repository_can_be_moved(tmp_path: Path) -> None:
    folder = good(tmp_path / "elsewhere")
    for path in folder.glob("*/config.pbtxt"):
        assert not re.search(r'"[^"]*' + re.escape(str(home())), path.read_text())
    for name, key in (("tensorrt_llm", "gpt_model_path"), ("preprocessing", "tokenizer_dir")):
        assert (folder / str(parameter(read_model_config(folder / name / "config.pbtxt"), key))).is_dir()


def test_absolute_paths_where_they_are_asked_for(tmp_path: Path) -> None:
    options = Options(mounted_at="/opt/tritonserver/projects/model_repository/")
    folder = assemble(make_engine(tmp_path / "e"), tokenizer_folder("bytes"), options, output=tmp_path / "r").folder
    path = parameter(read_model_config(folder / "tensorrt_llm" / "config.pbtxt"), "gpt_model_path")
    assert path == "/opt/tritonserver/projects/model_repository/_assets/tokenizer-bytes/engines"


def test_a_second_time_does_nothing_and_a_change_does(tmp_path: Path) -> None:
    engine, target = make_engine(tmp_path / "e"), tmp_path / "r"
    assert not assemble(engine, tokenizer_folder("bytes"), output=target).skipped
    assert assemble(engine, tokenizer_folder("bytes"), output=target).skipped
    assert not assemble(engine, tokenizer_folder("bytes"), Options(decoupled=False), output=target).skipped
    (engine / "rank0.engine").write_bytes(b"another engine")
    assert not assemble(engine, tokenizer_folder("bytes"), Options(decoupled=False), output=target).skipped


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    engine = make_engine(tmp_path / "e")
    with pytest.raises(ParameterError, match="not a repository that labs assemble wrote"):
        assemble(engine, tokenizer_folder("bytes"), output=tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert not assemble(engine, tokenizer_folder("bytes"), output=tmp_path / "mine", force=True).skipped


def test_nothing_is_left_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("unplugged")

    engine = make_engine(tmp_path / "e")
    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="unplugged"):
        assemble(engine, tokenizer_folder("bytes"), output=tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def spoil(engine: Path, how: str) -> None:
    config = engine / "config.json"
    if how == "no config":
        config.unlink()
    elif how == "cut":
        config.write_text(config.read_text()[:50])
    elif how == "checkpoint":
        config.write_text(json.dumps(engine_json()["pretrained_config"]))
    elif how == "rank":
        (engine / "rank0.engine").unlink()
    elif how == "value":
        config.write_text(json.dumps(engine_json(build_config__max_batch_size=0)))
    elif how == "vocabulary":
        config.write_text(json.dumps(engine_json(pretrained_config__vocab_size=100)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "config.json does not exist"),
        ("cut", "cannot be read"),
        ("checkpoint", "not an engine's config"),
        ("rank", "lacks rank0.engine"),
        ("value", "build_config.max_batch_size"),
        ("vocabulary", "the tokenizer has .* and the engine knows 100"),
    ],
)
def test_a_bad_engine_is_refused(tmp_path: Path, how: str, message: str) -> None:
    engine = make_engine(tmp_path / "e")
    spoil(engine, how)
    with pytest.raises(RepositoryError, match=message):
        assemble(engine, tokenizer_folder("bytes"), output=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no tokenizer folder"):
        assemble(make_engine(tmp_path / "e"), tmp_path / "nowhere", output=tmp_path / "r")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "0.18"}, "names '0.18'"),
        ({"parameters": {"kv_cache_fraction": "0.5"}}, "no parameter 'kv_cache_fraction'"),
        ({"max_queue_delay_us": -1}, "max_queue_delay_us -1"),
        ({"instances": 0}, "instances 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Options(**options)


def test_more_beams_than_the_engine_has_are_refused() -> None:
    with pytest.raises(ParameterError, match="max_beam_width 5"):
        configs(Options(parameters={"max_beam_width": "5"}))


def test_names_follow_the_engines_version() -> None:
    assert [names_for(version) for version in ("0.19.0", "0.20.0", "1.1.0", "unknown")] == [
        "0.19",
        "0.20",
        "0.20",
        "0.20",
    ]


def test_a_bad_line_is_named() -> None:
    with pytest.raises(RepositoryError, match=r"x:2: .*Couldn't parse integer: \$"):
        from_text('name: "m"\nmax_batch_size: ${triton_max_batch_size}\n', "x")


def test_the_server_is_told_its_models(tmp_path: Path) -> None:
    arguments = server_arguments(good(tmp_path / "r"))
    assert arguments[1] == "--model-control-mode=explicit"
    assert sorted(arguments[2:]) == sorted(f"--load-model={name}" for name in MODELS)
    with pytest.raises(LabError, match="holds no model"):
        server_arguments(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "e", version="0.19.0")
    call = ["assemble", str(engine), "--tokenizer", str(tokenizer_folder("bytes")), "--output", str(tmp_path / "r")]
    done = CliRunner().invoke(
        labs, [*call, "--no-decoupled", "--max-queue-delay", "50", "--set", "kv_cache_free_gpu_mem_fraction=0.4"]
    )
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "r") in done.output
    config = read_model_config(tmp_path / "r" / "tensorrt_llm" / "config.pbtxt")
    assert "random_seed" in {entry.name for entry in config.input}  # the engine's own version
    assert parameter(config, "kv_cache_free_gpu_mem_fraction") == "0.4"
    assert not config.model_transaction_policy.decoupled
    refused = CliRunner().invoke(labs, [*call, "--set", "nonsense"])
    assert isinstance(refused.exception, ParameterError)


def test_the_engine_reader_knows_padding_and_reuse(tmp_path: Path) -> None:
    mapping = {"world_size": 3, "tp_size": 3}
    engine = read_engine(make_engine(tmp_path / "e", pretrained_config__mapping=mapping))
    assert engine.padded_vocab_size == VOCABULARY + 1
    assert engine.reuses_kv_cache
    assert engine.rank_files() == ["rank0.engine", "rank1.engine", "rank2.engine"]
