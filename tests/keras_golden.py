"""The recorded runs of keras-adamw 1.38, and the one loop in NumPy that tells its two NadamW apart."""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden"
PROBLEM = np.load(FOLDER / "problem_P.npz")
NAMES = [name for name, _ in json.loads((FOLDER / "problem_P.json").read_text())["vars"]]
TRACES = {
    trace["id"]: trace
    for trace in json.loads((FOLDER / "index.json").read_text())["traces"]
    if trace["source"].startswith("ka-")
}


def load(trace):
    return np.load(FOLDER / trace["file"])


def within(trace, recorded, step, values):
    """Whether the parameters after `step` updates are those of the trace, as far as it can be compared."""
    for name, value in zip(NAMES, values, strict=True):
        error = np.abs(np.asarray(value, np.float64) - recorded[f"p/{name}"][step])
        if f"stable/{name}" in recorded:
            # A weight under an L1 decay that came within rounding of 0 may step over it or not: not comparable after.
            error = np.where(step <= recorded[f"stable/{name}"], error, 0.0)
        if error.max() > trace["tol"]:
            return False
    return True


def eta(args, step):
    if not args.get("use_cosine_annealing"):
        return 1.0
    t_cur = step % args["total_iterations"]
    return 0.5 * (1 + np.cos(np.pi * t_cur / (args["total_iterations"] - 1)))


def nadamw(args, *, next_mu, epsilon_inside):
    """float64: keras-adamw's NadamW on plain Keras (next_mu) and on tf.keras (not next_mu, epsilon_inside)."""
    psi, epsilon = args.get("schedule_decay", 0.004), args.get("epsilon", 1e-7)
    decays = {key.removesuffix(":0"): value for key, value in args.get("weight_decays", {}).items()}
    n = args.get("total_iterations", 1) ** -0.5
    p = [PROBLEM[f"p0/{name}"].astype(np.float64) for name in NAMES]
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    product = 1.0
    for step in range(72):
        t = step + 1
        mu, mu_next = (0.9 * (1 - 0.5 * 0.96 ** (psi * k)) for k in (t, t + 1))
        product *= mu
        for i, name in enumerate(NAMES):
            g = PROBLEM[f"g/{name}"][step].astype(np.float64)
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            v_hat = v[i] / (1 - 0.999**t)
            root = np.sqrt(v_hat + epsilon) if epsilon_inside else np.sqrt(v_hat) + epsilon
            direction = (1 - mu) * g / (1 - product) + (mu_next if next_mu else mu) * m[i] / (1 - product * mu_next)
            r = next((r for key, r in (args.get("lr_multipliers") or {}).items() if key in name), 1.0)
            l1, l2 = decays.get(name, (0.0, 0.0))
            decay = n * (l1 * np.sign(p[i]) + l2 * p[i])
            p[i] = p[i] - eta(args, step) * (args["learning_rate"] * r * direction / root + decay)
        yield p
