"""Typical mistakes of lab 12; each must fail its check."""

from __future__ import annotations

from labsupport.labs.checks.lab12 import LENGTHS, SLOTS, empty_share, inflight_steps, static_steps

STATIC, INFLIGHT = static_steps(LENGTHS, SLOTS), inflight_steps(LENGTHS, SLOTS)


def one_block_more(lengths, block):
    return 1 - sum(lengths) / sum((length // block + 1) * block for length in lengths)


def means_of_shares(lengths, block):
    return sum(empty_share([length], block) for length in lengths) / len(lengths)


def half_a_block_each(lengths, block):
    return len(lengths) * block / 2 / sum(-(-length // block) * block for length in lengths)


def over_the_used(lengths, block):
    return sum(-(-length // block) * block for length in lengths) / sum(lengths) - 1


def reads_on_from_the_first(pool, table, length):
    return pool[table[0] :].flatten(0, 1)[:length]


def hands_out_the_whole_block(pool, table, length):
    return pool[table].flatten(0, 1)


def sorts_the_table(pool, table, length):
    return pool[sorted(table)].flatten(0, 1)[:length]


def ignores_the_table(pool, table, length):
    return pool.flatten(0, 1)[:length]


def _admit(waiting, running, free, slots, budget, block, *, full, stop=True, count=True):
    entering = []
    for job in waiting:
        if len(running) + len(entering) == slots or full(job) > free or job.prompt > budget:
            if stop:
                break
            continue
        entering.append(job.id)
        if count:
            free, budget = free - full(job), budget - job.prompt
    return entering


def _last(block):
    return lambda job: -(-job.last // block)


def _promised(running, free, block):
    return free - sum(-(-job.last // block) - job.held for job in running)


def promises_nothing(waiting, running, free, slots, budget, block):
    return _admit(waiting, running, free, slots, budget - len(running), block, full=_last(block))


def looks_at_the_prompt_only(waiting, running, free, slots, budget, block):
    free = _promised(running, free, block)
    return _admit(waiting, running, free, slots, budget - len(running), block, full=lambda job: -(-job.prompt // block))


def lets_the_short_overtake(waiting, running, free, slots, budget, block):
    free = _promised(running, free, block)
    return _admit(waiting, running, free, slots, budget - len(running), block, full=_last(block), stop=False)


def forgets_the_tokens_of_the_others(waiting, running, free, slots, budget, block):
    return _admit(waiting, running, _promised(running, free, block), slots, budget, block, full=_last(block))


def takes_nothing_off(waiting, running, free, slots, budget, block):
    free = _promised(running, free, block)
    return _admit(waiting, running, free, slots, budget - len(running), block, full=_last(block), count=False)


def waits_for_an_empty_batch(waiting, running, free, slots, budget, block):
    return [] if running else _admit(waiting, running, free, slots, budget, block, full=_last(block))


def counts_every_token(prompt, before, block):
    same = 0
    for a, b in zip(prompt, before, strict=False):
        if a != b:
            break
        same += 1
    return min(same, len(prompt) - 1)


def keeps_nothing_to_run(prompt, before, block):
    same = 0
    for a, b in zip(prompt, before, strict=False):
        if a != b:
            break
        same += 1
    return same // block * block


def compares_block_by_block(prompt, before, block):
    starts = range(0, (len(prompt) - 1) // block * block, block)
    return block * sum(prompt[s : s + block] == before[s : s + block] for s in starts)


MISTAKES = {
    "12.1": [
        (sum(LENGTHS), INFLIGHT),
        (STATIC, sum(LENGTHS) // SLOTS),
        (INFLIGHT, STATIC),
        (STATIC, max(LENGTHS)),
        STATIC,
    ],
    "12.2": [one_block_more, means_of_shares, half_a_block_each, over_the_used],
    "12.3": [reads_on_from_the_first, hands_out_the_whole_block, sorts_the_table, ignores_the_table],
    "12.4": [
        promises_nothing,
        looks_at_the_prompt_only,
        lets_the_short_overtake,
        forgets_the_tokens_of_the_others,
        takes_nothing_off,
        waits_for_an_empty_batch,
    ],
    "12.5": [counts_every_token, keeps_nothing_to_run, compares_block_by_block],
}
