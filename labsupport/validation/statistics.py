"""The few statistics that the levels decide by. Distributions are scipy's; the rest is tested on known values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]


def g_test(counts: Sequence[float] | Floats, probabilities: Sequence[float] | Floats) -> tuple[float, int, float]:
    """Do counts follow the probabilities? Cells that expect fewer than 5 are merged, the smallest first.

    Returns:
        G = 2 Σ O ln(O/E), degrees of freedom, p. With fewer than two cells left: (0, 0, 1).
    """
    observed, p = np.asarray(counts, float), np.asarray(probabilities, float)
    order = np.argsort(p)
    expected = p[order] / p.sum() * observed.sum()
    cells: list[tuple[float, float]] = []
    held_o = held_e = 0.0
    for o, e in zip(observed[order], expected, strict=True):
        held_o, held_e = held_o + o, held_e + e
        if held_e >= 5:
            cells.append((held_o, held_e))
            held_o = held_e = 0.0
    if held_e and cells:
        cells[-1] = (cells[-1][0] + held_o, cells[-1][1] + held_e)
    if len(cells) < 2:
        return 0.0, 0, 1.0
    o, e = np.array(cells).T
    statistic, tail = stats.power_divergence(o, e, lambda_="log-likelihood")
    return float(statistic), len(cells) - 1, float(tail)


def uniform_test(values: Sequence[float] | Floats, bins: int = 20) -> tuple[float, int, float]:
    """Are values in [0, 1] uniform? A chi-squared test on equal bins -> statistic, degrees of freedom, p."""
    counts, _ = np.histogram(values, bins=bins, range=(0, 1))
    statistic, tail = stats.chisquare(counts)
    return float(statistic), bins - 1, float(tail)


def smallest_seen(df: int, n: int, alpha: float, power: float = 0.95) -> float:
    """The relative error of the cells' probabilities, root mean square, that a chi-squared or G-test of n draws sees.

    The statistic of a wrong distribution is noncentral chi-squared, with noncentrality n times the error squared.
    """
    limit = stats.chi2.isf(alpha, df)
    noncentrality = optimize.brentq(lambda value: stats.ncx2.sf(limit, df, value) - power, 1e-3, 1e4)
    return float(np.sqrt(noncentrality / n))


def surprisal_z(log_p: Floats, expected: Floats, variance: Floats) -> tuple[float, float]:
    """Were the drawn tokens as likely as draws are? z = Σ(ln p − E) / sqrt(Σ Var), and its two-sided p."""
    spread = float(np.sqrt(variance.sum()))
    if spread == 0:
        return 0.0, 1.0
    z = float((log_p - expected).sum()) / spread
    return z, two_sided(z)


def lag_correlation(rows: Sequence[Floats]) -> tuple[float, float]:
    """Is a value related to the one before it in its row? Uniform values -> z and its two-sided p."""
    pairs = [(row[:-1] - 0.5) * (row[1:] - 0.5) for row in rows if len(row) > 1]
    return _mean_product(np.concatenate(pairs) if pairs else np.empty(0))


def cross_correlation(rows: Sequence[Floats]) -> tuple[float, float]:
    """Are rows related to each other, place by place? Each is held against the next one -> z, two-sided p."""
    pairs = [(a[: (n := min(len(a), len(b)))] - 0.5) * (b[:n] - 0.5) for a, b in pairwise(rows)]
    return _mean_product(np.concatenate(pairs) if pairs else np.empty(0))


def _mean_product(products: Floats) -> tuple[float, float]:
    if not len(products):
        return 0.0, 1.0
    z = float(products.sum() * 12 / np.sqrt(len(products)))  # a product of two centered uniforms has variance 1/144
    return z, two_sided(z)


def two_sided(z: float) -> float:
    """P(|Z| >= |z|) of a standard normal Z."""
    return float(2 * stats.norm.sf(abs(z)))


def at_least(k: int, n: int, rate: float) -> float:
    """P(X >= k) of X ~ Binomial(n, rate)."""
    return float(stats.binom.sf(k - 1, n, rate))


def most_expected(n: int, rate: float, alpha: float) -> int:
    """The largest count that is no alarm: P(X > k) <= alpha of X ~ Binomial(n, rate)."""
    return int(stats.binom.isf(alpha, n, rate)) if n else 0


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate of which k in n were seen."""
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(stats.beta.ppf(tail, k, n - k + 1))
    return low, 1.0 if k == n else float(stats.beta.ppf(1 - tail, k + 1, n - k))


def zero_alarms_bound(n: int, confidence: float = 0.95) -> float:
    """The largest false-alarm rate that n runs without one allow."""
    return float(1 - (1 - confidence) ** (1 / n))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p that two systems, asked the same questions, are equally often right."""
    n = only_first + only_second
    return float(stats.binomtest(only_first, n, 0.5).pvalue) if n else 1.0


def mmd(first: Sequence[Sequence[Sequence[int]]], second: Sequence[Sequence[Sequence[int]]], rounds: int) -> float:
    """Permutation p that two systems draw from the same distribution, prompt by prompt.

    The kernel is 1 − the share of places at which two answers differ, 0 across prompts.
    Source: Gao, Liang, Guestrin 2024, Model Equality Testing (arXiv 2410.20247).

    Args:
        first, second: [prompt][sample][token]; the number of samples may differ.
        rounds: permutations.
    """
    rng = np.random.default_rng(0)
    grams, sizes = [], []
    for a, b in zip(first, second, strict=True):
        samples = [*a, *b]
        length = max(map(len, samples))
        padded = np.array([[*sample, *[-1] * (length - len(sample))] for sample in samples])
        grams.append((padded[:, None] == padded[None]).mean(axis=-1))
        sizes.append(len(a))

    def statistic(orders: list[NDArray[np.int64]]) -> float:
        total = 0.0
        for gram, size, order in zip(grams, sizes, orders, strict=True):
            x, y = order[:size], order[size:]
            own = [_off_diagonal(gram[np.ix_(side, side)]) for side in (x, y)]
            total += sum(own) - 2 * float(gram[np.ix_(x, y)].mean())
        return total

    seen = statistic([np.arange(len(gram)) for gram in grams])
    others = [statistic([rng.permutation(len(gram)) for gram in grams]) for _ in range(rounds)]
    return (1 + sum(other >= seen - 1e-12 for other in others)) / (rounds + 1)


def _off_diagonal(gram: Floats) -> float:
    n = len(gram)
    return float((gram.sum() - np.trace(gram)) / (n * (n - 1))) if n > 1 else 0.0


def rouge_l(first: Sequence[object], second: Sequence[object]) -> float:
    """F-measure of the longest common subsequence of two lists, 0 to 1. Source: Lin 2004, ROUGE."""
    if not first or not second:
        return float(list(first) == list(second))
    row = [0] * (len(second) + 1)
    for a in first:
        before = 0
        for place, b in enumerate(second, start=1):
            before, row[place] = row[place], before + 1 if a == b else max(row[place], row[place - 1])
    return 2 * row[-1] / (len(first) + len(second))


def trtllm_threshold(reference: float, sigma: float, n: int, alpha: float = 0.05) -> float:
    """The lowest score that TensorRT-LLM's accuracy suite passes: reference + Φ⁻¹(α) sqrt(2 σ² / n).

    It treats the two runs as independent, though both answer the same questions: McNemar on pairs is sharper.
    Source: TensorRT-LLM ``tests/integration/defs/accuracy``.
    """
    return float(reference + stats.norm.ppf(alpha) * np.sqrt(2 * sigma**2 / n))
