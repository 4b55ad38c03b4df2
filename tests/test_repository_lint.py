"""labs lint-repo: each rule catches a repository that was spoiled for it, and passes a good one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from repositories_made import good, make_engine, tokenizer_folder

from labsupport.cli import labs
from labsupport.errors import ParameterError, RepositoryError
from labsupport.repository.assemble import is_ours
from labsupport.repository.lint import RULES, lint, mend
from labsupport.repository.lint.run import BACKUP
from labsupport.repository.text_format import read_model_config, set_parameter, to_text

FIXED = """
unfilled-default missing-key stale-key version-folder name-mismatch renamed-tensor beam-width batch-size kv-reuse
chunked-context logits-type kv-fraction lora-rank two-tokenizers no-bos special-tokens-shown prompt-in-answer
decoupled-pair bls-instances batching-strategy booleans queue-delay
"""
Spoil = Callable[[Path], object]
SPOILERS: dict[str, tuple[Spoil, dict[str, Any]]] = {}
BY_NAME = {rule.name: rule for rule in RULES}


def spoils(name: str, **made: Any) -> Callable[[Spoil], Spoil]:
    """The function below spoils a repository (made with ``made``) for rule ``name``."""

    def register(spoil: Spoil) -> Spoil:
        assert name not in SPOILERS
        SPOILERS[name] = (spoil, made)
        return spoil

    return register


def edit(repo: Path, model: str, change: Callable[[Any], object]) -> None:
    path = repo / model / "config.pbtxt"
    config = read_model_config(path)
    change(config)
    path.write_text(to_text(config))


def put(repo: Path, model: str, **parameters: str) -> None:
    edit(repo, model, lambda config: [set_parameter(config, key, value) for key, value in parameters.items()])


def drop(repo: Path, model: str, key: str) -> None:
    edit(repo, model, lambda config: config.parameters.pop(key))


def replace(repo: Path, model: str, old: str, new: str) -> None:
    path = repo / model / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def engine(repo: Path, **changes: Any) -> None:
    (folder,) = repo.glob("_assets/*/engines")
    shutil.rmtree(folder)  # files may be links to those of other tests
    make_engine(folder, **changes)


def tokenizer(repo: Path, file: str, **changes: Any) -> None:
    (path,) = repo.glob(f"_assets/*/tokenizer/{file}")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def foreign(repo: Path, model: str) -> None:
    """Somebody else's model.py."""
    path = repo / model / "1" / "model.py"
    path.write_text(path.read_text() + "\n# mine\n")


spoils("unfilled-unquoted")(
    lambda r: replace(r, "ensemble", "max_batch_size: 8", "max_batch_size: ${triton_max_batch_size}")
)
spoils("unfilled-required")(lambda r: put(r, "preprocessing", tokenizer_dir="${tokenizer_dir}"))
spoils("unfilled-default")(lambda r: put(r, "tensorrt_llm", normalize_log_probs="${normalize_log_probs}"))
spoils("not-a-config")(lambda r: replace(r, "preprocessing", "TYPE_FP32", "TYPE_FLOAT"))
spoils("missing-key")(lambda r: drop(r, "tensorrt_llm", "guided_decoding_backend"))
spoils("stale-key")(lambda r: put(r, "preprocessing", tokenizer_type="sp"))
spoils("missing-model")(lambda r: shutil.rmtree(r / "postprocessing"))
spoils("version-folder")(lambda r: (r / "tensorrt_llm" / "1").rmdir())
spoils("no-program")(lambda r: (r / "postprocessing" / "1" / "model.py").unlink())
spoils("name-mismatch")(lambda r: replace(r, "ensemble", 'name: "ensemble"\nplatform', 'name: "my_ensemble"\nplatform'))
spoils("stray-folder")(lambda r: (r / "notes").mkdir())


@spoils("renamed-tensor")
def _old_names(repo: Path) -> None:
    for model in ("tensorrt_llm", "tensorrt_llm_bls", "ensemble"):
        replace(repo, model, '"seed"', '"random_seed"')


@spoils("missing-tensor")
def _no_seed(repo: Path) -> None:
    def take(config: Any) -> None:
        kept = [entry for entry in config.input if entry.name != "temperature"]
        del config.input[:]
        config.input.extend(kept)

    edit(repo, "tensorrt_llm_bls", take)


