"""Text or chat messages -> token ids, and everything else that the engine wants as ids.

The tensors are those of NVIDIA's template at TensorRT-LLM 0.20. Pictures and videos are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from prompts import encode
from tokenizer_folder import asset, end_ids, flag, load_tokenizer, string
from words import bias_row, pack_words

Array = NDArray[Any]
NOT_SERVED = ("IMAGE_BYTES", "IMAGE_URL", "VIDEO_BYTES")


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        folder = asset(args["model_repository"], string(parameters, "tokenizer_dir"))
        self.tokenizer: Any = load_tokenizer(folder)
        self.add_special_tokens = flag(parameters, "add_special_tokens", True)
        self.end_ids: list[int] = end_ids(self.tokenizer, folder) or [-1]  # -1: never
        pad = self.tokenizer.pad_token_id
        self.pad_id = max(0, self.end_ids[0]) if pad is None else pad
        engine = string(parameters, "gpt_model_path")
        self.logits = logits_size(asset(args["model_repository"], engine)) if engine else None

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        try:
            tensors = self.encoded({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
        except Exception as problem:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"preprocessing: {problem}"))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])

    def encoded(self, given: Mapping[str, Array]) -> dict[str, Array]:
        if sent := [name for name in NOT_SERVED if name in given]:
            raise ValueError(f"{sent[0]} is not served: this repository takes text only")
        batch = len(given["QUERY"])
        ids, lengths = self.padded([self.ids(row) for row in given["QUERY"]])
        if "DECODER_QUERY" in given:
            decoder_ids, decoder_lengths = self.padded([self.ids(row) for row in given["DECODER_QUERY"]])
        else:
            decoder_ids, decoder_lengths = np.full((batch, 1), self.pad_id, np.int32), np.ones((batch, 1), np.int32)
        ends = given.get("END_ID")
        also = (
            self.end_ids[1:] if ends is None else []
        )  # the engine has room for one end token; the others stop as words
        tensors = {
            "INPUT_ID": ids,
            "REQUEST_INPUT_LEN": lengths,
            "DECODER_INPUT_ID": decoder_ids,
            "REQUEST_DECODER_INPUT_LEN": decoder_lengths,
            "REQUEST_OUTPUT_LEN": given["REQUEST_OUTPUT_LEN"],
            "STOP_WORDS_IDS": pack_words(
                [[*words, *([id] for id in also)] for words in self.words(given, "STOP", batch)]
            ),
            "BAD_WORDS_IDS": pack_words(self.words(given, "BAD", batch)),
            "EMBEDDING_BIAS": self.bias(given, batch),
            "OUT_END_ID": np.full((batch, 1), self.end_ids[0], np.int32) if ends is None else ends,
            "OUT_PAD_ID": given.get("PAD_ID", np.full((batch, 1), self.pad_id, np.int32)),
        }
        if "PROMPT_TABLE_EXTRA_ID" in given:
            beyond = ids >= len(self.tokenizer)  # ids that stand for rows of the prompt table
            tensors["OUT_PROMPT_TABLE_EXTRA_IDS"] = np.where(beyond, given["PROMPT_TABLE_EXTRA_ID"], 0).astype(
                np.uint64
            )
        return tensors

    def ids(self, row: Array) -> list[int]:
        ids: list[int] = encode(self.tokenizer, text(row[0]), self.add_special_tokens)
        if not ids:
            raise ValueError("the prompt is empty, and the tokenizer has no token to start from")
        return ids

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        lengths = np.array([[len(row)] for row in rows], np.int32)
        ids = np.full((len(rows), lengths.max()), self.pad_id, np.int32)
        for line, row in zip(ids, rows):
            line[: len(row)] = row
        return ids, lengths

    def words(self, given: Mapping[str, Array], kind: str, batch: int) -> list[list[list[int]]]:
        rows: Any = given.get(f"{kind}_WORDS_DICT", [[]] * batch)
        return [[self.word(word) for word in row] for row in rows]

    def word(self, word: object) -> list[int]:
        return list(self.tokenizer.encode(text(word), add_special_tokens=False))

    def bias(self, given: Mapping[str, Array], batch: int) -> Array:
        words, weights = given.get("EMBEDDING_BIAS_WORDS"), given.get("EMBEDDING_BIAS_WEIGHTS")
        if words is None and weights is None:
            return np.zeros((batch, 0), np.float32)
        if words is None or weights is None:
            raise ValueError("embedding_bias_words and embedding_bias_weights go together, and one is missing")
        size = self.logits or len(self.tokenizer)
        return np.stack([bias_row([self.word(w) for w in ws], v, size) for ws, v in zip(words, weights)])


def text(value: object) -> str:
    """A string tensor's element; an error that names the tensor's encoding where it is not UTF-8."""
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as problem:
        raise ValueError(f"a text is not UTF-8: {problem}") from None


def logits_size(engine: Path) -> int | None:
    """Entries of the engine's logits, or None where its config is not in reach."""
    path = engine / "config.json"
    if not path.is_file():
        return None
    model = json.loads(path.read_text(encoding="utf-8"))["pretrained_config"]
    ranks = model.get("mapping", {}).get("tp_size", 1)
    return int(-(-model["vocab_size"] // ranks) * ranks)
