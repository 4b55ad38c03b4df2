"""Lab 09: what the notebook writes is what the package's clients, detokenizer and stopper do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from labs_slices import bound

from labsupport.errors import ParameterError
from labsupport.figures import streams
from labsupport.labs.checks.lab09 import VOCABULARY, decode
from labsupport.labs.notebook import read
from labsupport.labs.reference import streaming
from labsupport.repository.contract import BLS_IN
from labsupport.repository.models.preprocessing.words import pack_words
from labsupport.repository.models.tensorrt_llm_bls.detokenizer import Detokenizer
from labsupport.repository.models.tensorrt_llm_bls.stops import Stopper
from labsupport.serving.answer import Answer, Chunk
from labsupport.serving.protos import METHOD, write_protos
from labsupport.serving.sampling import Sampling, tensors_of
from labsupport.serving.wire import Model, from_http, to_grpc

PROTOC = shutil.which("protoc")
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "09_streaming_inference.ipynb"


def from_notebook(name, **names):
    """What the notebook's last cell that binds ``name`` binds to it, with the names that it reads given."""
    cell = [cell for cell in read(NOTEBOOK).code if name in bound(cell) and "check" not in cell.tags][-1]
    names = {"json": json, **names}
    exec(compile(cell.source, cell.label, "exec"), names)
    return names[name]


@cache
def both(name):
    """The package's reference, and the notebook's solution; read once for all examples."""
    return getattr(streaming, name), from_notebook(name)


class Words:
    """The small tokenizer of the checks, with the methods that the detokenizer asks for."""

    added_tokens_decoder, all_special_ids = {}, ()

    def decode(self, ids, **_):
        return decode(ids)

    def convert_ids_to_tokens(self, id):
        return str(id)


# the first id is a word: a stream that begins with the space alone is one token late in a window, not in a whole text
@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=9).map(lambda ids: [0, *ids]))
def test_healed_pieces_are_the_served_detokenizer_s(ids):
    words = Detokenizer(Words())
    served = [*(words.push([id]) for id in ids), words.finish()]
    for heal in both("heal"):
        mine = heal(ids, decode)
        assert "".join(mine) == "".join(served) == decode(ids)
        assert mine == served


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.text("ab#", max_size=3), max_size=6),
    stops=st.lists(st.text("ab#", min_size=1, max_size=3), max_size=2, unique=True),
)
def test_what_is_held_back_is_cut_where_the_served_stopper_cuts(pieces, stops):
    assume(not any(one in other for one in stops for other in stops if one != other))
    text = "".join(pieces)
    end = Stopper(stops).cut(text)
    start = min((text.index(stop) for stop in stops if stop in text), default=len(text))
    assert end is None or any(text[:end] == text[:start] + stop for stop in stops)
    for hold_back in both("hold_back"):
        shown = hold_back(pieces, stops)
        assert "".join(shown) == text[:start]
        assert all("".join(shown[:count]) == text[: len("".join(shown[:count]))] for count in range(len(shown)))


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(st.text(max_size=5), max_size=4), data=st.data())
def test_events_are_what_the_client_reads(texts, data):
    bodies = [json.dumps({"text_output": text}, ensure_ascii=False) for text in texts]
    body = "".join(f"data: {one}\n\n" for one in bodies).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    chunks = [body[a:b] for a, b in pairwise([0, *cuts, len(body)])]
    want = [from_http(f"data: {one}", 0.0).text for one in bodies]
    for events in both("events"):
        assert [event["text_output"] for event in events(chunks)] == want == texts


