"""Checks of lab 08, repository assembly; and the hand-made repository that its exercises search and mend."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from labsupport.labs.checks import Wrong, exercise, expect, expect_equal
from labsupport.repository.dataflow import edges
from labsupport.repository.text_format import CONFIG, ModelConfig, from_text, parameter, read_model_config, to_text

COUNT = "${preprocessing_instance_count}"
MISSPELT = ("INPUT_ID", "INPUT_IDS")
ELSEWHERE = "/opt/tritonserver/projects/model-repository/_assets/gemma-2b-it/tokenizer"
PARTNERS = ("tensorrt_llm_model_name", "tensorrt_llm_draft_model_name")
TEXTS = (
    "max_batch_size: 8\n",
    "max_batch_size: ${triton_max_batch_size}\n",
    'name: "a"\n\nparameters { key: "x" value { string_value: "${engine_dir}" } }\n',
    "# ${not_this}\ncount: ${bls_instance_count} # nor ${this}\n",
    'a: "${one}" b: "${two}"\nc: ${three}\n',
    'instance_group [ { kind: "CPU" count: ${count} } ]\n',
    'note: "# in a text: ${inside}"\nprice: "$5 {x}"\n',
)


def placeholders(text: str) -> list[tuple[int, str, bool]]:
    """Line, name, and whether it stands in quotes, of each ``${name}`` outside of comments."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for match in re.finditer(r"\$\{(\w+)\}", line):
            before = line[: match.start()]
            if "#" not in re.sub(r'"[^"]*"?', "", before):
                found.append((number, match[1], before.count('"') % 2 == 1))
    return found


def disagree(configs: Mapping[str, ModelConfig]) -> list[tuple[str, str]]:
    """Pairs (caller, engine's model) of which one is decoupled and the other is not."""
    found = []
    for name, config in configs.items():
        partners = [value for key in PARTNERS if (value := parameter(config, key))]
        own = config.model_transaction_policy.decoupled
        found += [(name, one) for one in partners if configs[one].model_transaction_policy.decoupled != own]
    return found


def resolve(value: str, repository: Path, mounted_at: str) -> Path | None:
    """Where a path of a config lies on this machine; None where it leaves the repository.

    Args:
        value: the path as the config has it.
        repository: where the repository lies here.
        mounted_at: where the server sees it.
    """
    path = PurePosixPath(value)
    if path.is_absolute():
        if not path.is_relative_to(mounted_at):
            return None
        path = path.relative_to(mounted_at)
    place = Path(os.path.normpath(repository / path))
    return place if place.is_relative_to(repository) else None


def mend(repository: Path) -> None:
    """Mend the repository that ``hand_made`` wrote, in place."""
    change(repository, "preprocessing", COUNT, "1")
    change(repository, "preprocessing", f'"{MISSPELT[1]}"', f'"{MISSPELT[0]}"')
    bls = read_model_config(repository / "tensorrt_llm_bls" / CONFIG)
    bls.model_transaction_policy.decoupled = True
    (repository / "tensorrt_llm_bls" / CONFIG).write_text(to_text(bls), encoding="utf-8")
    (tokenizer,) = repository.glob("_assets/*/tokenizer")
    change(repository, "postprocessing", ELSEWHERE, str(tokenizer.relative_to(repository)))
    (repository / "tensorrt_llm" / "1").mkdir()


def change(repository: Path, model: str, old: str, new: str) -> None:
    """Replace text in the config of a model."""
    path = repository / model / CONFIG
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def spoil(repository: Path) -> Path:
    """Plant five faults in a good repository, as they come from doing it by hand."""
    change(repository, "preprocessing", "count: 1", f"count: {COUNT}")
    change(repository, "preprocessing", f'"{MISSPELT[0]}"', f'"{MISSPELT[1]}"')
    change(repository, "tensorrt_llm_bls", "decoupled: true", "decoupled: false")
    tokenizer = parameter(read_model_config(repository / "postprocessing" / CONFIG), "tokenizer_dir")
    change(repository, "postprocessing", str(tokenizer), ELSEWHERE)
    (repository / "tensorrt_llm" / "1").rmdir()  # git keeps no empty folder
    return repository


def stand_in_engine(folder: Path, like: Path | None = None) -> Path:
    """An engine folder as ``trtllm-build`` 0.20 leaves it, around an engine that is never run.

    Args:
        folder: to write.
        like: the engine whose config is taken over; a small one where missing.
    """
    folder.mkdir(parents=True)
    small = {
        "pretrained_config": {"architecture": "LlamaForCausalLM", "vocab_size": 512, "logits_dtype": "float32"},
        "build_config": {"max_batch_size": 8, "max_input_len": 512, "max_seq_len": 1024, "kv_cache_type": "PAGED",
                         "plugin_config": {"use_paged_context_fmha": True}},
    }  # fmt: skip
    raw = json.loads((like / "config.json").read_text(encoding="utf-8")) if like else small
    (folder / "config.json").write_text(json.dumps({**raw, "version": "0.20.0"}, indent=4), encoding="utf-8")
    (folder / "rank0.engine").write_bytes(b"a stand-in: never run")
    return folder


def hand_made(home: Path) -> Path:
    """A small repository with five faults: a tokenizer of bytes, and an engine that is never run."""
    from labsupport.models.tiny import byte_tokenizer
    from labsupport.repository.assemble import assemble

    byte_tokenizer(1024).save_pretrained(home / "tiny")
    engine = stand_in_engine(home / "engine")
    return spoil(assemble(engine, home / "tiny", output=home / "model-repository").folder)


