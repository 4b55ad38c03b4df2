"""The helpers of the Python models, alone: detokenizing, packing, prompts, stop words, cancellation."""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repositories_made import MAKERS, tokenizer, tokenizer_folder

from labsupport.models import DEFAULT_MODEL, fetch
from labsupport.repository.assemble import PACKAGED, model_files
from labsupport.repository.contract import CLIENT_NAMES, ENCODED_NAMES, INPUTS, OUTPUTS, PROMPT_NAMES
from labsupport.repository.models.preprocessing.prompts import encode, messages_in
from labsupport.repository.models.preprocessing.words import bias_row, pack_words, unpack_words
from labsupport.repository.models.shared.tokenizer_folder import asset, end_ids, flag, load_tokenizer, string
from labsupport.repository.models.tensorrt_llm_bls.answers import Answer
from labsupport.repository.models.tensorrt_llm_bls.detokenizer import BROKEN, Detokenizer
from labsupport.repository.models.tensorrt_llm_bls.stops import Stopper
from labsupport.repository.models.tensorrt_llm_bls.watch import Watch

KINDS = sorted(MAKERS)
FOX = "a fox 🦊 is é 日本 the  field. "
FAST = settings(max_examples=60, deadline=None)
IDS = {kind: st.lists(st.integers(0, len(tokenizer(kind)) - 1), max_size=40) for kind in KINDS}
CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=8)


def chunks(ids: list[int], sizes: list[int]) -> list[list[int]]:
    """``ids`` in pieces of these sizes, over and over."""
    cut, start, number = [], 0, 0
    while start < len(ids):
        size = sizes[number % len(sizes)]
        cut.append(ids[start : start + size])
        start, number = start + size, number + 1
    return cut


def pieces(kind: Any, ids: list[int], sizes: list[int], *, skip: bool = True) -> list[str]:
    made = Detokenizer(kind, skip)
    return [*(made.push(chunk) for chunk in chunks(ids, sizes)), made.finish()]


