"""Rules about files: what was left unfilled, what is missing, what is misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator

from labsupport.repository.assemble import ASSETS
from labsupport.repository.contract import INPUTS, MODELS, OUTPUTS, named
from labsupport.repository.lint.repo import Model, Repo
from labsupport.repository.lint.rules import Hit, rule
from labsupport.repository.parameters import PARAMETERS, QUOTED, REQUIRED, REQUIRED_MAY_BE_EMPTY
from labsupport.repository.text_format import set_parameter

SPECIAL = (
    "image", "video", "vision", "pixel", "aspect", "cross", "attention", "draft", "lookahead", "mrope", "retention",
    "encoder", "context_phase", "kv_cache", "total_", "acceptance", "_time_ns", "lora", "guided", "prompt_",
)  # fmt: skip
LOADS_NOT = {"tokenizer_dir", "engine_dir", "batching_strategy", *QUOTED}  # unfilled, the model does not load
SELDOM = {("tensorrt_llm", "tokenizer_dir"), ("preprocessing", "engine_dir")}  # for guided decoding, for pictures


@rule("unfilled-unquoted", pain=2, symptom='"Expected integer, got: $" at load, and the model is missing')
def _unfilled_unquoted(repo: Repo) -> Iterator[Hit]:
    for model in repo.models.values():
        for left in model.placeholders:
            if not left.quoted:
                yield Hit(
                    f"{model.name}/config.pbtxt:{left.line}",
                    f"${{{left.name}}} stands where a number or a word without quotes belongs",
                    f"fill it: fill_template.py -i {model.name}/config.pbtxt {left.name}:VALUE",
                )


@rule(
    "unfilled-required", pain=2, symptom="the model does not load: no backend, no engine, or no tokenizer of that name"
)
def _unfilled_required(repo: Repo) -> Iterator[Hit]:
    for model in repo.models.values():
        for left in model.placeholders:
            if left.quoted and _needed(model, left.name):
                yield Hit(
                    f"{model.name}/config.pbtxt:{left.line}",
                    f"${{{left.name}}} is read as if it were the value",
                    f"fill it: fill_template.py -i {model.name}/config.pbtxt {left.name}:VALUE",
                )


@rule("unfilled-default", pain=1, level="warning", symptom="a line in the log, and a setting that nobody chose")
def _unfilled_default(repo: Repo) -> Iterator[Hit]:
    for model in repo.models.values():
        by_placeholder = {one.placeholder: one for one in PARAMETERS.get(model.name, [])}
        for left in model.placeholders:
            if left.quoted and not _needed(model, left.name):
                known = by_placeholder.get(left.name)
                yield Hit(
                    f"{model.name}/config.pbtxt:{left.line}",
                    f"${{{left.name}}} was never filled, so TensorRT-LLM takes the default",
                    "write the value that you mean" + (f', such as "{known.value}"' if known else ""),
                    _setter(model, known.key, known.value) if known and model.config is not None else None,
                )


@rule("not-a-config", pain=2, symptom="a protobuf text error with a line number, and the model is missing")
def _not_a_config(repo: Repo) -> Iterator[Hit]:
    for model in repo.models.values():
        if model.problem:
            where, _, what = model.problem.what.partition(": ")
            yield Hit(where, f"{what}; {model.problem.why}", "correct the line")


@rule("missing-key", pain=1, symptom='"Cannot find parameter with name", or a KeyError of a Python model')
def _missing_key(repo: Repo) -> Iterator[Hit]:
    needed = {
        "preprocessing": ("tokenizer_dir", "multimodal_model_path"),
        "postprocessing": ("tokenizer_dir",),
        "tensorrt_llm": (*REQUIRED, *REQUIRED_MAY_BE_EMPTY),
    }
    for model in repo.readable(*needed):
        for key in needed[model.name]:
            if key not in model.config.parameters:
                may_be_empty = (key in REQUIRED_MAY_BE_EMPTY and model.name == "tensorrt_llm") or key.startswith(
                    "multimodal"
                )
                yield Hit(
                    f"{model.name}/config.pbtxt:1",
                    f"the parameter {key} is missing; an empty one would do" if may_be_empty else f"no parameter {key}",
                    f"add the parameter {key}",
                    _setter(model, key, "") if may_be_empty else None,
                )


@rule(
    "stale-key",
    pain=1,
    level="warning",
    symptom="fill_template.py ends with an AssertionError, or a setting has no effect",
)
def _stale_key(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable(*(name for name in MODELS if name != "ensemble")):
        known = {one.key for one in PARAMETERS[model.name]}
        if model.config.backend == "python" and model.source and not model.ours and model.name == "tensorrt_llm":
            continue  # somebody's own engine model reads what it likes
        for key in sorted(set(model.config.parameters) - known):
            close = difflib.get_close_matches(key, known, 1, cutoff=0.85)
            if key in model.source:
                continue
            yield Hit(
                model.at(key),
                f"nothing in TensorRT-LLM {repo.container.tensorrt_llm} reads {key}"
                + (f"; did you mean {close[0]}?" if close else ""),
                "remove it from the file and from the call of fill_template.py",
                None if close else _remover(model, key),
            )


@rule("renamed-tensor", pain=12, symptom='"unexpected inference input", or a seed that has no effect over /generate')
def _renamed_tensor(repo: Repo) -> Iterator[Hit]:
    version = repo.container.tensorrt_llm
    for model in repo.readable("tensorrt_llm", "tensorrt_llm_bls", "ensemble"):
        for entry in model.config.input:
            right = named(entry.name, version)
            if right != entry.name:
                yield Hit(
                    model.line(rf'name:\s*"{entry.name}"'),
                    f"{entry.name} is called {right} in TensorRT-LLM {version}",
                    f"take the configs of {version}, or rename it in all models and clients",
                    _renamer(repo, entry.name, right),
                )


@rule("missing-tensor", pain=15, level="warning", symptom='"unexpected inference input" for a client that is right')
def _missing_tensor(repo: Repo) -> Iterator[Hit]:
    version = repo.container.tensorrt_llm
    for model in repo.readable(*MODELS):
        for table, entries in ((INPUTS, model.config.input), (OUTPUTS, model.config.output)):
            have = {entry.name for entry in entries} | {named(entry.name, version) for entry in entries}
            wanted = [t for t in table[model.name] if named(t.name, version) not in have and _matters(t.name)]
            if wanted and not (model.config.backend == "python" and model.name == "tensorrt_llm"):
                names = ", ".join(named(tensor.name, version) for tensor in wanted[:4])
                yield Hit(
                    f"{model.name}/config.pbtxt:1", f"it does not declare {names}", f"take the configs of {version}"
                )


@rule("missing-model", pain=29, symptom='"model not found" on the first request, or an ensemble that does not load')
def _missing_model(repo: Repo) -> Iterator[Hit]:
    wanted = {"tensorrt_llm"} | (
        {"preprocessing", "postprocessing"} if {"ensemble", "tensorrt_llm_bls"} & set(repo.models) else set()
    )
    for model in repo.readable("ensemble"):
        wanted |= {step.model_name for step in model.config.ensemble_scheduling.step}
    if any(model.name != "tensorrt_llm" for model in repo.engines()):
        wanted.discard("tensorrt_llm")
    for name in sorted(wanted - set(repo.models)):
        yield Hit(
            name, f"there is no folder {name} with a config.pbtxt", "copy it from the templates, or run labs assemble"
        )


@rule("version-folder", pain=29, symptom="at least one version must be available under the version policy of model ...")
def _version_folder(repo: Repo) -> Iterator[Hit]:
    for model in repo.models.values():
        if not model.versions:
            target = model.folder / "1"
            cause = "there is no version folder; copies by git or zip lose an empty one"
            yield Hit(model.name, cause, f"mkdir {model.name}/1", lambda target=target: target.mkdir())  # type: ignore[misc]


@rule("no-program", pain=29, symptom="the Python model does not load: model.py not found")
def _no_program(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable():
        if model.config.backend == "python" and model.versions and not model.source:
            yield Hit(
                f"{model.name}/{model.versions[0].name}",
                "the backend is python, and there is no model.py",
                "copy it there",
            )


@rule(
    "name-mismatch",
    pain=29,
    symptom="unexpected directory name ... for model ..., directory name must equal model name",
)
def _name_mismatch(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable():
        if model.config.name not in ("", model.name):
            yield Hit(
                model.line(r"(?m)^name:"),
                f'the config says "{model.config.name}", the folder is {model.name}',
                "give both one name",
                lambda model=model: setattr(model.config, "name", model.name),  # type: ignore[misc]
            )


@rule("stray-folder", pain=29, level="warning", symptom="Poll failed for model directory ..., and the server ends")
def _stray_folder(repo: Repo) -> Iterator[Hit]:
    for path in sorted(repo.folder.iterdir()):
        if path.is_dir() and path.name not in repo.models and path.name != ASSETS and not path.name.startswith("."):
            yield Hit(
                path.name,
                "Triton takes each folder of a repository for a model, and this one has no config.pbtxt",
                "move it elsewhere, or start with --model-control-mode=explicit and a --load-model for each model",
            )


def _needed(model: Model, placeholder: str) -> bool:
    return placeholder in LOADS_NOT and (model.name, placeholder) not in SELDOM


def _matters(name: str) -> bool:
    """Not the tensors of pictures, and not those of single techniques: a text server does without them."""
    return not any(part in name.lower() for part in SPECIAL)


def _setter(model: Model, key: str, value: str) -> Callable[[], object]:
    return lambda: set_parameter(model.config, key, value)


def _remover(model: Model, key: str) -> Callable[[], object]:
    return lambda: model.config.parameters.pop(key)


def _renamer(repo: Repo, old: str, new: str) -> Callable[[], object]:
    def rename() -> None:
        for model in repo.readable("tensorrt_llm", "tensorrt_llm_bls", "ensemble"):
            for entry in model.config.input:
                entry.name = new if entry.name == old else entry.name
            for step in model.config.ensemble_scheduling.step:
                pairs = {new if inner == old else inner: new if outer == old else outer
                         for inner, outer in step.input_map.items()}  # fmt: skip
                step.input_map.clear()
                step.input_map.update(pairs)

    return rename