@exercise("08.1", reference=placeholders)
def what_is_left(attempt: Callable[[str], Iterable[tuple[int, str, bool]]]) -> None:
    """Quotes, comments, a ``#`` inside of quotes, two on a line."""
    for text in TEXTS:
        expect_equal([tuple(one) for one in attempt(text)], placeholders(text), given={"text": text})


@exercise("08.2", reference=edges)
def wires(attempt: Callable[[Any], Iterable[tuple[str | None, str | None, str, str]]]) -> None:
    """Two steps first, then a tensor that two read, one that skips a step, and one that nobody writes."""
    for config in _ensembles():
        got, want = {tuple(one) for one in attempt(config)}, {tuple(one) for one in edges(config)}
        names = [step.model_name for step in config.ensemble_scheduling.step]
        for what, odd in (("lacks", want - got), ("has, wrongly,", got - want)):
            if odd:
                raise Wrong(
                    f"For the ensemble {config.name} of the steps {names}:\n"
                    f"your graph {what} {min(odd, key=repr)}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
                )


@exercise("08.3", reference=disagree)
def pairs(attempt: Callable[[dict[str, ModelConfig]], Iterable[tuple[str, str]]]) -> None:
    """All four combinations, an engine of another name, and a draft model beside it."""
    modes: list[set[str]] = [set(), {"engine"}, {"bls"}, {"engine", "bls"}, {"engine", "bls", "draft"}, {"draft"}]
    for decoupled in modes:
        for draft in ("", "draft"):
            configs = {name: _model(name, name in decoupled) for name in ("preprocessing", "engine", "draft")}
            configs["bls"] = _model("bls", "bls" in decoupled, "engine", draft)
            given = f"decoupled: {sorted(decoupled)}; the BLS calls engine{' and draft' if draft else ''}"
            expect_equal(sorted(map(tuple, attempt(configs))), sorted(disagree(configs)), given=given)


@exercise("08.4", reference=resolve)
def places(attempt: Callable[..., Path | None]) -> None:
    """Relative, mounted, elsewhere, and out through the back door."""
    here, there = Path("/srv/repo"), "/models/repo"
    values = ("_assets/m/engines", "/models/repo/_assets/m/engines", "/engines", "/models/repo2/_assets", ".",
              "../tokenizer", "_assets/../_assets/m", "/models/repo/../other", "_assets/../../repo2")  # fmt: skip
    for value in values:
        got, want = attempt(value, here, there), resolve(value, here, there)
        given = {"value": value, "repository": str(here), "mounted_at": there}
        expect_equal(str(got), str(want), given=given)


@exercise("08.5", reference=mend)
def mended(attempt: Callable[[Path], object]) -> None:
    """The mended repository passes every rule of ``labs lint-repo``, and is still the same five models."""
    from labsupport.repository.lint import lint

    with tempfile.TemporaryDirectory() as home:
        folder = Path(shutil.copytree(_broken_once(), Path(home) / "model-repository"))
        attempt(folder)
        models = {path.parent.name for path in folder.glob(f"*/{CONFIG}")}
        expect(len(models) == 5, f"five models were there, and {len(models)} are left: {', '.join(sorted(models))}")
        left = [f"{one.hit.where}: {one.rule.name}: {one.hit.cause}" for one in lint(folder)]
        expect(not left, "labs lint-repo still finds:\n" + "\n".join(left).replace(f"{folder}/", ""))


def _model(name: str, decoupled: bool, *partners: str) -> ModelConfig:
    config = from_text(f'name: "{name}"\nbackend: "python"')
    config.model_transaction_policy.decoupled = decoupled
    for key, partner in zip(PARTNERS, partners, strict=False):
        config.parameters[key].string_value = partner
    return config


def _ensembles() -> list[ModelConfig]:
    """Small ensembles from their maps: (model, inputs, outputs), each map as the config writes it."""
    cut = ("cut", {"TEXT": "text"}, {"IDS": "_ids", "COUNT": "_count"})
    run = ("run", {"ids": "_ids", "heat": "heat"}, {"out": "_out", "score": "score"})
    join = ("join", {"TOKENS": "_out", "PROMPT": "_ids"}, {"ANSWER": "answer"})
    lost = ("run", {"ids": "_idz", "heat": "heat"}, {"out": "_out", "score": "score"})
    made = [("two", [cut, ("join", {"TOKENS": "_ids"}, {"ANSWER": "answer"})]), ("three", [cut, run, join]),
            ("lost", [cut, lost, join])]  # fmt: skip
    configs = []
    for name, steps in made:
        outputs = ("answer",) if name == "two" else ("answer", "score")
        config = from_text(f'name: "{name}"\nplatform: "ensemble"')
        for entry in ("text", "heat"):
            config.input.add(name=entry)
        for entry in outputs:
            config.output.add(name=entry)
        for model, inputs, given in steps:
            step = config.ensemble_scheduling.step.add(model_name=model)
            step.input_map.update(inputs)
            step.output_map.update(given)
        configs.append(config)
    return configs


@cache
def _broken_once() -> Path:
    home = Path(tempfile.mkdtemp(prefix="labs-hand-made-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return hand_made(home)
