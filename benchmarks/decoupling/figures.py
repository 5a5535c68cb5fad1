"""What the study derives from scores: best pairs, slopes, and tests between paired seeds."""

import itertools

import numpy as np

from examples.maps import coupling_slope as coupling_slope, optimum as optimum


def best_pair(errors):
    """Return the indices of the pair with the smallest mean error over the seeds, the last axis."""
    means = errors.mean(axis=-1)
    return np.unravel_index(means.argmin(), means.shape)


def interval(estimate, seeds, level=0.9, draws=400):
    """Return the bootstrap interval of `estimate(indices of seeds)`; nan where half of the draws have none."""
    rng = np.random.default_rng(0)
    drawn = np.array([estimate(rng.integers(0, seeds, seeds)) for _ in range(draws)])
    found = drawn[np.isfinite(drawn)]
    if len(found) < draws / 2:
        return np.nan, np.nan
    return tuple(np.quantile(found, [(1 - level) / 2, (1 + level) / 2]))


def paired(a, b):
    """Return mean of a - b over the seeds, its standard error, and the two-sided p of the exact sign-flip test.

    Under the hypothesis that the two are alike, every difference has either sign with the same chance; p is the share
    of the 2^n choices of signs whose mean is at least as far from 0.
    """
    difference = np.asarray(a, float) - np.asarray(b, float)
    flips = np.array(list(itertools.product((1, -1), repeat=len(difference))))
    means = np.abs(flips @ difference) / len(difference)
    p = float((means >= abs(difference.mean()) - 1e-12).mean())
    return difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5, p


def with_spread(values, digits=2):
    """Return mean and standard deviation as text."""
    values = np.asarray(values, float)
    return f"{np.nanmean(values):.{digits}f} ± {np.nanstd(values, ddof=1):.{digits}f}"


def written(middle, ends, plus=0.0):
    """Return an estimate and its interval as text, both moved by `plus`."""
    if np.isnan(middle):
        return "-"
    return f"{middle + plus:z.2f} [{ends[0] + plus:z.2f}, {ends[1] + plus:z.2f}]"
