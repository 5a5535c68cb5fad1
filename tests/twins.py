"""Runs of a recipe by the slow twins of tests/reference.py, leaf by leaf, in NumPy alone."""

import numpy as np

from tests import reference
from tests.golden_recipes import value_for


def twin(recipe, params, gradients, etas, periods=None):
    """The trajectories {path: parameters of 0 .. steps}, with the factor (and period) of each update given."""
    trajectory = {}
    for path, theta in params.items():
        g, r = gradients[path], value_for(recipe.lr_multipliers, path, 1.0)
        decay = value_for(recipe.weight_decay, path, 0.0)
        l1, l2 = decay if isinstance(decay, tuple) else (0.0, decay)
        options = {"alphas": recipe.learning_rate, "etas": etas, "periods": periods, "r": r, "l1": l1,
                   "l2": l2 * np.asarray(etas) if recipe.corrected else l2, "coupling": recipe.coupling,
                   "normalize": recipe.normalize,
                   "multiplier_scales_decay": recipe.multiplier_scales_decay}  # fmt: skip
        if recipe.direction == "momentum" and recipe.rate_in_velocity:
            trajectory[path] = reference.algorithm_1(theta, g, **recipe.options, **options)
            continue
        name = "momentum_steps" if recipe.direction == "momentum" else recipe.direction
        directions = getattr(reference, name)(g, **recipe.options)
        if recipe.cautious:
            directions = [reference.cautious(u, x) for u, x in zip(directions, g, strict=True)]
        trajectory[path] = reference.algorithm_2(theta, directions, **options)
    return {path: np.stack(values) for path, values in trajectory.items()}


def factors_of_pieces(pieces, steps):
    """The factors of updates 0, 1, ..., steps - 1 from a recipe's schedule."""
    parts = [factors_of_piece(piece, piece.length or steps) for piece in pieces]
    return np.concatenate(parts)[:steps]


def factors_of_piece(piece, steps):
    counts = np.arange(steps) + piece.shift
    options = dict(piece.options)
    if piece.kind == "cosine":
        factors = np.array([position.eta for position in reference.warm_restarts(counts[-1] + 1, **options)])[counts]
    elif piece.kind == "fractional":
        factors = fractional_restarts(counts, **options)
    elif piece.kind == "linear":
        factors = options["init"] + (options["peak"] - options["init"]) * counts / options["steps"]
    else:
        factors = np.full(steps, options["value"])
    return piece.offset + piece.scale * factors


def fractional_restarts(counts, period, t_mult, eta_min=0.0, eta_max_decay=1.0):
    """Cosine restarts whose period T_0 t_mult^i is not rounded."""
    factors, start, cycle = [], 0.0, 0
    for count in counts:
        while count >= start + period * t_mult**cycle:
            start, cycle = start + period * t_mult**cycle, cycle + 1
        w = (1 + np.cos(np.pi * (count - start) / (period * t_mult**cycle))) / 2
        factors.append(eta_max_decay**cycle * w + eta_min * (1 - w))
    return np.array(factors)


def keras_adamw_positions(steps, args, actions):
    """keras-adamw's t_cur and eta of each update: eta is computed after the update that moves t_cur, so first eta_t.

    t_cur <- 0 if autorestart and t_cur = T - 1, else t_cur + 1; then eta = eta_min + (eta_max - eta_min)
    (1 + cos(pi t_cur / (T - 1))) / 2 if annealed. Nothing of it with T <= 1. Source: keras-adamw 1.38 as measured.
    """
    period, annealed = args.get("total_iterations", 0), args.get("use_cosine_annealing", False)
    restarts = args.get("autorestart", annealed)
    eta_min, eta_max = args.get("eta_min", 0.0), args.get("eta_max", 1.0)
    t_cur, eta = args.get("t_cur", 0), args.get("eta_t", 1.0)
    positions = []
    for step in range(steps):
        for at, name, value in actions:
            if at == step and name == "t_cur":
                t_cur = value
        positions.append((t_cur, eta))
        t_cur = 0 if restarts and period > 1 and t_cur == period - 1 else t_cur + 1
        if annealed and period > 1:
            eta = eta_min + (eta_max - eta_min) * (1 + np.cos(np.pi * t_cur / (period - 1))) / 2
    return np.array([t for t, _ in positions]), np.array([e for _, e in positions])
