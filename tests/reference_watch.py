"""Slow twins of what watches training, in NumPy float64: one leaf and one update at a time."""

import math

import numpy as np


def rms(x):
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def seen(weight, gradient, step):
    """One row of a report: the angle from the arc cosine of the normalized product, as it is defined."""
    before = np.asarray(weight, np.float64).ravel()
    after = before + np.asarray(step, np.float64).ravel()
    cosine = before @ after / (np.linalg.norm(before) * np.linalg.norm(after))
    return {
        "weight_rms": rms(weight),
        "gradient_rms": rms(gradient),
        "step_rms": rms(step),
        "ratio": rms(step) / rms(weight),
        "angle": math.acos(min(1.0, max(-1.0, cosine))),
    }


def skipping(norms, sigma, window, least_deviation=1e-3):
    """Return which of the updates with these gradient norms are taken, and mean and variance after each.

    The statistics are those of the definition for the first `window` norms; from then on they forget as an average
    over `window` does. They begin anew with the norm that is taken after `window` finite ones were not.
    """
    logs, mean, variance, above = [], 0.0, 0.0, 0
    taken, statistics = [], []
    for norm in norms:
        x = math.log(norm) if np.isfinite(norm) and norm > 0 else None
        high = x is not None and len(logs) >= window and x > mean + sigma * max(math.sqrt(variance), least_deviation)
        if not np.isfinite(norm):
            taken.append(False)
        elif high and above < window:
            above += 1
            taken.append(False)
        else:
            logs, above = [] if high else logs, 0
            taken.append(True)
            if x is not None:
                logs.append(x)
                if len(logs) <= window:
                    mean, variance = float(np.mean(logs)), float(np.var(logs))
                else:
                    variance = (1 - 1 / window) * (variance + (x - mean) ** 2 / window)
                    mean = mean + (x - mean) / window
        statistics.append((mean, variance))
    return np.array(taken), np.array(statistics)


def scaled_products(gradient, weight):
    """|sum of g theta| over the root of the sum of (g theta)^2."""
    terms = np.asarray(gradient, np.float64) * np.asarray(weight, np.float64)
    return abs(terms.sum()) / np.sqrt(np.square(terms).sum())


def sine(step, steps=12):
    """The sine of the angle between a matrix and its orthogonal factor, by its singular values."""
    values = np.linalg.svd(step, compute_uv=False)
    gram = step @ step.T if step.shape[0] <= step.shape[1] else step.T @ step
    factor = values / math.sqrt(np.abs(gram).sum(axis=1).max())
    for _ in range(steps):
        factor = 1.5 * factor - 0.5 * factor**3
    cosine = values @ factor / math.sqrt(values @ values * (factor @ factor))
    return math.sqrt(max(1 - cosine**2, 0))
