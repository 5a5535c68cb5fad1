"""Schedules and training histories as curves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from adamw_jax._explain.explain import explain
from adamw_jax._optimizer.factors import Factors, restarts_of, values_at
from adamw_jax._optimizer.plan import LeafPlan, Plan
from adamw_jax._tree import checks

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, whose colours differ for color-blind readers; line styles differ as well."""

STYLES = ("-", "--", ":", "-.")


def _style(index: int) -> dict[str, str]:
    return {"color": COLORS[index % len(COLORS)], "linestyle": STYLES[index % len(STYLES)]}


def _mark(ax: Any, restarts: Sequence[int]) -> None:
    for index, count in enumerate(restarts):
        ax.axvline(count, color="0.6", linewidth=0.8, zorder=0, label="restart" if index == 0 else None)


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return one row of `explain` per group of parameters that are treated alike, by a label."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        moving = (row["rate_rule"], row["decay_rule"]) if row["moves"] else ()
        groups.setdefault((row["multiplier"], row["decay"], row["corrected"], moving), []).append(row)

    def label(alike: Sequence[Mapping[str, Any]]) -> str:
        rules = [rule for key in ("rate_rule", "decay_rule") if (rule := alike[0][key]) not in (None, "all")]
        names = " + ".join(dict.fromkeys(rules))
        if names:
            return f"{names} ({len(alike)} parameters)" if len(alike) > 1 else names
        return str(alike[0]["path"]) + (f" and {len(alike) - 1} more" if len(alike) > 1 else "")

    labelled: dict[str, Mapping[str, Any]] = {}
    for alike in groups.values():
        name = label(alike)
        labelled[f"{name} ({alike[0]['path']})" if name in labelled else name] = alike[0]
    return labelled


def _over_time(plan: Plan, leaf: LeafPlan, factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    """Return the effective rate alpha eta r and the effective decay c n r' l2 of a leaf at every count."""
    r = values_at(leaf.multiplier, factors.counts) * (not leaf.frozen)
    share = factors.decay(leaf.normalized) * values_at(leaf.l2, factors.counts)
    return factors.rate * r, share * (r if plan.factor.multipliers is not None else r > 0)


def schedule(
    of: Callable[[chex.Numeric], chex.Array] | optax.GradientTransformation,
    updates: int,
    params: chex.ArrayTree | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw what a schedule, or all factors of a preset, are over a run.

    Args:
      of: a function of the count (`cosine_warm_restarts`, `linear_warmup`, optax's schedules): its factor is drawn;
        or what `explain` takes as its `tx`: then eta, the effective rate alpha eta r, and the effective decay
        (share of a weight taken away per update) of every group of parameters that are treated alike.
      updates: length of the run, >= 1.
      params: the parameters or their shapes; needed for a preset, and only there.
      ax: where to draw; three of them for a preset; None makes a figure.

    Returns:
      The matplotlib axes, in an array of three for a preset. Restarts are vertical lines.

    Raises:
      TypeError, ValueError: an argument of another kind or out of range, parameters missing or superfluous.

    >>> import optax
    >>> ax = schedule(optax.linear_schedule(1.0, 0.0, 10), 10)
    >>> print(ax.get_xlabel(), "-", ax.get_ylabel())
    update - factor
    """
    updates = int(checks.check_count("updates", updates))
    counts = np.arange(updates)
    if not any(hasattr(of, name) for name in ("update", "optimizer", "as_optax")):
        if not callable(of):
            raise TypeError(f"`of` must be a schedule or what a preset returned, got {of!r}")
        if params is not None:
            raise ValueError("`params` must not be given with a schedule: it treats all parameters alike")
        ax = plt.subplots(layout="constrained")[1] if ax is None else ax
        ax.plot(counts, np.asarray(jax.vmap(of)(jnp.arange(updates))), **_style(0))
        _mark(ax, restarts_of(of, updates))
        ax.set(xlabel="update", ylabel="factor")
        return ax
    if params is None and hasattr(of, "update"):
        raise ValueError("`params` must be given with a preset, got None")
    if ax is None:
        _, ax = plt.subplots(3, sharex=True, figsize=(6.4, 6.4), layout="constrained")
    if np.shape(ax) != (3,):
        raise ValueError(f"`ax` must be three axes for a preset, got {ax!r}")
    try:
        table = explain(of, params, updates=updates)
    except TypeError as error:
        kind = type(of).__name__
        raise TypeError(f"`of` must be a schedule or what a preset returned, got {kind}: {error}") from error
    plan, leaves = table.plan, {leaf.path: leaf for leaf in table.leaves}
    factors = plan.factors(counts)
    ax[0].plot(counts, factors.eta, **_style(0))
    for index, (label, row) in enumerate(_groups(table.rows).items()):
        rate, decay = _over_time(plan, leaves[row["path"]], factors)
        ax[1].plot(counts, rate, label=label, **_style(index))
        ax[2].plot(counts, decay, label=label, **_style(index))
    titles = ("eta", "learning rate\nalpha eta r", "decay per update\n(share of a weight)")
    for each, title in zip(ax, titles, strict=True):
        _mark(each, restarts_of(plan.schedule, updates))
        each.set_ylabel(title)
    # Beside the axes, for inside they would cover a curve.
    ax[1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax[2].set_xlabel("update")
    return ax


def history(
    values: Any,
    *,
    xlabel: str = "epoch",
    ylabel: str = "loss",
    log: bool = False,
    first: int = 1,
    step: int = 1,
    ax: Any = None,
) -> Any:
    """Draw training histories over one another.

    Args:
      values: {name: numbers}, one number per epoch (or update); or what `keras.Model.fit` returned. An array of two
        axes, (runs, epochs), is drawn as its mean with a band of one standard deviation.
      xlabel, ylabel: labels of the axes, with units.
      log: logarithmic vertical axis.
      first, step: number of the first epoch, and from one to the next.
      ax: where to draw; None makes a figure.

    Returns:
      The matplotlib axes.

    Raises:
      TypeError, ValueError: no histories, or one that is no array of numbers with one or two axes.

    >>> ax = history({"adamw": [1.0, 0.5, 0.25]}, log=True)
    >>> print(ax.get_lines()[0].get_xdata())
    [1 2 3]
    """
    values = getattr(values, "history", values)
    if not isinstance(values, Mapping) or not values:
        raise TypeError(f"`values` must be {{name: numbers}} with a name at least, or Keras's History, got {values!r}")
    checks.check_flag("log", log)
    arrays = {name: np.asarray(numbers) for name, numbers in values.items()}
    for name, numbers in arrays.items():
        if numbers.ndim not in (1, 2) or numbers.size == 0 or not np.issubdtype(numbers.dtype, np.number):
            raise ValueError(f"`values[{name!r}]` must be numbers in one or two axes, got {values[name]!r}")
    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    for index, (name, numbers) in enumerate(arrays.items()):
        x, mean = first + step * np.arange(numbers.shape[-1]), np.atleast_2d(numbers).mean(axis=0)
        ax.plot(x, mean, label=name, **_style(index))
        if numbers.ndim == 2:
            spread = numbers.std(axis=0)
            ax.fill_between(x, mean - spread, mean + spread, color=COLORS[index % len(COLORS)], alpha=0.2, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    ax.legend()
    return ax
