"""Typical mistakes of lab 04; each must fail its check."""

from __future__ import annotations

import torch

from labsupport.labs.checks.lab04 import StaticCache, append, how_many
from labsupport.labs.reference.attention import cached_attention
from labsupport.labs.reference.counting import text_work


def forgets_the_values(free, layers, kv_heads, head_size, tokens, bytes_each, block):
    return how_many(2 * free, layers, kv_heads, head_size, tokens, bytes_each, block)


def knows_no_blocks(free, layers, kv_heads, head_size, tokens, bytes_each, block):
    return free // (2 * layers * kv_heads * head_size * tokens * bytes_each)


def rounds_blocks_down(free, layers, kv_heads, head_size, tokens, bytes_each, block):
    return free // (2 * layers * kv_heads * head_size * bytes_each * max(1, tokens // block) * block)


def always_one_block_more(free, layers, kv_heads, head_size, tokens, bytes_each, block):
    return free // (2 * layers * kv_heads * head_size * bytes_each * (tokens // block + 1) * block)


def serves_half_a_user(free, layers, kv_heads, head_size, tokens, bytes_each, block):
    return free / (2 * layers * kv_heads * head_size * bytes_each * -(-tokens // block) * block)


def _attend(q, keys, values, *, scale=True, interleave=True):
    shared = len(q) // len(keys)
    spread = (lambda t: t.repeat_interleave(shared, 0)) if interleave else (lambda t: t.repeat(shared, 1, 1))
    scores = torch.einsum("ad,and->an", q, spread(keys)) / (q.shape[-1] ** 0.5 if scale else 1)
    return torch.einsum("an,and->ad", scores.softmax(-1), spread(values))


def _grown(k, v, keys, values):
    return torch.cat([keys, k[:, None]], 1), torch.cat([values, v[:, None]], 1)


def forgets_to_see_itself(q, k, v, keys, values):
    return _attend(q, keys, values), *_grown(k, v, keys, values)


def forgets_to_store(q, k, v, keys, values):
    return cached_attention(q, k, v, keys, values)[0], keys, values


def forgets_the_scale(q, k, v, keys, values):
    grown = _grown(k, v, keys, values)
    return _attend(q, *grown, scale=False), *grown


def deals_the_heads_round(q, k, v, keys, values):
    grown = _grown(k, v, keys, values)
    return _attend(q, *grown, interleave=False), *grown


def puts_the_new_row_first(q, k, v, keys, values):
    grown = torch.cat([k[:, None], keys], 1), torch.cat([v[:, None], values], 1)
    return _attend(q, *grown), *grown


def stores_keys_as_values(q, k, v, keys, values):
    return cached_attention(q, k, k, keys, values)


def overwrites_the_cache(q, k, v, keys, values):
    grown = _grown(k, v, keys, values)
    mixed = _attend(q, *grown)
    keys.zero_()
    return mixed, *grown


def _passes(prompt, new, per_token, per_pair, reads):
    return sum(read * per_token + read * length * per_pair for read, length in reads)


def reads_the_last_token_too(prompt, new, per_token, per_pair, cached):
    return text_work(prompt, new + 1, per_token, per_pair, cached)


def forgets_the_prompt(prompt, new, per_token, per_pair, cached):
    whole = text_work(prompt, new, per_token, per_pair, cached)
    return whole - (prompt * per_token + prompt**2 * per_pair if cached else 0)


def prefills_one_token(prompt, new, per_token, per_pair, cached):
    lengths = range(prompt, prompt + new)
    return _passes(prompt, new, per_token, per_pair, [(1 if cached else n, n) for n in lengths])


def squares_every_step(prompt, new, per_token, per_pair, cached):
    lengths = range(prompt, prompt + new)
    return sum((1 if cached and n > prompt else n) * per_token + n * n * per_pair for n in lengths)


def ignores_the_cache(prompt, new, per_token, per_pair, cached):
    return text_work(prompt, new, per_token, per_pair, False)


def takes_the_mean(outs, lse):
    return outs.mean(0), lse.logsumexp(0)


def weighs_by_the_scores_themselves(outs, lse):
    return (lse / lse.sum()) @ outs, lse.logsumexp(0)


def overflows(outs, lse):
    weights = lse.exp()
    return weights @ outs / weights.sum(), weights.sum().log()


def adds_the_parts(outs, lse):
    return outs.sum(0), lse.logsumexp(0)


def forgets_to_merge_the_lse(outs, lse):
    return lse.softmax(0) @ outs, lse.max()


def advances_in_the_first_layer(self, layer, k, v):
    end = self.at + k.shape[1]
    self.kv[layer, 0, :, self.at : end], self.kv[layer, 1, :, self.at : end] = k, v
    if layer == 0:
        self.at = end
    return self.kv[layer, 0, :, :end], self.kv[layer, 1, :, :end]


def hands_out_the_empty_rows(self, layer, k, v):
    append(self, layer, k, v)
    return self.kv[layer, 0], self.kv[layer, 1]


def leaves_the_pointer_to_each_layer(self, layer, k, v):
    keys, values = StaticCache.append(self, layer, k, v)
    return keys[:, : self.at], values[:, : self.at]


def hides_the_new_row(self, layer, k, v):
    keys, values = append(self, layer, k, v)
    return keys[:, : -k.shape[1]], values[:, : -k.shape[1]]


def never_advances(self, layer, k, v):
    before = self.at
    found = append(self, layer, k, v)
    self.at = before
    return found


MISTAKES = {
    "04.1": [
        forgets_the_values,
        knows_no_blocks,
        rounds_blocks_down,
        always_one_block_more,
        serves_half_a_user,
    ],
    "04.2": [
        forgets_to_see_itself,
        forgets_to_store,
        forgets_the_scale,
        deals_the_heads_round,
        puts_the_new_row_first,
        stores_keys_as_values,
        overwrites_the_cache,
        lambda q, k, v, keys, values: cached_attention(q, k, v, keys, values)[0],
    ],
    "04.3": [
        reads_the_last_token_too,
        forgets_the_prompt,
        prefills_one_token,
        squares_every_step,
        ignores_the_cache,
    ],
    "04.4": [
        takes_the_mean,
        weighs_by_the_scores_themselves,
        overflows,
        adds_the_parts,
        forgets_to_merge_the_lse,
    ],
    "04.5": [
        StaticCache.append,
        advances_in_the_first_layer,
        hands_out_the_empty_rows,
        leaves_the_pointer_to_each_layer,
        hides_the_new_row,
        never_advances,
    ],
}
