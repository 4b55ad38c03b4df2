"""Configs as templates, and back: the placeholders of NVIDIA's files, filled as ``fill_template.py`` does it.

We ship none of NVIDIA's files. A config of ours becomes a template again when each value gives way to its placeholder.

Source: TensorRT-LLM 0.20, ``triton_backend/tools/fill_template.py`` and the templates' placeholders.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping

from labsupport.errors import ParameterError
from labsupport.repository.parameters import PARAMETERS
from labsupport.repository.text_format import ModelConfig, messages, to_text

COUNTS = {
    "preprocessing": "preprocessing_instance_count",
    "postprocessing": "postprocessing_instance_count",
    "tensorrt_llm_bls": "bls_instance_count",
}
LOGITS = ("context_logits", "generation_logits", "draft_logits")
FEATURES = "encoder_input_features"
ALWAYS = {"max_queue_size": "0", "max_queue_delay_microseconds": "0"}  # filled even where nobody names them


def template(config: ModelConfig) -> str:
    """The config as text, with NVIDIA's placeholder in place of each value that ``fill_template.py`` would fill in."""
    made, kinds = type(config)(), messages().DataType
    made.CopyFrom(config)
    for one in PARAMETERS[made.name]:
        if one.placeholder:
            made.parameters[one.key].string_value = f"${{{one.placeholder}}}"
    for entry in [*made.input, *made.output]:  # two types that these models have no use for mark the places
        if entry.name in LOGITS or entry.name == FEATURES:
            entry.data_type = kinds.TYPE_BF16 if entry.name in LOGITS else kinds.TYPE_UINT16
    if made.name.startswith("tensorrt_llm"):
        made.model_transaction_policy.decoupled = True
    if made.backend == "tensorrtllm":
        made.backend = "${triton_backend}"
    if _queues(made):
        made.dynamic_batching.max_queue_delay_microseconds = 1  # a zero would not be written
        made.dynamic_batching.default_queue_policy.max_queue_size = 1
    return _unquoted(to_text(made), made.name)


def pairs(config: ModelConfig) -> dict[str, str]:
    """What to give for each placeholder of the config's template, so that filling it gives the config again."""
    kinds = messages().DataType
    found = {one.placeholder: config.parameters[one.key].string_value for one in PARAMETERS[config.name]}
    found["triton_max_batch_size"] = str(config.max_batch_size)
    for entry in [*config.input, *config.output]:
        if entry.name in LOGITS or entry.name == FEATURES:
            name = "logits_datatype" if entry.name in LOGITS else f"{FEATURES}_data_type"
            found[name] = kinds.Name(entry.data_type)
    if config.name.startswith("tensorrt_llm"):
        found["decoupled_mode"] = str(config.model_transaction_policy.decoupled).lower()
    if config.backend == "tensorrtllm":
        found["triton_backend"] = config.backend
    if config.name in COUNTS:
        found[COUNTS[config.name]] = str(config.instance_group[0].count)
    if _queues(config):
        found["max_queue_delay_microseconds"] = str(config.dynamic_batching.max_queue_delay_microseconds)
        found["max_queue_size"] = str(config.dynamic_batching.default_queue_policy.max_queue_size)
    found.pop("", None)
    return found


def fill(text: str, given: Mapping[str, str]) -> str:
    """What ``fill_template.py`` makes of a template: each ``${key}`` replaced, the unknown ones left as they stand.

    Raises:
        ParameterError: the text does not hold a given key, not even inside of another word. The script ends there,
            with an AssertionError, since TensorRT-LLM 0.19.
    """
    for key in given:
        if key not in text:
            raise ParameterError(
                f"key '{key}' does not exist in the file",
                why="the call was written for templates of another version",
                fix="leave the key out of the call; a placeholder that is added for it is read by nobody",
            )
    return string.Template(text).safe_substitute({**ALWAYS, **given})


def call(given: Mapping[str, str]) -> str:
    """Pairs as the script's argument: ``key:value,key:value``, with ``:`` and ``,`` inside of a value escaped."""
    escaped = {key: re.sub("([:,])", r"\\\1", value) for key, value in given.items()}
    return ",".join(f"{key}:{value}" for key, value in escaped.items())


def _queues(config: ModelConfig) -> bool:
    return config.name in ("preprocessing", "tensorrt_llm")


def _unquoted(text: str, name: str) -> str:
    """Put the placeholders that stand without quotes in their places; no message could hold them."""
    places = {
        r"(?m)(^max_batch_size: )\d+": "triton_max_batch_size",
        r"(decoupled: )true": "decoupled_mode",
        r"(data_type: )TYPE_BF16": "logits_datatype",
        r"(data_type: )TYPE_UINT16": f"{FEATURES}_data_type",
        r"(max_queue_delay_microseconds: )1": "max_queue_delay_microseconds",
        r"(max_queue_size: )1": "max_queue_size",
    }
    if name in COUNTS:
        places[r"(count: )\d+"] = COUNTS[name]
    for place, placeholder in places.items():
        text = re.sub(place, rf"\g<1>${{{placeholder}}}", text)
    return text
