"""A tokenizer that behaves as Gemma's does, made here: it adds ``<bos>``, and its chat template writes one too.

The trap that it is for, the doubled BOS, needs no vocabulary of 256,000 and no license to be accepted. The special ids
are those of Gemma 3: pad 0, eos 1, bos 2, unk 3, start of turn 105, end of turn 106. All other tokens are single bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def gemma_like_tokenizer() -> PreTrainedTokenizerFast:
    """A byte tokenizer with Gemma's special tokens, its habit of adding ``<bos>``, and the shape of its chat template.

    Example:
        >>> gemma_like_tokenizer()("hi").input_ids[:1]
        [2]
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    free = (id for id in range(len(alphabet) + len(SPECIAL)) if id not in SPECIAL.values())
    vocabulary = {**SPECIAL, **dict(zip(alphabet, free, strict=True))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
    )
