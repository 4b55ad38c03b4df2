"""Random streams: cuRAND's values, PyTorch's draws, and the trap of neighboring seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from labsupport.decoding import TorchStream, Xorwow, independent_seed, inverse_cdf
from labsupport.errors import ParameterError

RECORDED_ON_AN_H200 = {
    0: "0.740219355 0.438451141 0.517012656 0.156988621",
    42: "0.0700209439 0.550213754 0.186259195 0.539690077",
    1: "0.674789965 0.724492013 0.507475257 0.0883821398",
    1234567890123456789: "0.890235066 0.91430372 0.494192034 0.085987322",
    2**63 + 1: "0.17478995 0.224491999 0.882475257 0.588382125",
    2**64 - 1: "0.195268378 0.863983691 0.289988577 0.629364371",
}


@pytest.mark.parametrize("seed", RECORDED_ON_AN_H200)
def test_xorwow_gives_the_floats_of_curand(seed: int) -> None:
    stream = Xorwow(seed)
    uniforms = [stream.uniform() for _ in range(4)]
    # Nine significant digits name a float32 uniquely, so equal text is equal bits.
    assert " ".join(f"{u:.9g}" for u in uniforms) == RECORDED_ON_AN_H200[seed]
    assert uniforms == [float(np.float32(text)) for text in RECORDED_ON_AN_H200[seed].split()]


def test_xorwow_starts_at_marsaglias_constants() -> None:
    """One step of the published recurrence, written out, from the state that seed scrambling leaves behind."""
    seed = 0xAAD26B49 | 0xF7DCEFDD << 32  # cancels cuRAND's scrambling, so the state is Marsaglia's own
    x, v, d = 123456789, 5783321, 6615241
    t = x ^ (x >> 2)
    v = (v ^ (v << 4) ^ (t ^ (t << 1))) % 2**32
    assert Xorwow(seed).bits() == (v + d + 362437) % 2**32


def test_xorwow_is_uniform_and_never_zero() -> None:
    stream = Xorwow(7)
    uniforms = np.array([stream.uniform() for _ in range(20_000)])
    assert uniforms.min() > 0
    assert uniforms.max() <= 1
    assert stats.kstest(uniforms, "uniform").pvalue > 1e-3


def test_the_torch_stream_draws_what_multinomial_draws() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(300)).astype(np.float32)
    generator = torch.Generator().manual_seed(11)
    theirs = [int(torch.multinomial(torch.from_numpy(probs), 1, generator=generator)) for _ in range(500)]
    stream = TorchStream(11)
    assert [stream.draw(probs) for _ in range(500)] == theirs
    assert TorchStream(5).uniform() == float(torch.rand(1, generator=torch.Generator().manual_seed(5)))


def test_without_a_seed_xorwow_repeats_and_torch_does_not() -> None:
    assert Xorwow().uniform() == Xorwow().uniform() == Xorwow(0).uniform()
    assert TorchStream().seed != TorchStream().seed


def test_the_inverse_cdf_walks_from_the_likeliest() -> None:
    probs = np.array([0.25, 0.0, 0.5, 0.25])
    assert [inverse_cdf(probs, u) for u in (1e-9, 0.5, 0.5000001, 0.75, 0.7500001, 1.0)] == [2, 2, 0, 0, 3, 3]


def p_value_of_independence(seeds: list[int]) -> float:
    """p-value for: the first two uniforms of these seeds fall evenly into 10 x 10 cells."""
    cells = np.zeros((10, 10))
    for seed in seeds:
        stream = Xorwow(seed)
        cells[min(int(stream.uniform() * 10), 9), min(int(stream.uniform() * 10), 9)] += 1
    return float(stats.chisquare(cells, axis=None).pvalue)


def test_neighboring_seeds_are_a_trap_and_hashed_seeds_are_not() -> None:
    assert p_value_of_independence(list(range(20_000))) < 1e-30
    assert p_value_of_independence([independent_seed("run", i) for i in range(20_000)]) > 1e-3


def test_independent_seeds_are_repeatable_and_fit_every_field() -> None:
    seeds = {independent_seed("run", i) for i in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)  # also fits where a field is a signed int64
    assert independent_seed("run", 3) == independent_seed("run", 3) != independent_seed("other", 3)


@pytest.mark.parametrize("seed", [-1, 2**64])
@pytest.mark.parametrize("stream", [Xorwow, TorchStream])
def test_a_seed_beyond_64_bits_is_explained(stream: type[Xorwow] | type[TorchStream], seed: int) -> None:
    with pytest.raises(ParameterError, match=f"seed {seed} is not a 64-bit unsigned integer"):
        stream(seed)
