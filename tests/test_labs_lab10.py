"""Lab 10: what the notebook writes is what the ladder computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labs_slices import bound

from labsupport.decoding import Context, Settings, Xorwow, dialect, inverse_cdf
from labsupport.labs.checks import lab10
from labsupport.labs.notebook import read
from labsupport.validation.mutations.blind import SERVERS, levels
from labsupport.validation.replay import IntervalReplay
from labsupport.validation.scoring import score
from labsupport.validation.target import Answer, Ask

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "10_model_validation.ipynb"
pytestmark = pytest.mark.skipif(not NOTEBOOK.is_file(), reason="lab 10 is not in place yet")


def from_notebook(name, **names):
    """What the notebook's last cell that binds ``name`` binds to it, with the names that it reads given."""
    cell = [cell for cell in read(NOTEBOOK).code if name in bound(cell) and "check" not in cell.tags][-1]
    names = {"np": np, "Xorwow": Xorwow, "inverse_cdf": inverse_cdf, "SEED": 3, **names}
    exec(compile(cell.source, cell.label, "exec"), names)
    return names[name]


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32) * 3


def scored(logits, ids, settings, seed=None):
    ask = Ask("x", len(ids), settings, seed)
    return score(ask, Answer(tuple(ids), logits=logits), (1, 2), logits, "trtllm-cpp", noise=1e-5)


def test_the_margin_of_the_lab_is_the_margin_of_l3(logits):
    ids = np.random.default_rng(1).integers(0, 50, 30)
    lead, behind = from_notebook("lead_and_behind")(logits[None], ids[None])
    ordered = np.sort(logits, axis=-1)
    np.testing.assert_allclose(lead[0], ordered[:, -1] - ordered[:, -2])
    item = scored(logits, ids.tolist(), Settings(top_k=1))
    np.testing.assert_allclose(behind[0], item.margin)
    assert from_notebook("violations")(logits, ids, 1.5) == np.flatnonzero(item.margin > 3).tolist()


def test_the_transform_of_the_lab_is_the_transform_of_l4(logits):
    settings = Settings(temperature=0.8, top_k=20)
    sampler, stream, ids = dialect("trtllm-cpp", temperature=0.8, top_k=20), Xorwow(5), []
    for row in logits:
        ids.append(inverse_cdf(sampler.probs(row, Context((1, 2), tuple(ids))), stream.uniform()))
    draws = scored(logits, ids, settings, 5).draws
    probs = [sampler.probs(row, Context()).astype(float) for row in logits]
    mine = [from_notebook("transform")(row, token, 0.5) for row, token in zip(probs, ids, strict=True)]
    np.testing.assert_allclose(mine, draws.below + 0.5 * draws.p, atol=1e-6)
    assert from_notebook("misses")(np.array(probs), ids, 5) == 0
    again = IntervalReplay(5)
    assert [again.next(row, token, 0).miss for row, token in zip(probs, ids, strict=True)] == [0] * 30


def test_the_made_up_sampler_of_the_lab_is_an_inverse_cdf():
    rng = np.random.default_rng(3)
    softmax = from_notebook("softmax")
    z, u = np.sort(rng.normal(size=(40, 64)), axis=1)[:, ::-1], rng.random(40)
    drawn = from_notebook("draw", softmax=softmax, rng=rng)(z, 0.7, u)
    assert drawn.tolist() == [inverse_cdf(row, one) for row, one in zip(softmax(z / 0.7), u, strict=True)]


def test_exact_transforms_of_the_made_up_sampler_are_uniform():
    rng = np.random.default_rng(4)
    softmax = from_notebook("softmax")
    names = {"softmax": softmax, "rng": rng}
    z = from_notebook("contexts")(4000)
    values = from_notebook("transforms", **names)(z, from_notebook("draw", **names)(z, 1.0, rng.random(4000)))
    counts = np.histogram(values, 10, (0, 1))[0]
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)


def test_the_blind_round_has_healthy_and_faulty_servers_of_different_levels():
    faulty = [level for level in levels().values() if level != "healthy"]
    assert len(SERVERS) == 5
    assert len(faulty) < 5
    assert len(set(faulty)) == len(faulty)
    assert levels() == lab10.blind.reference