spoils("engine-missing")(lambda r: put(r, "tensorrt_llm", gpt_model_path="/engines/elsewhere"))
spoils("engine-version")(lambda r: engine(r, version="0.18.2"))
spoils("no-engines-here")(lambda r: replace(r, "tensorrt_llm", 'backend: "tensorrtllm"', 'backend: "vllm"'))
spoils("beam-width")(lambda r: put(r, "tensorrt_llm", max_beam_width="8"))
spoils("batch-size")(lambda r: engine(r, build_config__max_batch_size=4))
spoils("no-batching")(lambda r: replace(r, "postprocessing", "max_batch_size: 8", "max_batch_size: 0"))
UNPAGED = {"use_paged_context_fmha": False}
spoils("kv-reuse")(lambda r: engine(r, build_config__plugin_config=UNPAGED))


@spoils("chunked-context")
def _chunks(repo: Path) -> None:
    engine(repo, build_config__plugin_config=UNPAGED)
    put(repo, "tensorrt_llm", enable_chunked_context="true", enable_kv_cache_reuse="false")


spoils("prompt-limit")(lambda r: engine(r, build_config__max_num_tokens=256))
spoils("no-room-to-answer")(lambda r: engine(r, build_config__max_seq_len=512))
spoils("logits-type")(lambda r: engine(r, pretrained_config__logits_dtype="float16"))
spoils("ranks")(lambda r: put(r, "tensorrt_llm", gpu_device_ids="0,1"))
SPLIT = {"world_size": 2, "tp_size": 2}


def second_engine(repo: Path) -> None:
    shutil.copytree(repo / "tensorrt_llm", repo / "draft")
    edit(repo, "draft", lambda config: setattr(config, "name", "draft"))


@spoils("several-engines")
def _two_engines(repo: Path) -> None:
    engine(repo, pretrained_config__mapping=SPLIT)
    second_engine(repo)


spoils("kv-memory")(second_engine)
spoils("kv-fraction")(lambda r: put(r, "tensorrt_llm", kv_cache_free_gpu_mem_fraction="90"))


@spoils("lora-rank")
def _rank(repo: Path) -> None:
    engine(repo, build_config__plugin_config={"use_paged_context_fmha": True, "lora_plugin": "auto"},
           build_config__lora_config={"max_lora_rank": 128})  # fmt: skip


spoils("tokenizer-missing")(lambda r: put(r, "postprocessing", tokenizer_dir="gpt2"))
spoils("tokenizer-outside")(lambda r: put(r, "postprocessing", tokenizer_dir=str(tokenizer_folder("bytes"))))
spoils("remote-code")(lambda r: tokenizer(r, "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.X", None]}))


@spoils("two-tokenizers")
def _other_tokenizer(repo: Path) -> None:
    shutil.copytree(tokenizer_folder("gemma"), repo / "_assets" / "other")
    put(repo, "postprocessing", tokenizer_dir="_assets/other")


spoils("vocabulary")(lambda r: engine(r, pretrained_config__vocab_size=200))
spoils("double-bos", kind="gemma")(lambda r: foreign(r, "preprocessing"))


@spoils("no-bos", kind="gemma")
def _no_bos(repo: Path) -> None:
    put(repo, "preprocessing", add_special_tokens="false")
    tokenizer(repo, "tokenizer_config.json", chat_template="{{ messages[0]['content'] }}")


spoils("end-ids")(lambda r: foreign(r, "preprocessing"))


@spoils("no-chat-template")
def _no_template(repo: Path) -> None:
    tokenizer(repo, "tokenizer_config.json", chat_template=None)
    (old,) = repo.glob("_assets/*")
    old.rename(old.with_name("model-7b-instruct"))
    for model in ("preprocessing", "postprocessing", "tensorrt_llm_bls", "tensorrt_llm"):
        replace(repo, model, old.name, "model-7b-instruct")


