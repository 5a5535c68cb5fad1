"""The study's newer parts: norms that are held, one reading of a text, grids measured form by form, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.decoupling import grids
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.regimes import CONTEXT, one_reading
from benchmarks.decoupling.size_tables import best_places
from benchmarks.decoupling.trainings import Problem, Regime


@pytest.mark.parametrize(
    ("form", "head_moves"), [("Adam, norms held", False), ("Adam, norms held but at the ends", True)]
)
def test_held_kernels_keep_their_norm_and_turn(form, head_moves):
    params = {"body": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}, "head": {"kernel": jnp.ones((3, 2))}}
    tx = FORMS[form](0.1, 0.0, lambda count: 1.0, 0.99)
    grads = jax.tree.map(lambda p: jnp.arange(1.0, 1.0 + p.size).reshape(p.shape), params)
    updates, _ = tx.update(grads, tx.init(params), params)
    new = optax.apply_updates(params, updates)
    norms = {name: float(jnp.linalg.norm(new[name]["kernel"])) for name in new}
    assert norms["body"] == pytest.approx(3**0.5)
    assert (norms["head"] == pytest.approx(6**0.5)) is not head_moves
    assert not jnp.array_equal(new["body"]["kernel"], params["body"]["kernel"])


def test_the_ends_may_be_left_without_a_decay():
    params = {"body": jnp.ones((2, 2)), "bias": jnp.ones(2), "head": jnp.ones((2, 2))}
    tx = FORMS["AdamW, none at the ends"](0.1, 0.5, lambda count: 1.0, 0.99)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert jax.tree.map(lambda u: float(u.sum()), updates) == {"body": -2.0, "bias": 0.0, "head": 0.0}


def test_a_reading_shows_no_stretch_twice_and_none_of_the_other_parts():
    problem = one_reading(0, examples=10_000)
    for x, y in problem:
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
        assert x.shape[1] == CONTEXT
    stretches = [{bytes(row) for row in np.asarray(x)} for x, _ in problem]
    # What repeats are the lines of tables and headings: 1 % of Python 3.11's text, 3 % of 3.13's.
    assert len(stretches[0]) > 0.96 * 10_000
    assert len(stretches[0] & stretches[2]) < 40
    assert not np.array_equal(problem.training[0], one_reading(1, examples=10_000).training[0])


def test_a_form_measured_later_stands_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(grids, "RAW", tmp_path)
    part = jnp.eye(4), jnp.arange(4) % 2
    axes = {form: ([0.1], [0.0, 0.1]) for form in ("AdamW", "Adam, norms held")}
    regime = Regime(
        lambda seed: Problem(part, part, part),
        lambda key: {"kernel": jax.random.normal(key, (4, 2))},
        lambda params, x, rows: x @ params["kernel"],
        2,
        2,
        axes=axes,
    )
    grids.grid("tiny", regime, ["AdamW"], [0, 1])
    first = grids.load("grid")["tiny"][1]["AdamW"]
    grids.grid("tiny", regime, ["Adam, norms held"], [0])
    _, found = grids.load("grid")["tiny"]
    assert list(found) == list(axes)
    assert found["AdamW"] == first
    assert np.shape(found["Adam, norms held"]["values"]["test error"]) == (1, 2, 1)
    grids.best("tiny", regime, [2])
    assert set(grids.load("best")["tiny"][1]) == set(axes)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_best_places_of_a_grid_follow_its_valley(power):
    rates, decays = 4.0 ** np.arange(4) / 500, 2.0 ** np.arange(11) / 4000
    decay, rate = decays[3] * 4**power, rates[1] * 1.3
    losses = (np.log(decays / decay)) ** 2 + 0.1 * (np.log(rates / rate)[:, None]) ** 2
    found = best_places({"rate": rates, "decay": decays}, losses)
    # The losses are parabolas in each axis, which the interpolation finds exactly.
    assert found["paper's form"] == pytest.approx(np.log(decay))
    assert found["either form, one rate"] == pytest.approx(np.log(decay))
    assert found["rate"] == pytest.approx(np.log(rate))
    # Of the pairs of one ratio the grid has every second decay: it may miss the place by half a step.
    assert found["times the rate"] == pytest.approx(np.log(decay / rate), abs=np.log(2) / 2)
