"""The best rate and decay of a shape: one quadratic over both, with intervals by the bootstrap."""

import numpy as np


def _features(u, v):
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)


def fit(rates, decays, losses):
    """Return the minimum of a quadratic in log2 rate and log2 decay: (rate, decay, loss, root mean square residual).

    Losses far above the smallest count less: a valley is a quadratic only near its bottom. The minimum is looked for
    within the points, so that a valley without an end has its best point at the edge.

    >>> u, v = np.meshgrid(np.arange(-2.0, 3), np.arange(-2.0, 3))
    >>> rate, decay, loss, _ = fit(2**u, 2**v, 1 + (u - 0.5) ** 2 + 0.1 * (v + 1) ** 2)
    >>> round(float(np.log2(rate)), 3), round(float(np.log2(decay)), 3), round(loss, 3)
    (0.5, -1.0, 1.0)
    """
    u, v, losses = np.log2(np.ravel(rates)), np.log2(np.ravel(decays)), np.ravel(losses).astype(float)
    u0, v0 = np.median(u), np.median(v)
    weights = 1 / (1 + np.square((losses - losses.min()) / 0.05))
    features = _features(u - u0, v - v0)
    beta, *_ = np.linalg.lstsq(features * np.sqrt(weights)[:, None], losses * np.sqrt(weights), rcond=None)
    grid = np.meshgrid(np.linspace(u.min(), u.max(), 121) - u0, np.linspace(v.min(), v.max(), 121) - v0)
    surface = _features(*grid) @ beta
    at = np.unravel_index(surface.argmin(), surface.shape)
    residual = np.sqrt(np.average(np.square(features @ beta - losses), weights=weights))
    return 2 ** float(grid[0][at] + u0), 2 ** float(grid[1][at] + v0), float(surface[at]), float(residual)


def intervals(rates, decays, losses, draws=200, level=0.9):
    """Return the bootstrap intervals of rate, decay and loss over the points."""
    rng, size = np.random.default_rng(0), len(losses)
    rates, decays, losses = (np.asarray(each, float) for each in (rates, decays, losses))
    drawn = [rng.integers(0, size, size) for _ in range(draws)]
    found = np.array([fit(rates[i], decays[i], losses[i])[:3] for i in drawn])
    return np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0).T.tolist()
