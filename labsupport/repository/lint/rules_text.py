"""Rules about text: the tokenizer, its special tokens, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from labsupport.errors import LabError
from labsupport.repository.lint.repo import Model, Repo
from labsupport.repository.lint.rules import Hit, rule
from labsupport.repository.text_format import set_parameter
from labsupport.repository.tokenizer_files import TokenizerFacts
from labsupport.workspace import sha256

CHAT_NAMES = ("instruct", "chat", "-it", "assistant")


def _readers(repo: Repo) -> Iterator[tuple[Model, TokenizerFacts]]:
    for model in repo.readable("preprocessing", "postprocessing"):
        if (facts := repo.tokenizer(model)) is not None:
            yield model, facts


def _set(model: Model, key: str, value: str) -> Callable[[], object]:
    return lambda: set_parameter(model.config, key, value)


@rule("tokenizer-missing", pain=29, symptom="a download from the hub fails, or a tokenizer class error, at load")
def _tokenizer_missing(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("preprocessing", "postprocessing", "tensorrt_llm_bls"):
        value = model.get("tokenizer_dir")
        if value is None or (not value and model.name == "tensorrt_llm_bls" and not model.ours):
            continue
        folder = repo.find(value)
        try:
            if folder is not None and value:
                repo.tokenizer_in(folder)
                continue
            cause = f"there is no folder {value!r}, so it is taken for the name of a model on the hub"
        except LabError as problem:
            cause = f"{problem.what}: {problem.why}"
        yield Hit(
            model.at("tokenizer_dir"), cause, "write the folder that holds tokenizer.json and tokenizer_config.json"
        )


@rule("tokenizer-outside", pain=29, level="warning", symptom="all is well here, and nothing is found in the container")
def _tokenizer_outside(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable():
        for key in ("tokenizer_dir", "gpt_model_path"):
            folder = repo.find(model.get(key))
            if folder and repo.folder not in folder.resolve().parents:
                yield Hit(
                    model.at(key),
                    f"{folder} lies outside the repository, so a container that mounts the repository does not see it",
                    "put it under _assets/<model>/, or mount it as well",
                )


@rule(
    "remote-code",
    pain=29,
    level="warning",
    symptom="loading the tokenizer asks for trust_remote_code, or runs a program",
)
def _remote_code(repo: Repo) -> Iterator[Hit]:
    for model, facts in _readers(repo):
        if facts.remote_code:
            yield Hit(
                model.at("tokenizer_dir"),
                "tokenizer_config.json has auto_map: the tokenizer is a program that comes with the model",
                "read that program first; save the tokenizer as tokenizer.json if it can be",
            )


@rule("two-tokenizers", pain=10, symptom="the answer is garbage, although its token ids are right")
def _two_tokenizers(repo: Repo) -> Iterator[Hit]:
    found = {model.name: facts for model, facts in _readers(repo)}
    if len(found) == 2:
        files = [facts.folder / "tokenizer.json" for facts in found.values()]
        if all(path.is_file() for path in files) and len({sha256(path) for path in files}) == 2:
            yield Hit(
                repo.models["postprocessing"].at("tokenizer_dir"),
                "preprocessing and postprocessing read different tokenizers, and nothing at run time compares them",
                "name one folder in both",
                _set(
                    repo.models["postprocessing"],
                    "tokenizer_dir",
                    repo.models["preprocessing"].get("tokenizer_dir") or "",
                ),
            )


@rule("vocabulary", pain=10, symptom="garbage, or an illegal memory access: a token id that the engine does not know")
def _vocabulary(repo: Repo) -> Iterator[Hit]:
    sizes = [engine.pretrained_config.vocab_size for model in repo.engines() if (engine := repo.engine(model))]
    for model, facts in _readers(repo):
        if sizes and facts.size > max(sizes):
            yield Hit(
                model.at("tokenizer_dir"),
                f"the tokenizer has {facts.size} tokens, and the engine knows {max(sizes)}: they belong to two models",
                "name the tokenizer of the engine's own model",
            )


@rule("double-bos", pain=8, level="warning", symptom="an odd first word, and worse answers to chat prompts")
def _double_bos(repo: Repo) -> Iterator[Hit]:
    for model, facts in _readers(repo):
        adds = (model.get("add_special_tokens") or "true").lower() not in ("false", "0", "f", "n", "no")
        if model.name == "preprocessing" and not model.ours and adds and facts.adds_bos and facts.template_writes_bos:
            yield Hit(
                model.at("add_special_tokens"),
                f"the chat template writes {facts.bos_token}, and the tokenizer adds another one",
                "write false if clients send templated prompts, or take the preprocessing of labs assemble",
            )


@rule("no-bos", pain=8, level="warning", symptom="garbage from a model that needs BOS at the start, such as Gemma")
def _no_bos(repo: Repo) -> Iterator[Hit]:
    for model, facts in _readers(repo):
        off = (model.get("add_special_tokens") or "true").lower() in ("false", "0", "f", "n", "no")
        if model.name == "preprocessing" and off and facts.adds_bos and not facts.template_writes_bos:
            yield Hit(
                model.at("add_special_tokens"),
                f"add_special_tokens is off, and nothing else writes {facts.bos_token}",
                "write true",
                _set(model, "add_special_tokens", "true"),
            )


@rule(
    "end-ids", pain=9, level="warning", symptom="the answer runs on to max_tokens, through turns that nobody asked for"
)
def _end_ids(repo: Repo) -> Iterator[Hit]:
    for model, facts in _readers(repo):
        if model.name == "preprocessing" and not model.ours and len(facts.end_ids) > 1:
            yield Hit(
                model.at("tokenizer_dir"),
                f"generation_config.json has end tokens {list(facts.end_ids)}, and this preprocessing hands on one",
                "let clients send end_id or stop_words, or serve with the preprocessing of labs assemble",
            )


@rule("no-chat-template", pain=9, level="warning", symptom="a chat model that rambles: its turns are never marked")
def _no_chat_template(repo: Repo) -> Iterator[Hit]:
    for model, facts in _readers(repo):
        path = f"{model.get('tokenizer_dir')}".lower()
        if model.name == "preprocessing" and not facts.chat_template and any(name in path for name in CHAT_NAMES):
            yield Hit(
                model.at("tokenizer_dir"),
                "the model's name says chat, and its tokenizer files hold no chat template",
                "copy chat_template.jinja or the tokenizer_config.json of the model",
            )


@rule("special-tokens-shown", pain=9, level="warning", symptom="marks such as <|im_end|> in the answers")
def _special_tokens_shown(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("postprocessing", "tensorrt_llm_bls"):
        if (model.get("skip_special_tokens") or "true").lower() in ("false", "0", "f", "n", "no"):
            yield Hit(
                model.at("skip_special_tokens"),
                "skip_special_tokens is off: right for finding a fault, wrong for users",
                "write true",
                _set(model, "skip_special_tokens", "true"),
            )


@rule("prompt-in-answer", pain=19, level="warning", symptom="the answer begins with the prompt")
def _prompt_in_answer(repo: Repo) -> Iterator[Hit]:
    for model in repo.engines():
        if (model.get("exclude_input_in_output") or "false").lower() not in ("true", "1"):
            yield Hit(
                model.at("exclude_input_in_output"),
                "exclude_input_in_output is not on; cutting off as many characters as the prompt has is wrong",
                "write true",
                _set(model, "exclude_input_in_output", "true"),
            )


@rule(
    "lost-spaces",
    pain=5,
    level="warning",
    symptom="streamed words run together, and U+FFFD stands for an emoji (pain 6)",
)
def _lost_spaces(repo: Repo) -> Iterator[Hit]:
    for model in repo.readable("tensorrt_llm_bls"):
        streams = model.config.model_transaction_policy.decoupled
        if streams and not model.ours and (model.get("accumulate_tokens") or "false").lower() != "true":
            yield Hit(
                model.at("accumulate_tokens"),
                "each piece is decoded alone: SentencePiece drops the space before it, and characters break",
                "write true (clients then take the difference), or take the BLS of labs assemble",
            )