spoils("special-tokens-shown")(lambda r: put(r, "postprocessing", skip_special_tokens="false"))
spoils("prompt-in-answer")(lambda r: put(r, "tensorrt_llm", exclude_input_in_output=""))
spoils("lost-spaces")(lambda r: foreign(r, "tensorrt_llm_bls"))
spoils("decoupled-pair")(lambda r: replace(r, "tensorrt_llm_bls", "decoupled: true", "decoupled: false"))
spoils("no-streaming", decoupled=False)(lambda _: None)
spoils("no-final-flag")(
    lambda r: (r / "tensorrt_llm_bls" / "1" / "model.py").write_text("class TritonPythonModel: ...")
)
spoils("bare-final-flag")(lambda r: foreign(r, "tensorrt_llm_bls"))


@spoils("bls-instances", decoupled=False)
def _one_copy(repo: Path) -> None:
    edit(repo, "tensorrt_llm_bls", lambda config: setattr(config.instance_group[0], "count", 1))


spoils("bls-target")(lambda r: put(r, "tensorrt_llm_bls", tensorrt_llm_model_name="engine"))
spoils("batching-strategy")(lambda r: put(r, "tensorrt_llm", gpt_model_type="V1"))
spoils("decoding-mode")(lambda r: put(r, "tensorrt_llm", decoding_mode="greedy"))


@spoils("beams-and-streams")
def _beams(repo: Path) -> None:
    foreign(repo, "tensorrt_llm_bls")
    put(repo, "tensorrt_llm_bls", accumulate_tokens="true")


@spoils("booleans")
def _yes(repo: Path) -> None:
    replace(repo, "tensorrt_llm", 'backend: "tensorrtllm"', 'backend: "python"')
    (repo / "tensorrt_llm" / "1" / "model.py").write_text("COMPLETE_FINAL")
    put(repo, "tensorrt_llm", enable_kv_cache_reuse="True")


spoils("queue-delay")(
    lambda r: edit(r, "tensorrt_llm", lambda c: setattr(c.dynamic_batching, "max_queue_delay_microseconds", 5_000_000))
)
spoils("ensemble-map")(lambda r: replace(r, "preprocessing", '"INPUT_ID"', '"INPUT_IDS"'))
spoils("guided-decoding")(lambda r: put(r, "tensorrt_llm", guided_decoding_backend="xgrammar"))


@pytest.mark.parametrize("kind", ["bytes", "gemma", "sentencepiece"])
def test_a_good_repository_passes_every_rule(tmp_path: Path, kind: str) -> None:
    assert [str(finding) for finding in lint(good(tmp_path / "r", kind))] == []


def test_there_are_at_least_25_rules_and_each_has_a_spoiler() -> None:
    assert len(RULES) >= 25
    assert set(BY_NAME) == set(SPOILERS)


@pytest.mark.parametrize("name", sorted(SPOILERS))
def test_a_rule_catches_what_it_is_for(tmp_path: Path, name: str) -> None:
    spoil, made = SPOILERS[name]
    repo = good(tmp_path / "r", **made)
    if not spoil.__name__.startswith("<") or made.get("decoupled", True):
        assert name not in {finding.rule.name for finding in lint(repo)}
    spoil(repo)
    found = [finding for finding in lint(repo) if finding.rule.name == name]
    assert found
    for finding in found:
        assert finding.rule.symptom
        assert finding.hit.cause
        assert finding.hit.mend
        place = finding.hit.where.split(":")[0]
        assert (repo / place).exists() or name == "missing-model"
    assert any(finding.hit.fix for finding in found) == (name in FIXED.split())  # the others are for a person to decide


@pytest.mark.parametrize("name", FIXED.split())
def test_a_safe_fix_mends_it_and_keeps_the_old_text(tmp_path: Path, name: str) -> None:
    spoil, made = SPOILERS[name]
    repo = good(tmp_path / "r", **made)
    spoil(repo)
    before = {path.parent.name: path.read_text() for path in repo.glob("*/config.pbtxt")}
    mended, left = mend(repo)
    assert name in {finding.rule.name for finding in mended}
    assert name not in {finding.rule.name for finding in left}
    for model, text in before.items():
        changed = (repo / model / "config.pbtxt").read_text() != text
        assert (repo / model / BACKUP).exists() == changed
        assert not changed or (repo / model / BACKUP).read_text() == text
    assert mend(repo)[0] == []


