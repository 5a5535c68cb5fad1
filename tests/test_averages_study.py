"""The study of averages: one training keeps what trainings with one average each keep; rates go on past an end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamw_jax as aj
from benchmarks.averages import arms, grids, publish
from benchmarks.decoupling.forms import FORMS
from benchmarks.decoupling.trainings import Problem, Regime, run, scores

PART = jnp.eye(4), jnp.arange(4) % 2
TINY = Regime(
    lambda seed: Problem(PART, PART, PART),
    lambda key: {"kernel": jax.random.normal(key, (4, 2))},
    lambda params, x, rows: x @ params["kernel"],
    48,
    2,
)


def test_one_training_keeps_what_a_training_with_one_average_keeps():
    found = jax.jit(lambda: arms.train(TINY, 0, 0.1, 0.01, 3))()["test loss"]
    names = [arms.LAST, *arms.averages("constant", 48)]
    average = arms.averages("constant", 48)["DecayMerge 20%"]

    @jax.jit
    def alone():
        tx = aj.with_average(FORMS["AdamW"](0.1, 0.01, aj.linear_warmup(3), TINY.b2), average)
        key = jax.random.key(3)
        (params, state), _ = run(TINY, tx, TINY.init(key), PART, jax.random.fold_in(key, 1), 48)
        both = params, aj.averaged(state, params, missing="params")
        return [scores(TINY, weights, Problem(PART, PART, PART))["test loss"] for weights in both]

    # The same arithmetic, which XLA may fuse otherwise: 48 updates in float32.
    np.testing.assert_allclose([found[0], found[names.index("DecayMerge 20%")]], alone(), rtol=1e-5)
    assert len(np.unique(found)) == len(names)


def test_rates_go_on_past_an_end_and_the_best_are_trained_on_fresh_seeds(monkeypatch):
    def pretended(regime, schedule, pairs, seeds):
        losses = np.log2([[[rate / best for best in (1, 4, 64)]] * len(seeds) for rate, _ in pairs]) ** 2
        return {f"{part} loss": losses + 1 + 0.1 * np.array(seeds)[:, None] for part in ("validation", "test")}

    monkeypatch.setattr(grids, "trainings", pretended)
    monkeypatch.setattr(grids, "averages", lambda schedule, updates: ["Ema 3%", "DecayMerge 20%"])
    monkeypatch.setattr(grids, "save", lambda *part: saved.append(part))
    saved = []
    grids.study("tiny", TINY, 4.0, 0.1, [0, 1], [2, 3, 4])
    found = saved[-1][-1]
    assert [arm["rate"] for arm in found["schedules"]["cosine"].values()] == [1, 4, 64]
    (mean, _), (difference, error, p) = publish.compared(found, "constant", "Ema 3%")
    assert (mean, difference, error, p) == (pytest.approx(1.3), 0, 0, 1)
    assert publish.matrix({"tiny": (None, found)}, [("cosine", arms.LAST)])[0]["tiny"] == "1.300 ± 0.058"
