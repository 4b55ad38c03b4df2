"""One example of each figure, on made-up results: what the render tests draw, and what a person looks at.

Run it to write all pictures to a folder: ``python tests/figures_gallery.py FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from labsupport.figures import LabFigure, small_multiples
from labsupport.figures.beams import Candidate, beam_tree, underflow_curve
from labsupport.figures.blocks import Table, block_table, memory_bars, memory_strip
from labsupport.figures.build import Span, Step, budget, timeline
from labsupport.figures.cache import Gauge, shared_heads, step_triangle
from labsupport.figures.distributions import (
    Stage,
    draws_against_theory,
    next_token,
    temperature_curves,
    token_ribbon,
    waterfall,
)
from labsupport.figures.engines import EngineBar, engine_bars
from labsupport.figures.families import families
from labsupport.figures.layers import attention_triangle, layer_norms, logit_lens
from labsupport.figures.load import Lane, Level, Spot, lanes, pareto, ribbons, strips
from labsupport.figures.pipeline import Row, pipeline_map, table
from labsupport.figures.repository import Leaf, Station, Wire, placeholder_strips, tree_and_graph
from labsupport.figures.roofline import Work, roofline
from labsupport.figures.slots import Cell, Life, lifelines, slot_grids, step_bars
from labsupport.figures.streams import Arrival, outcome_grid, screens, token_timeline
from labsupport.figures.tiles import attention_tiles
from labsupport.figures.timing import durations
from labsupport.figures.validation import Check, FaultRow, detection, divergence, scoreboard, survival, transforms

WORDS = [" Paris", " the", " a", " located", "\n", " one", " Lyon", " not", " known", " called", " in", " $5_{", "é"]
LOGITS = np.array([4.0, 3.1, 2.7, 2.1, 1.9, 1.5, 1.4, 1.1, 0.9, 0.8, 0.2, -0.5, -4.0])


def softmax(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max())
    return grown / grown.sum()


def distributions() -> dict[str, LabFigure]:
    p = softmax(LOGITS)
    word = WORDS.__getitem__
    cold = softmax(LOGITS / 0.7)
    cut = np.where(np.arange(13) < 5, cold, 0)
    nucleus = np.where(np.arange(13) < 3, cut, 0)
    counts = np.random.default_rng(0).multinomial(1000, p)
    grid = np.linspace(0.1, 2.0, 39)
    prompt = ["The", " capital", " of", " France", " is"]
    chat = ["<|im_start|>", "user", "\n", "What", " is", " the", " capital", " of", " France", "?", "<|im_end|>", "\n"]
    return {
        "next_token": next_token(
            p, word, chosen=0, removed=[8, 9], alt="Bars of ten tokens: Paris leads with 0.45, then the with 0.18."
        ),
        "token_ribbon": token_ribbon(
            prompt, [504, 3575, 282, 4649, 314], p, word, alt="Five prompt tokens over ten bars; Paris leads with 0.45."
        ),
        "token_ribbon_chat": token_ribbon(
            chat, list(range(12)), p, word, top=5, alt="Twelve chat tokens in two rows over five bars; Paris leads."
        ),
        "waterfall": waterfall(
            [
                Stage("softmax", p),
                Stage("T = 0.7", cold),
                Stage("top-k = 5", cut / cut.sum()),
                Stage("top-p = 0.9", nucleus / nucleus.sum()),
            ],
            word,
            chosen=1,
            alt="Four stages: temperature sharpens, top-k keeps five tokens, top-p keeps three; ' the' is drawn.",
        ),
        "draws_against_theory": draws_against_theory(
            counts, p, word, alt="A thousand draws: each observed share lies within two standard errors of its bar."
        ),
        "temperature_curves": temperature_curves(
            grid,
            np.stack([softmax(LOGITS / t) for t in grid]),
            word,
            alt="Paris falls from 1.0 at T = 0.1 to 0.25 at T = 2; the others rise to meet it.",
        ),
    }


def search() -> dict[str, LabFigure]:
    tree = [
        Candidate(" Paris", -0.9, None, "kept"),
        Candidate(" the", -1.6, None, "kept"),
        Candidate(" a", -2.1, None, "pruned"),
        Candidate(".", -1.3, 0, "kept"),
        Candidate(",", -2.0, 0, "kept"),
        Candidate(" capital", -2.9, 1, "pruned"),
        Candidate(" city", -3.3, 1, "pruned"),
        Candidate("<end>", -1.5, 3, "finished"),
        Candidate("\n", -2.6, 3, "kept"),
        Candidate(" and", -2.8, 4, "kept"),
        Candidate(" the", -3.6, 4, "pruned"),
        Candidate(" The", -3.1, 8, "kept"),
        Candidate(" it", -3.2, 9, "kept"),
        Candidate(" Lyon", -4.0, 9, "pruned"),
    ]
    steps = np.linspace(-3, -2, 60)
    total = np.cumsum(steps)
    formats = {kind.__name__: np.cumprod(np.exp(steps).astype(kind), dtype=kind) for kind in (np.float16, np.float32)}
    return {
        "beam_tree": beam_tree(
            tree,
            best=7,
            root="... is",
            alt="Two beams over four steps; the best path is Paris, full stop, end at -1.50.",
        ),
        "underflow_curve": underflow_curve(
            formats, total, alt="The fp16 product is 0 from token 6, fp32 from token 40; the sum of ln p goes on."
        ),
    }


def inside() -> dict[str, LabFigure]:
    random = np.random.default_rng(1)
    tokens = ["The", " capital", " of", " France", " is"]
    layers = ["embedding", *[f"layer {n}" for n in range(2, 31, 2)]]
    words = [[str(random.choice(WORDS)) for _ in tokens] for _ in layers]
    words[4][2] = " internationalization"
    sure = np.linspace(0, 1, len(layers))[:, None] * np.linspace(0.5, 1, len(tokens))
    raw = np.tril(random.random((7, 7)) ** 3 + 0.01)
    norms = {token: 2.0 * np.exp(np.cumsum(random.random(31) * 0.2)) for token in tokens}
    return {
        "logit_lens": logit_lens(
            words,
            sure,
            tokens=tokens,
            layers=layers,
            alt="From layer 20 on, the last position answers Paris, ever surer.",
        ),
        "layer_norms": layer_norms(norms, alt="The vectors of all five tokens grow twentyfold over thirty layers."),
        "attention_triangle": attention_triangle(
            raw / raw.sum(axis=1, keepdims=True),
            [*tokens, " Paris", "."],
            new_row=True,
            alt="A triangle of seven rows; only the last row is new, the six above come from the cache.",
        ),
        "attention_plain": attention_triangle(
            raw / raw.sum(axis=1, keepdims=True), [*tokens, " Paris", "."], alt="A triangle of seven rows, none framed."
        ),
    }


def diagrams() -> dict[str, LabFigure]:
    rows = [
        Row("ok", ("Python", "3.11.7", "")),
        Row("note", ("memory", "7.6 GB", "close other programs before the benchmark labs")),
        Row(
            "missing",
            ("Triton", "not found", "make setup installs it on Linux; or set TRITON_URL to a server of yours"),
        ),
    ]
    return {
        "pipeline_map": pipeline_map(
            "logits", alt="Ten stations on two lines; you are at the logits of the first line."
        ),
        "pipeline_map_server": pipeline_map(
            "server", alt="Ten stations on two lines; you are at the server, the last one."
        ),
        "table": table(
            ["what", "found", "mend"],
            rows,
            widths=(1, 1, 3),
            alt="Three rows: Python is fine, memory is short, Triton is missing.",
        ),
        "families": families(
            ["The", " capital", " of", " France", " is"],
            [" Paris", "."],
            alt="Encoder: all cells filled. Decoder: a triangle. Encoder-decoder: a square over a triangle.",
        ),
        "durations": durations(
            {
                "sum of ln p": [1.1e-6, 1.2e-6, 1.9e-6],
                "product": [0.9e-6, 1.0e-6, 1.4e-6],
                "log of each": [8e-6, 9e-6, 3e-5],
            },
            reference="product",
            alt="The product takes 1 microsecond, the sum 1.2, and taking logarithms 9.",
        ),
        "engines": engine_bars(
            [
                EngineBar("labs", "fp32", 38, 36, 40, 45, ours=True),
                EngineBar("llama.cpp", "fp32", 37, 30, 41, 45),
                EngineBar("labs", "int4", 150, 140, 170, 310, ours=True),
                EngineBar("ONNX Runtime GenAI", "int4", 160, 150, 171, 310),
            ],
            alt="Four bars at two precisions: at fp32 labs reaches 38 of 45 tokens a second, at int4 150 of 310.",
        ),
    }


def caches() -> dict[str, LabFigure]:
    story = ["The", " capital", " of", " France", " is", *WORDS[:6]]
    gauges = [
        Gauge("kept", 414, 506, "414 KB", "cached"),
        Gauge("computed\nso far", 1.2, 6.4, "1.2 G", "generated"),
    ]
    words = "Nine tokens, one row computed in this step, eight keys read from the cache."
    works = [Work("1 token", 0.5, 9, "generated"), Work("8 tokens", 4, 48), Work("128 tokens", 60, 70)]
    return {
        "step_cached": step_triangle(story, 9, prompt=5, cached=True, gauges=gauges, alt=words),
        "step_uncached": step_triangle(
            story, 11, prompt=5, cached=False, gauges=gauges, alt="Eleven tokens, all rows computed in this step."
        ),
        "shared_heads": shared_heads(
            {"MHA: 9 of 9": (9, 9), "GQA: 3 of 9": (9, 3), "MQA: 1 of 9": (9, 1)},
            alt="Nine query heads over nine, three and one heads of keys and values.",
        ),
        "roofline": roofline(
            works,
            bandwidth=20,
            peak=80,
            alt="One token lies under the slope of 20 GB/s, 128 tokens under the flat 80 GFLOP/s.",
        ),
        "tiles": attention_tiles(512, 64, (5, 2), alt="Left a stored square of 512, right one tile of 64 at a time."),
    }


def builds() -> dict[str, LabFigure]:
    parts = [("weights", 13.48, "kept"), ("promised cache", 8.59, "cached"), ("activations", 0.5, "generated"),
             ("CUDA, libraries", 1.0, "")]  # fmt: skip
    large = [Step(name, 2.5 * size, role) for name, size, role in parts]
    card = {"capacity": 25.76, "device": "24 GB RTX 4090"}
    return {
        "build_timeline": timeline(
            [
                Span("read", 0.1, 0.1),
                Span("export", 0.2, 8.3),
                Span("compile layer.context", 8.5, 30.4, "prompt"),
                Span("compile layer.1", 8.5, 26.1, "generated"),
                Span("compile head.1", 34.6, 12.9, "generated"),
            ],
            title="one build",
            alt="Five phases on one clock: two compilers run at once from 8.5 s on, the last ends at 47.5 s.",
        ),
        "budget": budget([Step(*part) for part in parts], **card, alt="Four items end at 23.6 GB, left of 25.8 GB."),
        "budget_too_big": budget(large, **card, title="2.5 x", alt="Four items end at 58.9 GB, far right of 25.8 GB."),
    }


def batches() -> dict[str, LabFigure]:
    waits = [
        Cell(0, 0, "A", "context"),
        *(Cell(at, 0, "A", "generation") for at in (1, 2, 3)),
        Cell(0, 1, "B", "context"),
    ]
    joins = [*waits, Cell(1, 1, "C", "context"), Cell(2, 1, "C", "waiting"), Cell(3, 1, "C", "generation")]
    many = [Cell(at, slot, "AB"[slot], "generation" if at else "context") for at in range(60) for slot in (0, 1)]
    lives = [Life("A", 0, 0.2, 1.4), Life("B", 0, 1.5, 2.0)]
    return {
        "slot_grids": slot_grids(
            {"static": waits, "in flight": joins}, slots=2, alt="Static leaves slot 1 idle; in flight C takes it."
        ),
        "slot_grid_long": slot_grids({"in flight": many}, slots=2, alt="Two slots at work through 60 iterations."),
        "lifelines": lifelines(
            {"static": lives, "in flight": lives[:1]}, alt="A has its first token at 0.2 s, B at 1.5 s."
        ),
        "step_bars": step_bars(
            {"whole": [(60, "generation"), (1600, "context")], "chunks": [(240, "context")] * 3},
            alt="One iteration of 1,600 ms at the left, three of 240 ms at the right.",
        ),
        "block_table": block_table(
            [Table("A", [3, 7, 1], 80), Table("B", [3, 7, 9, 2], 100)],
            pool=24,
            tokens_per_block=32,
            alt="A and B share blocks 3 and 7; the last block of each is partly empty.",
        ),
        "memory_bars": memory_bars(
            {"whole": [("generated", 11), ("free", 89)], "blocks of 32": [("generated", 94), ("free", 6)]},
            alt="Reserved whole 11 % is used, in blocks of 32 it is 94 %.",
        ),
        "memory_strip": memory_strip(
            [(0, 200), (400, 100), (600, 300)],
            1000,
            wanted=250,
            alt="400 tokens are free in three holes; 250 fit nowhere.",
        ),
    }


def repositories() -> dict[str, LabFigure]:
    leaves = [
        Leaf(0, "repository/"),
        Leaf(1, "preprocessing/", wrong=True),
        Leaf(2, "config.pbtxt", "13 in, 20 out"),
        Leaf(2, "1/model.py", "and 3 more"),
        Leaf(1, "_assets/smollm2-135m-instruct/"),
        Leaf(2, "engines/", "4 files, 541 MB"),
    ]
    steps = [Station("preprocessing", "×1"), Station("tensorrt_llm", "×1, decoupled"), Station("postprocessing", "×4")]
    wires = [
        Wire("client", "preprocessing", ("text_input", "max_tokens", "stop_words")),
        Wire("client", "tensorrt_llm", ("seed", "temperature", "top_k")),
        Wire("preprocessing", "tensorrt_llm", ("INPUT_ID", "REQUEST_INPUT_LEN"), wrong=("INPUT_ID",)),
        Wire("tensorrt_llm", "postprocessing", ("output_ids", "sequence_length")),
        Wire("tensorrt_llm", "client", ("cum_log_probs",)),
        Wire("postprocessing", "client", ("OUTPUT",)),
    ]
    said = ["decoupled-pair: every call of the BLS fails, or streaming does", "version-folder: no version is available"]
    words = "A tree beside a graph of three steps; INPUT_ID leads nowhere, and two findings stand below."
    drawn = tree_and_graph(
        leaves, steps, wires, caller=Station("tensorrt_llm_bls", "×1, decoupled"), findings=said, alt=words
    )
    return {
        "tree_and_graph": drawn,
        "graphs_narrow": small_multiples([drawn, drawn], titles=["one", "two"], alt=words),
        "placeholder_strips": placeholder_strips(
            {
                "preprocessing": ["unreadable", "refused", "silent"],
                "tensorrt_llm": ["unreadable"] * 6 + ["silent"] * 42,
            },
            alt="Boxes for each blank: postprocessing has two kinds, tensorrt_llm is silent about 40.",
        ),
    }


def loads() -> dict[str, LabFigure]:
    def spot(value: float, share: float = 0.1) -> Spot:
        return Spot(value, value * (1 - share), value * (1 + share))

    def curve(slower: float) -> list[Level]:
        return [
            Level(str(users), spot(slower * (28 + 6 * users)), spot(30 * users**0.6 / slower)) for users in (1, 2, 4, 8)
        ]

    tail = {rank: [spot(width * (100 + 60 * n**2), 0.1 * width) for n in range(4)] for rank, width in
            (("p50", 1.0), ("p90", 2.0), ("p99", 4.0))}  # fmt: skip
    requests = [Lane(0.3 * n, 0.3 * n + 0.2 * (n == 4), [0.3 * n + 0.3 + 0.05 * k for k in range(9)]) for n in range(8)]
    chance = np.random.default_rng(0)
    calm = 0.02 * np.exp(chance.normal(0, 0.05, 300))
    return {
        "pareto": pareto(
            {"in process": curve(1.0), "through Triton": curve(1.15)}, slo=60, roofline=140,
            alt="Two curves rise to the right; three points of the upper one lie in the box of 60 ms.",
        ),
        "ribbons": ribbons([1, 2, 3, 4], tail, alt="Median, p90 and p99 rise with the load; the p99 rises most."),
        "lanes": lanes(requests, alt="Eight requests in time; the fifth is sent 0.2 s after it was due."),
        "strips": strips(
            {"closed loop": [*calm, 2.0], "open loop": [*calm, *chance.uniform(0.03, 2, 90)]}, badge="simulated",
            alt="The closed loop has one slow dot, the open loop ninety, and a p99 of two seconds.",
        ),
    }  # fmt: skip


def streamed() -> dict[str, LabFigure]:
    said = [" \ufffd", "\ufffd", " =", " ", "\ufffd", "\ufffd", "\n", "Hello"]
    broken = [Arrival(0.3 + 0.09 * at, text) for at, text in enumerate(said)]
    healed = [Arrival(0.4, " 😀"), Arrival(0.5, " ="), Arrival(0.58, " "), Arrival(0.75, "你"), Arrival(1.0, "")]
    lanes = {"ensemble": broken, "BLS": healed, "whole": [Arrival(1.1, " 😀 = 你\nHello")]}
    cells = {
        ("decoupled, stream", "unary call"): ("error", "ModelInfer RPC doesn't support models with decoupled policy"),
        ("decoupled, stream", "stream call"): ("pieces", "5 responses: [' Paris', '.', '\\n', '\\n', '']"),
        ("not decoupled, no stream", "unary call"): ("whole", "1 responses: [' Paris.']"),
        ("not decoupled, no stream", "stream call"): ("whole", "1 responses: [' Paris.']"),
    }
    guesses = {("decoupled, stream", "unary call"): "error", ("decoupled, stream", "stream call"): "whole"}
    return {
        "token_timeline": token_timeline(lanes, alt="The ensemble shows four broken halves, the BLS two characters."),
        "token_timeline_users": token_timeline(
            {f"user {n}": healed for n in range(4)}, labels=False, alt="Four users whose tokens come at once."
        ),
        "screens": screens(lanes, 0.7, alt="After 0.7 s: broken halves, a smile, and nothing yet."),
        "outcome_grid": outcome_grid(cells, guesses, alt="One of four cells streams, one is an error as guessed."),
    }


def validated() -> dict[str, LabFigure]:
    chance = np.random.default_rng(1)
    behind = np.zeros(24)
    behind[[7, 15]] = 0.08, 1.7
    columns = ["L0", "L1", "L2", "L4", "text equality", "cosine > 0.99"]
    rows = [
        FaultRow("M02 two BOS", ["pass", "fail", "fail", "insufficient", "fail", "pass"], "L1", "L1"),
        FaultRow("M26 temperature x 1.05", ["pass", "pass", "pass", "fail", "pass", "pass"], "L4", "L4"),
        FaultRow("M33 padded vocabulary not masked", ["pass", "pass", "fail", "fail", "pass", ""], "L4", "L2"),
    ]
    checks = [
        Check("the ladder", (0.98, 0.88, 1), (0, 0, 0.01)),
        Check("text equality", (0.5, 0.35, 0.65), (0.2, 0, 0.5)),
    ]
    return {
        "divergence": divergence(
            [" word"] * 24, chance.exponential(2, 24) + 0.05, behind, 0.3,
            alt="Two tokens of 24 are not the favorite: one 0.08 behind, a near-tie, one 1.7 behind, a fault.",
        ),
        "survival": survival([3, 5, 9, 12, 20, 24, 24], 0.05, alt="Equal answers fall from all to 2 of 7."),
        "transforms": transforms(
            {"right": chance.random(4000), "T x 1.1": chance.random(4000) ** 0.9}, badge="simulated",
            alt="Twenty bars within the band of chance, and twenty that climb out of it.",
        ),
        "detection": detection(columns, rows, 4, badge="simulated", alt="Three faults, rejected by L1, L4 and L2."),
        "scoreboard": scoreboard(checks, badge="simulated", alt="The ladder finds 98 %, texts half of the faults."),
    }  # fmt: skip


def panels() -> dict[str, LabFigure]:
    grid = []
    for t in (0.2, 0.7, 1.0, 2.0):
        p = softmax(LOGITS / t)
        grid.append(
            next_token(p, WORDS.__getitem__, top=6, chosen=0, full=1, alt=f"Bars at temperature {t}, Paris leads.")
        )
    titles = ["T = 0.2", "T = 0.7", "T = 1.0", "T = 2.0"]
    return {"small_multiples": small_multiples(grid, titles=titles, alt="Four panels: the bars even out as T rises.")}


def gallery() -> dict[str, LabFigure]:
    """Name -> figure, for all figure functions."""
    made = [
        distributions(),
        search(),
        inside(),
        diagrams(),
        caches(),
        builds(),
        batches(),
        repositories(),
        loads(),
        streamed(),
        validated(),
        panels(),
    ]
    return {name: figure for figures in made for name, figure in figures.items()}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in gallery().items():
        for theme in ("light", "dark"):
            (folder / f"{name}.{theme}.png").write_bytes(figure.png(theme))
