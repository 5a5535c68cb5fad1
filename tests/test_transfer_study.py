"""The study of transfer: no point is trained twice, it goes on where it stopped, its fit finds the bottom."""

import json

import numpy as np
import pytest

from benchmarks.transfer import __main__ as study, plan, publish, store
from benchmarks.transfer.fits import fit, intervals

BEST = {"rate": 0.009, "decay": 4e-4}


def pretended(point):
    """Return a point with losses on a quadratic around `BEST`, a little apart by seed."""
    loss = 2 + sum(np.log2(point[key] / BEST[key]) ** 2 for key in BEST) / 20 + 1e-4 * (point["seed"] % 7)
    return point | {"tuning": loss, "reported": loss + 0.01, "seconds": 1.0}


def test_it_goes_on_where_it_stopped_and_trains_no_point_twice(tmp_path, monkeypatch):
    trained = []

    def score(point):
        trained.append(store.key_of(point))
        if len(trained) == 120:
            raise KeyboardInterrupt
        return pretended(point)

    monkeypatch.setattr(study, "score", score)
    file = tmp_path / "points.json"
    with pytest.raises(KeyboardInterrupt):
        study.run(file)
    assert len(store.load(file)) >= 119
    study.run(file)
    points = store.load(file)
    trained.remove(trained[119])  # the one that was interrupted
    assert len(set(trained)) == len(trained)
    assert {store.key_of(point) for point in points} == set(trained)
    assert set(json.loads(file.read_text())) == {"machine", "columns", "rows"}
    base = publish.base_of(points)
    # The grid's bottom is found within its resolution, a thirtieth of an octave, and the weights' bend.
    assert (base["rate"], base["decay"]) == (pytest.approx(0.009, rel=0.03), pytest.approx(4e-4, rel=0.03))
    rows = publish.targets(points)
    assert [row["change"] for row in rows][:2] == ["width x 2", "batch x 4"]
    assert all(row["tuned"] != "-" for row in rows)
    assert len(publish.others(points)) == sum(map(len, plan.OTHERS.values()))
    assert len(publish.directions(points)) == 2


def test_the_fit_is_the_bottom_with_an_interval_around_it():
    u, v = np.meshgrid(np.arange(-2.0, 3), np.arange(-2.0, 3))
    noise = 1e-3 * np.random.default_rng(0).standard_normal(u.shape)
    losses = 1 + 0.02 * (u - 0.5) ** 2 + 0.01 * (v + 1) ** 2 + 0.005 * u * v + noise
    # The gradient is zero where 0.04 (u - 0.5) + 0.005 v = 0 and 0.02 (v + 1) + 0.005 u = 0.
    best = np.linalg.solve([[0.04, 0.005], [0.005, 0.02]], [0.02, -0.02])
    rate, decay, loss, residual = fit(2**u, 2**v, losses)
    np.testing.assert_allclose(np.log2([rate, decay]), best, atol=0.1)
    assert residual < 2e-3
    (low, high), *_ = intervals((2**u).ravel(), (2**v).ravel(), losses.ravel(), draws=50)
    assert low <= rate <= high
    assert loss == pytest.approx(losses.min(), abs=0.01)