def whole(kind: Any, ids: list[int], *, skip: bool = True) -> str:
    return str(kind.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("kind", KINDS)
@FAST
@given(data=st.data(), sizes=CUTS, skip=st.booleans())
def test_any_ids_in_any_pieces_give_the_full_decode(kind: str, data: Any, sizes: list[int], skip: bool) -> None:
    ids = data.draw(IDS[kind])
    assert "".join(pieces(tokenizer(kind), ids, sizes, skip=skip)) == whole(tokenizer(kind), ids, skip=skip)


@pytest.mark.parametrize("kind", ["bytes", "gemma", "sentencepiece"])
@FAST
@given(text=st.text(max_size=40), sizes=CUTS)
def test_no_piece_of_a_text_is_broken(kind: str, text: str, sizes: list[int]) -> None:
    ids = tokenizer(kind).encode(text, add_special_tokens=False)
    found = pieces(tokenizer(kind), ids, sizes)
    assert "".join(found) == whole(tokenizer(kind), ids)
    if BROKEN not in text:
        assert not any(BROKEN in piece for piece in found)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_certain_is_given_out_at_once(kind: str) -> None:
    """Byte-level tokens are settled as soon as their bytes are characters; nothing waits for a window to fill."""
    ids = tokenizer(kind).encode("the field", add_special_tokens=False)
    made, seen = Detokenizer(tokenizer(kind)), ""
    for count, id in enumerate(ids, start=1):
        seen += made.push([id])
        assert seen == whole(tokenizer(kind), ids[:count])


@pytest.fixture(scope="module")
def real() -> Any:
    return load_tokenizer(fetch(DEFAULT_MODEL))


@FAST
@given(ids=st.lists(st.integers(0, 49151), max_size=30), sizes=CUTS, skip=st.booleans())
@pytest.mark.real_model
def test_the_real_tokenizer_and_any_ids(real: Any, ids: list[int], sizes: list[int], skip: bool) -> None:
    assert "".join(pieces(real, ids, sizes, skip=skip)) == whole(real, ids, skip=skip)


@FAST
@given(text=st.text(max_size=60))
@pytest.mark.real_model
def test_the_real_tokenizer_and_any_text(real: Any, text: str) -> None:
    ids = real.encode(text, add_special_tokens=False)
    found = pieces(real, ids, [1], skip=False)
    known = whole(real, ids, skip=False)  # SmolLM2 has no token for a few bytes, so not every text comes back
    assert "".join(found) == known
    assert BROKEN in known or not any(BROKEN in piece for piece in found)


def test_decoding_pieces_alone_does_lose_spaces() -> None:
    """The fault that the class is for, so that the tests above are seen to test something."""
    kind = tokenizer("sentencepiece")
    ids = kind.encode("the field is a field", add_special_tokens=False)
    alone = "".join(whole(kind, [id]) for id in ids)
    assert alone != whole(kind, ids) == "the field is a field"


def test_one_token_costs_a_small_window_and_not_the_whole_text(monkeypatch: pytest.MonkeyPatch) -> None:
    made, longest = Detokenizer(tokenizer("bytes")), 0
    decode = made._decode

    def counting(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    monkeypatch.setattr(made, "_decode", counting)
    for id in tokenizer("bytes").encode("a" * 500):
        made.push([id])
    assert longest <= 4


WORDS = st.lists(st.lists(st.integers(0, 9999), min_size=1, max_size=5), max_size=5)


@given(prompts=st.lists(WORDS, min_size=1, max_size=4))
def test_packed_words_come_back_and_satisfy_the_engine(prompts: list[list[list[int]]]) -> None:
    packed = pack_words(prompts)
    assert packed.dtype == np.int32
    assert packed.shape[:2] == (len(prompts), 2)
    for row, words in zip(packed, prompts, strict=True):
        assert unpack_words(row) == words
        ends = row[1][row[1] >= 0]
        assert np.all(np.diff(ends) > 0)
        assert np.all(ends <= packed.shape[2])
        assert np.all(row[1][len(ends) :] == -1)


def test_the_packed_format_by_hand() -> None:
    assert pack_words([[[5, 6], [7, 8, 9]], [[1]]]).tolist() == [
        [[5, 6, 7, 8, 9], [2, 5, -1, -1, -1]],
        [[1, 0, 0, 0, 0], [1, -1, -1, -1, -1]],
    ]
    assert pack_words([[], [[]]]).shape == (2, 2, 0)


def test_bias() -> None:
    assert bias_row([[1, 3], [3]], [2.0, -0.5], 5).tolist() == [0, 2, 0, 1.5, 0]
    with pytest.raises(ValueError, match="one for each"):
        bias_row([[1]], [1.0, 2.0], 5)
    with pytest.raises(ValueError, match="token 7"):
        bias_row([[7]], [1.0], 5)


CHAT = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("kind", ["gemma", "sentencepiece"])
def test_one_bos_whatever_the_client_sends(kind: str) -> None:
    tok = tokenizer(kind)
    rendered = tok.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    plain, chat, templated = (encode(tok, text) for text in ("Hi", json.dumps(CHAT), rendered))
    assert chat == templated == tok.encode(rendered, add_special_tokens=False)
    for ids in (plain, chat, templated):
        assert ids.count(tok.bos_token_id) == 1
        assert ids[0] == tok.bos_token_id
    assert encode(tok, "") == [tok.bos_token_id]
    assert tok.encode(rendered).count(tok.bos_token_id) == 2  # what happens without the care


def test_an_answer_that_was_begun_goes_on() -> None:
    begun = json.dumps([*CHAT, {"role": "assistant", "content": "Sure, "}])
    text = tokenizer("gemma").decode(encode(tokenizer("gemma"), begun))
    assert text.endswith("Sure,")
    assert not text.endswith("<end_of_turn>\n")


@pytest.mark.parametrize(
    "text", ["Hi", "[1, 2]", "[]", '[{"role": "user"}]', "[not json", '{"role": "user", "content": "x"}']
)
def test_text_that_is_no_chat_stays_text(text: str) -> None:
    assert messages_in(text) is None


def test_chat_without_a_template_is_refused() -> None:
    with pytest.raises(ValueError, match="no chat template"):
        encode(tokenizer("wordpiece"), json.dumps(CHAT))


def test_every_end_token_is_found(tmp_path: Path) -> None:
    folder = tokenizer_folder("gemma")
    assert end_ids(load_tokenizer(folder), folder) == [1, 3]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 106}')
    assert end_ids(tokenizer("gemma"), tmp_path) == [1, 106]
    assert end_ids(tokenizer("gemma"), tmp_path / "nothing") == [1]
    with pytest.raises(ValueError, match="there is no folder"):
        load_tokenizer(tmp_path / "nothing")


def test_parameters_as_triton_hands_them_over() -> None:
    given = {key: {"string_value": value} for key, value in {"a": "No", "b": "${b}", "c": "", "d": "what"}.items()}
    assert [flag(given, key, True) for key in "abcde"] == [False, True, True, True, True]
    assert [string(given, key, "x") for key in "abc"] == ["No", "x", "x"]
    assert asset("/repo/preprocessing", "_assets/m") == Path("/repo/_assets/m")
    assert asset("/repo/preprocessing", "/elsewhere") == Path("/elsewhere")


@given(text=st.text("ab!", max_size=30), words=st.lists(st.text("ab!", max_size=3), max_size=3), size=st.integers(1, 4))
def test_a_stop_word_is_found_in_any_pieces(text: str, words: list[str], size: int) -> None:
    stopper, found = Stopper(words), None
    for end in [*range(size, len(text), size), len(text)]:
        if (found := stopper.cut(text[:end])) is not None:
            break
    ends = [text.find(word) + len(word) for word in words if word and word in text]
    assert (found is None) == (not ends)
    if found is not None:  # a piece may bring two stop words at once; the first to end counts
        assert min(ends) == found


def engine_says(*ids: int) -> dict[str, Any]:
    return {"output_ids": np.array([[ids]], np.int32), "sequence_length": np.array([[len(ids)]], np.int32)}


def new_answer(words: list[str], **how: Any) -> Answer:
    return Answer(lambda: Detokenizer(tokenizer("bytes")), lambda: Stopper(words), **how)


def text_of(answer: Answer, cumulative: bool = False) -> list[str]:
    return [text.decode() for text in answer.tensors(cumulative)["text_output"][0]]


def test_an_answer_in_pieces_and_as_a_whole() -> None:
    ids = tokenizer("bytes").encode("go 🦊 stop here", add_special_tokens=False)
    pieces, answer = [], new_answer(["stop"], streaming=True)
    for id in ids:
        answer.take(engine_says(id))
        if not answer.ended or not pieces or text_of(answer) != pieces[-1:]:
            pieces += text_of(answer)
            assert "".join(pieces) == text_of(answer, cumulative=True)[0]
        if answer.ended:
            break
    answer.finish()
    assert "".join([*pieces, *text_of(answer)]) == "go 🦊 stop"
    once = new_answer(["stop"], prompt="well: ")
    once.take(engine_says(*ids))
    once.finish()
    assert text_of(once) == ["well: go 🦊 stop"]


def test_beams_are_whole_each_time() -> None:
    answer = new_answer([], beams=2, streaming=True)
    both = [tokenizer("bytes").encode(text, add_special_tokens=False) for text in ("ab", "xy")]
    answer.take({"output_ids": np.array([both], np.int32), "sequence_length": np.array([[2, 1]], np.int32)})
    assert text_of(answer) == ["ab", "x"]
    answer.finish()
    assert text_of(answer) == ["ab", "x"]


def test_a_client_that_goes_away_is_noticed_once() -> None:
    gone, calls, watch = threading.Event(), [], Watch(period=0.01)
    with watch.over(gone.is_set, lambda: calls.append(1)):
        time.sleep(0.05)
        assert calls == []
        gone.set()
        time.sleep(0.1)
    with watch.over(lambda: 1 / 0 > 0, lambda: calls.append(2)):  # asking may fail: that is no cancellation
        time.sleep(0.05)
    watch.close()
    assert calls == [1]


@pytest.mark.parametrize(("stands", "code"), [("lock", 1), ("no", 0)])
def test_a_process_that_stands_still_is_ended_and_one_that_waits_is_not(stands: str, code: int) -> None:
    """Python's lock is held by a foreign call that does not let go of it, as in Triton's stub; or nothing is wrong."""
    program = """
import ctypes, sys, time
from labsupport.repository.models.tensorrt_llm_bls import watch
watch.STANDSTILL = 1.0
with watch.Watch().over(lambda: False, lambda: None):
    time.sleep(0.3)
    ctypes.PyDLL(None).sleep(4) if sys.argv[1] == "lock" else time.sleep(2)
"""
    done = subprocess.run([sys.executable, "-c", program, stands], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("Timeout" in done.stderr) == bool(code)


ALLOWED = {"triton_python_backend_utils", "numpy", "transformers", "tokenizers", "__future__"}
STANDARD = {
    "json",
    "faulthandler",
    "os",
    "pathlib",
    "re",
    "sys",
    "threading",
    "time",
    "traceback",
    "uuid",
    "collections",
    "contextlib",
    "typing",
}


@pytest.mark.parametrize("name", ["preprocessing", "postprocessing", "tensorrt_llm_bls"])
def test_models_import_only_what_the_container_has(name: str) -> None:
    files = model_files(name)
    beside = {path.stem for path in files}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 10))):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert {one.split(".")[0] for one in named} <= ALLOWED | STANDARD | beside, path
    assert (PACKAGED / name / "model.py") == files[0]


def constants(path: Path) -> dict[str, Any]:
    """The literals that a module gives names to, without running it."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def test_the_bls_speaks_the_contract() -> None:
    """It cannot import the contract inside the container, so it says the names again."""
    said = constants(PACKAGED / "tensorrt_llm_bls" / "model.py")
    assert said["TO_PREPROCESSING"] == PROMPT_NAMES
    decoder = {"DECODER_INPUT_ID", "REQUEST_DECODER_INPUT_LEN"}  # for encoder-decoder models only
    assert said["FROM_PREPROCESSING"] == {key: name for key, name in ENCODED_NAMES.items() if key not in decoder}
    assert said["RENAMED"] == {key: name for key, name in CLIENT_NAMES.items() if key != name}
    outputs = {tensor.name for tensor in OUTPUTS["tensorrt_llm"]}
    assert {*said["ALWAYS"], *(name for names in said["ON_REQUEST"].values() for name in names)} <= outputs
    inputs = {tensor.name for tensor in INPUTS["tensorrt_llm_bls"]}
    assert set(said["NOT_SERVED"]) <= inputs
