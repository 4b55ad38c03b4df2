"""Token ids -> text, each response for itself.

A piece of a stream that is decoded for itself loses the space before it and breaks characters that span two pieces.
Nothing here can mend that, because a model without memory does not know what came before: the BLS does.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from tokenizer_folder import asset, flag, load_tokenizer, string


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.tokenizer: Any = load_tokenizer(asset(args["model_repository"], string(parameters, "tokenizer_dir")))
        self.skip_special_tokens = flag(parameters, "skip_special_tokens", True)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        try:
            ids = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
            lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
            texts = [[self.decode(beam[:n]) for beam, n in zip(*both)] for both in zip(ids, lengths)]
        except Exception as problem:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"postprocessing: {problem}"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", np.array(texts, np.object_))])

    def decode(self, ids: NDArray[np.int32]) -> bytes:
        """The text of some ids, as UTF-8; nothing is cleaned up, because cleaning takes spaces away."""
        if ids.min(initial=0) < 0:
            raise ValueError(f"TOKENS_BATCH holds {ids.min()} before SEQUENCE_LENGTH ends: a token id is 0 or more")
        text: str = self.tokenizer.decode(
            ids.tolist(), skip_special_tokens=self.skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text.encode()
