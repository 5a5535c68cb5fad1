"""Slow float64 twin of a weight whose length the loss ignores: how it turns once steps and decay are in balance."""

import numpy as np


def step_of(name, b1, b2=0.99, look_ahead=None):
    """Return a direction as a function of one gradient after the other; its moments are in it.

    adam, amsgrad, nadam (mu_t = `look_ahead` constant, b1 if None), momentum, nesterov: as in tests/reference.py.
    """
    m = v = w = 0.0
    mu, product, t = b1 if look_ahead is None else look_ahead, 1.0, 0

    def velocity(g):
        nonlocal m
        m = b1 * m + g
        return b1 * m + g if name == "nesterov" else m

    def adaptive(g):
        nonlocal m, v, w, product, t
        t, product = t + 1, product * mu
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = np.maximum(w, v) if name == "amsgrad" else v
        mean = m / (1 - b1**t)
        if name == "nadam":
            mean = mu * m / (1 - product * mu) + (1 - mu) * g / (1 - product)
        return mean / np.sqrt(w / (1 - b2**t))

    return velocity if name in ("momentum", "nesterov") else adaptive


def turning(step, rate, decay, *, updates, last, size=1000, held=False, seed=0):
    """Return the mean angle per update in radians, over the last updates of a walk, and the length at its end.

    theta <- (1 - decay) theta - rate d, or, held, R normalize(theta - rate R normalize(d)) with R its length at the
    start; g is drawn anew each time, at right angles to theta and inversely to its length, as the gradient of any loss
    with L(c theta) = L(theta) is.
    """
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=size)
    radius, angles = np.linalg.norm(theta), []
    for _ in range(updates):
        g = rng.normal(size=size)
        g = (g - theta * (g @ theta) / (theta @ theta)) / np.linalg.norm(theta)
        d = step(g)
        if held:
            new = theta - rate * radius * d / np.linalg.norm(d)
            new *= radius / np.linalg.norm(new)
        else:
            new = (1 - decay) * theta - rate * d
        chord = np.linalg.norm(new / np.linalg.norm(new) - theta / np.linalg.norm(theta))
        angles.append(2 * np.arcsin(chord / 2))
        theta = new
    return float(np.mean(angles[-last:])), float(np.linalg.norm(theta))
