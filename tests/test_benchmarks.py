"""The numbers that the benchmarks derive from what they measure, on made-up measurements; and their pictures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from benchmarks import pictures
from benchmarks.decoupling import best_pair, coupling_slope, optimum

RATES, DECAYS = np.geomspace(1e-3, 1e-1, 5), np.geomspace(1e-6, 1.0, 25)


def valley(slope):
    """Losses whose best decay lies on a line over the rate."""
    place = np.log(1e-3) + slope * np.log(RATES / 1e-2)
    return 1 + 1e-3 * (np.log(DECAYS) - place[:, None]) ** 2


@pytest.mark.parametrize("slope", [0.0, -1.0, 1.0])
def test_the_slope_tells_a_decoupled_grid_from_a_coupled_one(slope):
    # The losses are parabolas, which the interpolation finds exactly.
    assert coupling_slope(RATES, DECAYS, valley(slope)) == pytest.approx(slope, abs=1e-9)


def test_rates_far_from_the_best_loss_do_not_count():
    losses = valley(0.0)
    losses[0] = 2 + np.linspace(0, 1, len(DECAYS))
    assert coupling_slope(RATES, DECAYS, losses) == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(coupling_slope(RATES, DECAYS, losses + np.array([10.0, 20, 30, 40, 0])[:, None]))


def test_an_optimum_at_the_end_of_the_axis_stays_there():
    assert optimum(DECAYS, np.arange(25.0)) == pytest.approx(np.log(1e-6))
    assert optimum(DECAYS, -np.arange(25.0)) == pytest.approx(0.0)


def test_the_best_pair_is_that_of_the_mean_over_the_seeds():
    errors = np.full((2, 3, 2), 5.0)
    errors[0, 1] = [0, 9]
    errors[1, 2] = [4, 4]
    assert best_pair(errors) == (1, 2)


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_results_become_a_picture_with_labelled_axes(name):
    function, size, grid = pictures.PICTURES[name]
    figure, axes = plt.subplots(*grid, figsize=size)
    function(axes, pictures.rows_of(name))
    assert all(axes.get_xlabel() and axes.has_data() for axes in figure.axes)
    assert figure.axes[0].get_ylabel() or figure.axes[0].get_yticklabels()
    plt.close(figure)
