"""Slow twins of the library in NumPy float64, written from the papers: one leaf at a time, one update at a time.

Notation: theta a parameter leaf, g_t its gradient at update t = 1, 2, ..., alpha the learning rate, r the leaf's
multiplier, eta_t the schedule's factor, (l1, l2) the leaf's decays. Every function takes the gradients of the whole
run, shape (updates, *leaf), and returns one entry per update.

Sources: Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101), Algorithms 1 and 2 and
appendix B.1 (normalized decay); Loshchilov & Hutter, "SGDR" (arXiv 1608.03983), equation 5; Kingma & Ba, "Adam"
(arXiv 1412.6980), Algorithm 1 and the reordering at the end of its section 2; Reddi et al., "On the Convergence of
Adam and Beyond" (arXiv 1904.09237), Algorithm 2; Dozat, "Incorporating Nesterov Momentum into Adam" (ICLR 2016
workshop), Algorithm 2.
"""

import math
from typing import NamedTuple

import numpy as np


class Position(NamedTuple):
    """Where one update stands in its restart cycle, and the factor it uses."""

    t_cur: int
    period: int
    cycle: int
    eta: float


def adam(gradients, *, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, epsilon_hat=False):
    """Adam's direction: m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; u = (m/c1) / (sqrt(v/c2 + eps_root) + eps).

    c1 = 1 - b1^t, c2 = 1 - b2^t. With epsilon_hat: u = sqrt(c2)/c1 * m / (sqrt(v + c2 eps_root) + eps).
    Source: arXiv 1412.6980, Algorithm 1; epsilon_hat: the more efficient order of the same section.
    """
    m = v = np.zeros_like(np.asarray(gradients[0], np.float64))
    directions = []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        c1, c2 = 1 - b1**t, 1 - b2**t
        if epsilon_hat:
            directions.append(np.sqrt(c2) / c1 * m / (np.sqrt(v + c2 * eps_root) + eps))
        else:
            directions.append((m / c1) / (np.sqrt(v / c2 + eps_root) + eps))
    return directions


def amsgrad(gradients, *, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, epsilon_hat=False, max_of="nu"):
    """AMSGrad's direction: Adam's with v replaced by the largest one so far.

    max_of="nu": w = max(w, v), u = (m/c1) / (sqrt(w/c2 + eps_root) + eps), epsilon_hat as in adam with w for v;
    max_of="nu_hat": w = max(w, v/c2), u = (m/c1) / (sqrt(w + eps_root) + eps).
    Source: arXiv 1904.09237, Algorithm 2; "nu" is torch's and Keras's maximum, "nu_hat" is optax's.
    """
    m = v = w = np.zeros_like(np.asarray(gradients[0], np.float64))
    directions = []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        c1, c2 = 1 - b1**t, 1 - b2**t
        if max_of == "nu_hat":
            w = np.maximum(w, v / c2)
            directions.append((m / c1) / (np.sqrt(w + eps_root) + eps))
            continue
        w = np.maximum(w, v)
        if epsilon_hat:
            directions.append(np.sqrt(c2) / c1 * m / (np.sqrt(w + c2 * eps_root) + eps))
        else:
            directions.append((m / c1) / (np.sqrt(w / c2 + eps_root) + eps))
    return directions


def nadam(gradients, *, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, momentum_decay=0.004, shared_correction=False):
    """NAdam's direction: u = (mu_{t+1} m / (1 - Pi_{t+1}) + (1 - mu_t) g / (1 - Pi_t)) / (sqrt(v/c2 + eps_root) + eps).

    mu_t = b1 (1 - 0.96^(t momentum_decay) / 2), or b1 for momentum_decay=None; Pi_t = mu_1 ... mu_t.
    With shared_correction both terms stand over 1 - Pi_t.
    Source: Dozat 2016, Algorithm 2 and its section on the momentum schedule; None: optax; shared: timm.
    """

    def mu(t):
        return b1 if momentum_decay is None else b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    m = v = np.zeros_like(np.asarray(gradients[0], np.float64))
    product = 1.0
    directions = []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        product = product * mu(t)
        correction_m = 1 - product if shared_correction else 1 - product * mu(t + 1)
        numerator = mu(t + 1) * m / correction_m + (1 - mu(t)) * g / (1 - product)
        directions.append(numerator / (np.sqrt(v / (1 - b2**t) + eps_root) + eps))
    return directions


def nadam_tf_keras(gradients, *, b1=0.9, b2=0.999, eps=1e-7, momentum_decay=0.004):
    """keras-adamw's tf.keras file: mu_t (not mu_{t+1}) before m, and eps inside the root.

    u = ((1 - mu_t) g / (1 - Pi_t) + mu_t m / (1 - Pi_{t+1})) / sqrt(v/c2 + eps).
    Source: keras-adamw 1.38 as measured; its plain Keras file computes Dozat's form.
    """
    m = v = np.zeros_like(np.asarray(gradients[0], np.float64))
    product = 1.0
    directions = []
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        mu_t = b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
        mu_next = b1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
        product = product * mu_t
        numerator = (1 - mu_t) * g / (1 - product) + mu_t * m / (1 - product * mu_next)
        directions.append(numerator / np.sqrt(v / (1 - b2**t) + eps))
    return directions


