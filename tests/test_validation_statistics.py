"""The statistics of the ladder: against known values, and by simulation where they promise a rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from labsupport.validation import statistics as s


def test_g_test_is_scipys_where_no_cell_is_merged() -> None:
    counts, p = [30, 50, 20], [0.3, 0.4, 0.3]
    expected = stats.power_divergence(counts, [30, 40, 30], lambda_="log-likelihood")
    assert s.g_test(counts, p) == pytest.approx((expected.statistic, 2, expected.pvalue))


def test_g_test_merges_cells_that_expect_little_and_refuses_a_single_cell() -> None:
    assert s.g_test([96, 1, 1, 1, 1], [0.96, 0.01, 0.01, 0.01, 0.01])[1] == 0  # the four together expect 4
    assert s.g_test([90, 4, 3, 3], [0.9, 0.04, 0.03, 0.03])[1] == 1
    assert s.g_test([3], [1.0]) == (0.0, 0, 1.0)


def test_g_test_keeps_its_alpha_and_has_power() -> None:
    rng = np.random.default_rng(1)
    p, tilted = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.44, 0.3, 0.18, 0.08])
    false = np.mean([s.g_test(rng.multinomial(400, p), p)[2] < 0.05 for _ in range(500)])
    power = np.mean([s.g_test(rng.multinomial(2000, tilted), p)[2] < 0.05 for _ in range(100)])
    assert 0.02 < false < 0.08
    assert power > 0.9


def test_uniform_test_keeps_its_alpha_and_sees_a_missing_tail() -> None:
    rng = np.random.default_rng(2)
    false = np.mean([s.uniform_test(rng.random(500))[2] < 0.05 for _ in range(500)])
    assert 0.02 < false < 0.08
    assert s.uniform_test(rng.random(2000) * 0.95)[2] < 1e-6


def test_the_stated_power_is_the_power() -> None:
    """Cells that are off by what is said to be seen with 95 % are seen with 95 %."""
    rng = np.random.default_rng(6)
    error = s.smallest_seen(9, 2000, 1e-3)
    tilted = (1 + error * np.where(np.arange(10) % 2, 1, -1)) / 10
    seen = [s.g_test(rng.multinomial(2000, tilted), np.full(10, 0.1))[2] < 1e-3 for _ in range(300)]
    assert np.mean(seen) == pytest.approx(0.95, abs=0.04)


def test_surprisal_z_is_standard_normal_for_honest_draws() -> None:
    rng = np.random.default_rng(3)
    p = np.array([0.5, 0.3, 0.2])
    logs = np.log(p)
    mean, variance = (p * logs).sum(), (p * logs**2).sum() - (p * logs).sum() ** 2
    n = 300
    zs = [s.surprisal_z(logs[rng.choice(3, n, p=p)], np.full(n, mean), np.full(n, variance))[0] for _ in range(500)]
    assert np.mean(zs) == pytest.approx(0, abs=0.15)
    assert np.std(zs) == pytest.approx(1, abs=0.1)
    assert s.surprisal_z(np.zeros(3), np.zeros(3), np.zeros(3)) == (0.0, 1.0)


def test_correlations_are_standard_normal_and_see_repetition() -> None:
    rng = np.random.default_rng(4)
    lag = [s.lag_correlation([rng.random(40) for _ in range(5)])[0] for _ in range(500)]
    cross = [s.cross_correlation([rng.random(40) for _ in range(5)])[0] for _ in range(500)]
    assert np.std(lag) == pytest.approx(1, abs=0.12)
    assert np.std(cross) == pytest.approx(1, abs=0.12)
    row = rng.random(40)
    assert s.cross_correlation([row] * 5)[1] < 1e-6
    assert s.lag_correlation([np.full(40, rng.random()) for _ in range(10)])[1] < 1e-3
    assert s.lag_correlation([]) == (0.0, 1.0)


def test_mcnemar_is_the_sign_test_on_what_differs() -> None:
    assert s.mcnemar(0, 0) == 1
    assert s.mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert s.mcnemar(3, 3) == 1


def test_binomial_bounds() -> None:
    assert s.at_least(0, 10, 0.1) == 1
    assert s.at_least(1, 10, 0.1) == pytest.approx(1 - 0.9**10)
    most = s.most_expected(1000, 1e-3, 1e-4)
    assert s.at_least(most + 1, 1000, 1e-3) <= 1e-4 < s.at_least(most, 1000, 1e-3)


def test_clopper_pearson_and_the_rule_of_three() -> None:
    low, high = s.clopper_pearson(42, 45)
    assert (low, high) == pytest.approx((0.8173, 0.9860), abs=2e-4)
    assert s.clopper_pearson(0, 10)[0] == 0
    assert s.clopper_pearson(10, 10)[1] == 1
    assert s.zero_alarms_bound(299) == pytest.approx(0.01, abs=2e-4)


def test_rouge_l_against_counts_by_hand() -> None:
    assert s.rouge_l(["a", "b", "c", "d"], ["a", "c", "d", "e"]) == pytest.approx(2 * 3 / 8)
    assert s.rouge_l([], []) == 1
    assert s.rouge_l([], ["a"]) == 0


def test_trtllm_threshold_is_that_of_its_mmlu_test() -> None:
    assert s.trtllm_threshold(0, 50, 4096, 0.05) == pytest.approx(-1.82, abs=0.01)


def test_mmd_keeps_its_alpha_and_sees_another_distribution() -> None:
    rng = np.random.default_rng(5)

    def sample(shift: int) -> list[list[list[int]]]:
        return [[list(rng.integers(0 + shift, 4 + shift, 6)) for _ in range(6)] for _ in range(3)]

    ps = [s.mmd(sample(0), sample(0), 100) for _ in range(30)]
    assert np.mean(np.array(ps) < 0.1) < 0.3
    assert s.mmd(sample(0), sample(2), 200) < 0.01
