"""Slow float64 twin of steps on a sphere."""

import numpy as np


def hyperball(theta, gradients, rates, direction="adam", momentum=0.5):
    """theta <- R normalize(theta - a R normalize(d)), R = |theta| at the start: the parameters after each update.

    d is Adam's direction (b1 = 0.9, b2 = 0.999, eps = 1e-8), or the velocity of the steps a g, as in SGDW.
    Source: arXiv 2606.16899.
    """
    radius, rows = np.linalg.norm(theta), []
    m = v = np.zeros_like(theta)
    for t, (g, a) in enumerate(zip(gradients, rates, strict=True), start=1):
        if direction == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            d = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        else:
            m = d = momentum * m + a * g
        theta = theta - a * radius * d / np.linalg.norm(d)
        theta = radius * theta / np.linalg.norm(theta)
        rows.append(theta)
    return rows


def braked(theta, u, outward):
    """theta - u, in its direction, of the length |theta| + outward (|theta - u| - |theta|) where that is longer."""
    after = theta - u
    before, asked = np.linalg.norm(theta), np.linalg.norm(after)
    return after if asked <= before else after / asked * (before + outward * (asked - before))


def floored(theta, u, ratio):
    """theta - u, with a u that is as long as ratio |theta| at least."""
    length = np.linalg.norm(u)
    return theta - u * max(1.0, ratio * np.linalg.norm(theta) / length) if length else theta