def momentum_steps(gradients, *, momentum=0.9, nesterov=False):
    """Heavy ball: velocity = momentum * velocity + g; the direction is it, or g + momentum * velocity (Nesterov).

    Source: arXiv 1711.05101, Algorithm 1, line 8, where g is alpha eta_t g_t: pass the scaled gradients for that form
    (Keras's too), the raw ones for torch's and optax's.
    """
    velocity = np.zeros_like(np.asarray(gradients[0], np.float64))
    directions = []
    for g in np.asarray(gradients, np.float64):
        velocity = momentum * velocity + g
        directions.append(g + momentum * velocity if nesterov else velocity)
    return directions


def decays(theta, *, alpha, eta, period, l1, l2, r=1.0, coupling="schedule", normalize=None,
           multiplier_scales_decay=False):  # fmt: skip
    """What the decay takes from theta in one update: f n (l1 sign(theta) + l2 theta).

    f = alpha eta ("learning_rate"), eta ("schedule", the paper's), 1 ("constant"); n = sqrt(1 / T), T the given number
    of updates or the current cycle's ("cycle"), 1 without normalization; times r if asked; nothing where r = 0.
    Source: arXiv 1711.05101, Algorithms 1 and 2 (the underlined term) and appendix B.1.
    """
    if r == 0:
        return np.zeros_like(theta)
    factor = {"learning_rate": alpha * eta, "schedule": eta, "constant": 1.0}[coupling]
    if normalize is not None:
        factor = factor * math.sqrt(1 / (period if normalize == "cycle" else normalize))
    if multiplier_scales_decay:
        factor = factor * r
    return factor * (l1 * np.sign(theta) + l2 * theta)


def descend(theta, steps, *, alphas, etas, periods=None, l1=0.0, l2=0.0, **decay_options):
    """theta_t = theta_{t-1} - step_t - decay(theta_{t-1}), both from the old theta; returns theta_0, theta_1, ...

    alphas, etas, periods have one entry per update; l2 may have.
    """
    l2 = np.broadcast_to(l2, len(steps))
    trajectory = [np.asarray(theta, np.float64)]
    for k, step in enumerate(steps):
        old = trajectory[-1]
        period = None if periods is None else periods[k]
        decay = decays(old, alpha=alphas[k], eta=etas[k], period=period, l1=l1, l2=l2[k], **decay_options)
        trajectory.append(old - step - decay)
    return trajectory


def algorithm_1(theta, gradients, *, alphas, etas, momentum=0.9, nesterov=False, r=1.0, **decay_options):
    """SGDW: m_t = momentum m_{t-1} + eta_t alpha r g_t; theta_t = theta_{t-1} - m_t - decay(theta_{t-1}).

    Source: arXiv 1711.05101, Algorithm 1, lines 8 and 9.
    """
    scaled = [etas[k] * alphas[k] * r * np.asarray(g, np.float64) for k, g in enumerate(gradients)]
    steps = momentum_steps(scaled, momentum=momentum, nesterov=nesterov)
    return descend(theta, steps, alphas=alphas, etas=etas, r=r, **decay_options)


def algorithm_2(theta, directions, *, alphas, etas, r=1.0, **decay_options):
    """AdamW: theta_t = theta_{t-1} - eta_t alpha r d_t - decay(theta_{t-1}).

    Source: arXiv 1711.05101, Algorithm 2, line 12. NAdamW, AMSGradW, and SGDW with torch's velocity (of the raw
    gradients) are the same line with another direction.
    """
    steps = [etas[k] * alphas[k] * r * d for k, d in enumerate(directions)]
    return descend(theta, steps, alphas=alphas, etas=etas, r=r, **decay_options)


def warm_restarts(updates, *, period, t_mult=1, eta_min=0.0, eta_max=1.0, eta_max_decay=1.0, endpoint=True, warmup=0,
                  autorestart=True):  # fmt: skip
    """Cosine annealing with warm restarts, walked one update at a time: the position of updates 0, 1, ...

    eta = eta_max_i w + eta_min (1 - w), w = (1 + cos(pi t_cur / D)) / 2, D = T_i - 1 (endpoint) or T_i;
    eta_max_i = max(eta_max eta_max_decay^i, eta_min); T_{i+1} = max(1, round(T_i t_mult)). A ramp of `warmup` updates
    stands once before the first cycle: w = (k + 1) / (warmup + 1), t_cur = k - warmup.
    Source: arXiv 1608.03983, equation 5, and arXiv 1711.05101, appendix B.2 (endpoint=False); keras-adamw's
    D = T_i - 1 (endpoint=True).
    """
    positions = []
    t_cur, cycle = -warmup, 0
    for _ in range(updates):
        divisor = period - 1 if endpoint else period
        if t_cur < 0:
            w = (t_cur + warmup + 1) / (warmup + 1)
        elif divisor == 0:
            w = 1.0
        else:
            w = (1 + math.cos(math.pi * t_cur / divisor)) / 2
        peak = max(eta_max * eta_max_decay**cycle, eta_min)
        positions.append(Position(t_cur, period, cycle, peak * w + eta_min * (1 - w)))
        t_cur += 1
        if autorestart and t_cur == period:
            t_cur, cycle, period = 0, cycle + 1, max(1, round(period * t_mult))
    return positions


def cautious(direction, gradient):
    """The cautious mask: u * mask / max(mean(mask), 1e-3), mask = (u g > 0). Source: Liang et al., arXiv 2411.16085."""
    mask = direction * gradient > 0
    return direction * mask / max(mask.mean(), 1e-3)


def newton_schulz_by_singular_values(x, triples):
    """U p_k(... p_1(S / |S|)) V^T with p(s) = a s + b s^3 + c s^5: what the iteration does to x = U S V^T."""
    u, s, v = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v
