"""Slow twins of the decay family in NumPy float64: one leaf at a time, one update at a time, from the papers.

theta a parameter leaf, g_t its gradient at update t = 1, 2, ..., alpha the learning rate, eta_t the schedule's factor.
Every function takes the gradients of the run, shape (updates, *leaf), and the factors eta, shape (updates,), and
returns theta after every update.
"""

import numpy as np


def adam_directions(gradients, b1=0.9, b2=0.999, eps=1e-8):
    """Adam's direction (arXiv 1412.6980, Algorithm 1): m_hat / (sqrt(v_hat) + eps)."""
    m = v = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        yield (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def momentum_steps(gradients, factors, momentum=0.9):
    """SGDW's velocity (arXiv 1711.05101, Algorithm 1, line 8): v = momentum v + alpha eta_t g."""
    v = np.zeros_like(gradients[0])
    for g, factor in zip(gradients, factors, strict=True):
        v = momentum * v + factor * g
        yield v


def corrected(theta, gradients, eta, *, alpha, l2, peak, normalized):
    """AdamC (arXiv 2506.02285): decay (alpha eta_t)^2 / peak lambda theta if normalized, else as AdamW."""
    out = []
    for d, rate in zip(adam_directions(gradients), alpha * np.asarray(eta), strict=True):
        theta = theta - rate * d - (rate**2 / peak if normalized else rate) * l2 * theta
        out.append(theta)
    return out


def cautious(theta, gradients, eta, *, alpha, l1, l2):
    """Cautious decay (arXiv 2510.12402) coupled to eta_t: alpha d + 1[d theta >= 0] decay."""
    out = []
    for d, factor in zip(adam_directions(gradients), eta, strict=True):
        mask = ((d >= 0) & (theta >= 0)) | ((d <= 0) & (theta <= 0))
        theta = theta - factor * (alpha * d + mask * (l1 * np.sign(theta) + l2 * theta))
        out.append(theta)
    return out


def cautious_momentum(theta, gradients, eta, *, alpha, l2):
    """Cautious decay on SGDW: the velocity is the direction; it is not part of what the decay is multiplied by."""
    out = []
    for v, factor in zip(momentum_steps(gradients, alpha * np.asarray(eta)), eta, strict=True):
        mask = ((v >= 0) & (theta >= 0)) | ((v <= 0) & (theta <= 0))
        theta = theta - v - factor * mask * l2 * theta
        out.append(theta)
    return out


def huber(theta, gradients, eta, *, alpha, l2, delta):
    """Decay by the gradient of Huber's penalty: l2 theta up to |theta| = delta, l2 delta sign(theta) beyond."""
    out = []
    for d, factor in zip(adam_directions(gradients), eta, strict=True):
        pull = np.where(np.abs(theta) <= delta, theta, delta * np.sign(theta))
        theta = theta - factor * (alpha * d + l2 * pull)
        out.append(theta)
    return out


def anchored(theta, gradients, eta, *, alpha, l1, l2, anchor):
    """L2-SP (arXiv 1802.01483): the decay of theta - theta_0."""
    out = []
    for d, factor in zip(adam_directions(gradients), eta, strict=True):
        away = theta - anchor
        theta = theta - factor * (alpha * d + l1 * np.sign(away) + l2 * away)
        out.append(theta)
    return out


def proximal(theta, gradients, eta, *, alpha, l1, l2):
    """The step with its l2 decay, then the proximal operator of eta_t l1 |theta|: a soft threshold."""
    out = []
    for d, factor in zip(adam_directions(gradients), eta, strict=True):
        theta = theta - factor * (alpha * d + l2 * theta)
        theta = np.where(
            theta > factor * l1, theta - factor * l1, np.where(theta < -factor * l1, theta + factor * l1, 0)
        )
        out.append(theta)
    return out
