"""Typical mistakes of lab 07; each must fail its check."""

from __future__ import annotations


def one_graph_a_layer_kind(kinds, batch, beams=1, gather=False):
    return kinds + 1


def forgets_the_beams(kinds, batch, beams=1, gather=False):
    rows = 1 if batch == 1 else 2
    return kinds * (1 + rows) + rows + gather


def forgets_the_head(kinds, batch, beams=1, gather=False):
    return kinds * (1 + (1 if batch * beams == 1 else 2))


def a_graph_for_each_request(kinds, batch, beams=1, gather=False):
    return kinds * (1 + batch * beams) + batch * beams + gather


def gives_the_head_a_context_graph_always(kinds, batch, beams=1, gather=False):
    rows = 1 if batch * beams == 1 else 2
    return (kinds + 1) * (1 + rows)


def _pool(blocks, size, layers, heads, width, each):
    return blocks * size * 2 * layers * heads * width * each


def rounds_the_total(lengths, size, layers, heads, width, each):
    return _pool(-(-sum(lengths) // size), size, layers, heads, width, each)


def rounds_down(lengths, size, layers, heads, width, each):
    return _pool(sum(n // size for n in lengths), size, layers, heads, width, each)


def always_one_more(lengths, size, layers, heads, width, each):
    return _pool(sum(n // size + 1 for n in lengths), size, layers, heads, width, each)


def forgets_the_values(lengths, size, layers, heads, width, each):
    return _pool(sum(-(-n // size) for n in lengths), size, layers, heads, width, each) // 2


def counts_tokens(lengths, size, layers, heads, width, each):
    return _pool(sum(lengths), 1, layers, heads, width, each)


def finds_inside_of_names(kernels, operation):
    return {graph: [i for i, name in enumerate(names) if operation in name] for graph, names in kernels.items()}


def leaves_graphs_out(kernels, operation):
    found = {graph: [i for i, n in enumerate(names) if f"_{operation}_" in n] for graph, names in kernels.items()}
    return {graph: places for graph, places in found.items() if places}


def gives_names(kernels, operation):
    return {graph: [name for name in names if f"_{operation}_" in name] for graph, names in kernels.items()}


def wants_equal_machines(built, here):
    return [what for what in ("torch", "machine", "instructions") if built[what] != here[what]]


def asks_the_wrong_way_round(built, here):
    differs = [what for what in ("torch", "machine") if built[what] != here[what]]
    return differs + sorted(set(here["instructions"]) - set(built["instructions"]))


def wants_the_same_instructions(built, here):
    differs = [what for what in ("torch", "machine") if built[what] != here[what]]
    return differs + sorted(set(here["instructions"]) ^ set(built["instructions"]))


def stops_at_the_first(built, here):
    return [what for what in ("torch", "machine") if built[what] != here[what]][:1]


def _limits(batch, longest, length, step):
    return {"max_batch_size": batch, "max_input_len": longest, "max_seq_len": length, "max_num_tokens": step}


MISTAKES = {
    "07.1": [
        one_graph_a_layer_kind,
        forgets_the_beams,
        forgets_the_head,
        a_graph_for_each_request,
        gives_the_head_a_context_graph_always,
    ],
    "07.2": [rounds_the_total, rounds_down, always_one_more, forgets_the_values, counts_tokens],
    "07.3": [
        _limits(2048, 1500, 2000, 8192),  # the default batch
        _limits(12, 1500, 500, 2048),  # max_output_len of old
        _limits(12, 1500, 2000, 12),  # decode alone
        _limits(12, 2000, 2000, 4),
        _limits(12, 1024, 2000, 8192),  # the default prompt
        _limits(12, 1500, 4096, 2048),  # the model's whole context
        _limits(12, 1500, 8192, 2048),
        {"max_batch_size": 12},
    ],
    "07.4": [finds_inside_of_names, leaves_graphs_out, gives_names],
    "07.5": [wants_equal_machines, asks_the_wrong_way_round, wants_the_same_instructions, stops_at_the_first],
}
