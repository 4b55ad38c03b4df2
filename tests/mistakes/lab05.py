"""Typical mistakes of lab 05; each must fail its check."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load_file, save_file

from labsupport.labs.checks.lab05 import COPIED_BIAS, MISNAMED, SWAPPED, qkv_of_rank, quant_algo, repair


def stacks_first_and_cuts_then(q, k, v, heads, kv_heads, head_size, tp_size, tp_rank):
    return np.array_split(np.concatenate([q, k, v]), tp_size)[tp_rank]


def stacks_k_q_v(q, k, v, heads, kv_heads, head_size, tp_size, tp_rank):
    mine = qkv_of_rank(q, k, v, heads, kv_heads, head_size, tp_size, tp_rank)
    rows = heads // tp_size * head_size
    keys = (len(mine) - rows) // 2
    return np.concatenate([mine[rows : rows + keys], mine[:rows], mine[rows + keys :]])


def never_repeats_kv_heads(q, k, v, heads, kv_heads, head_size, tp_size, tp_rank):
    return np.concatenate([np.array_split(part, tp_size)[tp_rank] for part in (q, k, v)])


def repeats_the_list_and_not_each_head(q, k, v, heads, kv_heads, head_size, tp_size, tp_rank):
    if kv_heads < tp_size:
        k, v = (np.tile(part, (tp_size // kv_heads, 1)) for part in (k, v))
    return np.concatenate([np.split(part, tp_size)[tp_rank] for part in (q, k, v)])


def gives_every_rank_all_keys(q, k, v, heads, kv_heads, head_size, tp_size, tp_rank):
    return np.concatenate([np.split(q, tp_size)[tp_rank], k, v])


def keeps_the_first_rank(q, k, v, heads, kv_heads, head_size, tp_size, tp_rank):
    return qkv_of_rank(q, k, v, heads, kv_heads, head_size, tp_size, 0)


def reads_the_precision_and_not_the_switch(old):
    return {"int8": "W8A16", "int4": "W4A16"}.get(old.get("weight_only_precision")) or quant_algo(old)


def forgets_the_default(old):
    if old.get("use_weight_only"):
        return {"int8": "W8A16", "int4": "W4A16"}.get(old.get("weight_only_precision"))
    return quant_algo(old)


def swaps_token_and_channel(old):
    turned = {"per_token": old.get("per_channel", False), "per_channel": old.get("per_token", False)}
    return quant_algo({**old, **turned})


def says_no_quant(old):
    return quant_algo(old) or "NO_QUANT"


def only_renames(folder):
    (folder / MISNAMED).rename(folder / "rank1.safetensors")


def copies_rank_0_as_rank_1(folder):
    (folder / "rank1.safetensors").write_bytes((folder / "rank0.safetensors").read_bytes())


def forgets_one_rank(folder):
    repair(folder)
    tensors = load_file(folder / "rank1.safetensors")
    fc, gate = (f"{name}.weight" for name in SWAPPED)
    tensors[fc], tensors[gate] = tensors[gate], tensors[fc]
    save_file(tensors, folder / "rank1.safetensors")


def zeros_the_bias_everywhere(folder):
    repair(folder)
    for rank in (0, 1):
        tensors = load_file(folder / f"rank{rank}.safetensors")
        tensors[COPIED_BIAS] = np.zeros_like(tensors[COPIED_BIAS])
        save_file(tensors, folder / f"rank{rank}.safetensors")


def leaves_the_old_file(folder):
    kept = (folder / MISNAMED).read_bytes()
    repair(folder)
    (folder / MISNAMED).write_bytes(kept)


MISTAKES = {
    "05.1": ["a", "b", "d", "e"],
    "05.2": [
        stacks_first_and_cuts_then,
        stacks_k_q_v,
        never_repeats_kv_heads,
        repeats_the_list_and_not_each_head,
        gives_every_rank_all_keys,
        keeps_the_first_rank,
    ],
    "05.3": [reads_the_precision_and_not_the_switch, forgets_the_default, swaps_token_and_channel, says_no_quant],
    "05.4": [
        lambda folder: None,
        only_renames,
        copies_rank_0_as_rank_1,
        forgets_one_rank,
        zeros_the_bias_everywhere,
        leaves_the_old_file,
    ],
}