@settings(max_examples=80, deadline=None)
@given(sent=st.floats(0, 10), steps=st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
def test_times_are_those_of_an_answer(sent, steps):
    at = [sent + sum(steps[: count + 1]) for count in range(len(steps))]
    answer = Answer(tuple(Chunk(("a",), one) for one in at), sent, at[-1])
    for timing in both("timing"):
        ttft, each = timing(sent, [(one, 1) for one in at])
        assert ttft == pytest.approx(answer.ttft)
        assert each == pytest.approx(sum(answer.gaps) / len(answer.gaps))


def test_the_end_of_each_request_is_found_by_both():
    ends = [("a", False, ""), ("b", True, ""), ("a", False, "cut"), ("b", True, "")]
    said = [{"id": id, "text": "", "final": final, "error": error} for id, final, error in ends]
    for ended in both("ended"):
        assert ended(said) == {"b": 1, "a": 2}


def test_the_request_by_hand_says_what_the_client_sends():
    request = from_notebook("request")
    mine = request("Hello 😀", 5)
    model = Model("tensorrt_llm_bls", {tensor.name: tensor.kind for tensor in BLS_IN}, grows=False)
    theirs = to_grpc(model, tensors_of("Hello 😀", Sampling(max_tokens=5), stream=True))
    about = [{one.name: (one.datatype, list(one.shape)) for one in message.inputs} for message in (mine, theirs)]
    assert about[0] == about[1]
    raw = dict(zip((one.name for one in theirs.inputs), theirs.raw_input_contents, strict=True))
    text, tokens, stream = mine.inputs
    assert raw["text_input"][4:] == text.contents.bytes_contents[0]
    assert int.from_bytes(raw["max_tokens"], "little") == tokens.contents.int_contents[0]
    assert bool(raw["stream"][0]) is stream.contents.bool_contents[0]


def test_words_packed_by_hand_are_what_preprocessing_packs():
    import itertools

    import numpy as np

    words = {"Paris": [7, 8], "the end": [9, 10, 11], "The answer": [1]}
    lab = SimpleNamespace(tokenizer=lambda word: SimpleNamespace(input_ids=words[word]))
    pack = from_notebook("pack", np=np, lab=lab, itertools=itertools)
    for chosen in (["Paris"], ["The answer"], list(words)):
        assert pack(chosen).tolist() == pack_words([[words[word] for word in chosen]]).tolist()


def test_the_proto_files_hold_every_message_field_and_method(tmp_path):
    from tritonclient.grpc import model_config_pb2, service_pb2

    files = write_protos(tmp_path)
    assert [path.name for path in files] == ["grpc_service.proto", "model_config.proto", "triton.protoset"]
    for path, module in zip(files, (service_pb2, model_config_pb2), strict=False):
        text, described = path.read_text(), module.DESCRIPTOR
        assert text.count("{") == text.count("}")
        for message in described.message_types_by_name.values():
            (body,) = re.findall(rf"^message {message.name} \{{\n(.*?)^\}}", text, re.DOTALL | re.MULTILINE)
            for field in message.fields:
                assert re.search(rf"\b{field.name} = {field.number};", body), f"{message.name}.{field.name}"
        for service in described.services_by_name.values():
            assert all(f"  rpc {method.name}(" in text for method in service.methods)
    assert f"rpc {METHOD.partition('/')[2]}(stream " in files[0].read_text()


@pytest.mark.skipif(PROTOC is None, reason="no protoc: apt-get install protobuf-compiler")
def test_protoc_reads_the_proto_files_as_what_they_were_made_from(tmp_path):
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    proto, _, protoset = write_protos(tmp_path)
    out = tmp_path / "out.bin"
    command = [PROTOC, f"-I{tmp_path}", "--include_imports"]
    subprocess.run([*command, f"--descriptor_set_out={out}", proto.name], check=True)
    for mine, theirs in zip(*(FileDescriptorSet.FromString(p.read_bytes()).file for p in (protoset, out)), strict=True):
        assert [m.name for m in mine.message_type] == [m.name for m in theirs.message_type]
        for one, other in zip(mine.message_type, theirs.message_type, strict=True):
            assert [(f.name, f.number, f.type, f.label) for f in one.field] == [
                (f.name, f.number, f.type, f.label) for f in other.field
            ]


ALT = "A figure that is never drawn, because its data is refused."


@pytest.mark.parametrize(
    "call",
    [
        lambda: streams.token_timeline({}, alt=ALT),
        lambda: streams.screens({"a": []}, 1.0, alt=ALT),
        lambda: streams.outcome_grid({("a", "b"): ("late", "")}, {}, alt=ALT),
        lambda: streams.outcome_grid({("a", "b"): ("whole", ""), ("c", "d"): ("error", "")}, {}, alt=ALT),
    ],
)
def test_figures_of_streams_refuse_what_they_cannot_draw(call):
    with pytest.raises(ParameterError):
        call()


def test_what_the_font_lacks_is_written_as_its_code_point():
    assert streams.drawable("a😀你\n") == "a😀[U+4F60]\n"