def test_a_stand_in_for_a_placeholder_is_never_written(tmp_path: Path) -> None:
    repo = good(tmp_path / "r")
    replace(repo, "tensorrt_llm", "max_batch_size: 8", "max_batch_size: ${triton_max_batch_size}")
    put_text = (repo / "tensorrt_llm" / "config.pbtxt").read_text().replace('string_value: "0.9"', 'string_value: "90"')
    (repo / "tensorrt_llm" / "config.pbtxt").write_text(put_text)
    mended, left = mend(repo)
    assert mended == []
    assert {"unfilled-unquoted", "kv-fraction"} <= {finding.rule.name for finding in left}
    assert "${triton_max_batch_size}" in (repo / "tensorrt_llm" / "config.pbtxt").read_text()


def test_placeholders_have_their_line_and_comments_do_not_count(tmp_path: Path) -> None:
    repo = good(tmp_path / "r")
    path = repo / "ensemble" / "config.pbtxt"
    lines = path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("max_batch_size"))
    lines[number : number + 1] = ["# fill ${nothing} here", "max_batch_size: ${triton_max_batch_size}"]
    path.write_text("\n".join(lines))
    (finding,) = lint(repo)
    assert finding.hit.where == f"ensemble/config.pbtxt:{number + 2}"


def test_an_engine_that_a_container_sees_elsewhere_is_found(tmp_path: Path) -> None:
    repo = good(tmp_path / "r")
    put(repo, "tensorrt_llm", gpt_model_path="/opt/tritonserver/projects/r/_assets/tokenizer-bytes/engines")
    assert lint(repo) == []


def test_the_container_decides_what_is_right(tmp_path: Path) -> None:
    repo = good(tmp_path / "r")
    assert lint(repo, "25.06") == []
    assert {finding.rule.name for finding in lint(repo, "25.05")} == {"engine-version", "renamed-tensor"}
    with pytest.raises(ParameterError, match=r"no container '24\.13'"):
        lint(repo, "24.13")


def test_an_engine_of_the_labs_has_no_version_to_compare(tmp_path: Path) -> None:
    repo = good(tmp_path / "r")
    engine(repo, version="labs-0.1.0")
    assert lint(repo) == []


def test_what_is_no_repository_is_said(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="holds no model"):
        lint(tmp_path)
    with pytest.raises(RepositoryError, match="no folder"):
        lint(tmp_path / "nowhere")


def test_ours_means_byte_for_byte(tmp_path: Path) -> None:
    repo = good(tmp_path / "r")
    assert is_ours(repo / "preprocessing" / "1", "preprocessing")
    foreign(repo, "preprocessing")
    assert not is_ours(repo / "preprocessing" / "1", "preprocessing")
    assert not is_ours(repo / "tensorrt_llm" / "1", "tensorrt_llm")


def test_every_pain_is_one_of_the_list() -> None:
    pains = json.loads((Path(__file__).parents[1] / "data" / "pains.json").read_text())["pains"]
    assert [pain["number"] for pain in pains] == list(range(1, 31))
    assert {rule.pain for rule in RULES} <= {pain["number"] for pain in pains}
    assert all(pain["threads"] for pain in pains)


def test_the_command(tmp_path: Path) -> None:
    repo = good(tmp_path / "r")
    assert CliRunner().invoke(labs, ["lint-repo", str(repo)]).exit_code == 0
    put(repo, "tensorrt_llm", max_beam_width="8")
    done = CliRunner().invoke(labs, ["lint-repo", str(repo)])
    assert done.exit_code == 1
    assert "error: tensorrt_llm/config.pbtxt:" in done.output
    assert "you would see:" in done.output
    assert "as in: triton-inference-server/tensorrtllm_backend#140" in done.output
    found = json.loads(CliRunner().invoke(labs, ["lint-repo", "--json", str(repo)]).output)["findings"]
    assert [(one["rule"], one["pain"], one["fixable"]) for one in found] == [("beam-width", 16, True)]
    fixed = CliRunner().invoke(labs, ["lint-repo", "--fix", str(repo)])
    assert fixed.exit_code == 0
    assert "mended: tensorrt_llm/config.pbtxt" in fixed.output
