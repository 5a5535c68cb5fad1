"""`explain`: the table of the rates, decays and states of all parameters, before training."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import chex
import jax
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh

from adamw_jax._explain.explanation import Explanation
from adamw_jax._explain.inside import abstract, made_by, optimizer_in, state_bytes_of, unpacked
from adamw_jax._explain.matches import plan_warnings, rule_warnings, state_warnings
from adamw_jax._explain.rows import aliases_of, flags_of, growth_factors, rows_of
from adamw_jax._explain.turns import turn_of
from adamw_jax._optimizer.exchanges import exchanges_of
from adamw_jax._optimizer.factors import counts_of
from adamw_jax._optimizer.transferred import Transferred
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._tree import checks
from adamw_jax._tree.paths import leaf_paths
from adamw_jax._tree.stage import structure_of
from adamw_jax._tree.typing import Mask


def _totals(rows: list[dict[str, Any]], paths: tuple[str, ...], of_leaves: int, scalars: int) -> dict[str, Any]:
    decayed = [row for row in rows if (row["l1"] or row["l2"] or row["proximal_l1"]) and row["multiplier"]]
    return {
        "parameters": len(rows),
        "size": sum(row["size"] for row in rows),
        "state_bytes": of_leaves + scalars,
        "scalar_bytes": scalars,
        "decayed": sum(row["size"] for row in decayed),
        "frozen": sum(row["size"] for row in rows if row["multiplier"] == 0),
        "outside": [path for path in paths if path not in {row["path"] for row in rows}],
    }


@contextlib.contextmanager
def _known_numbers() -> Iterator[None]:
    """Say what JAX's error means, where a number of the optimizer is traced."""
    try:
        yield
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            "`tx` must have known numbers to be explained, got a traced one: call it outside of jit"
        ) from error


@_known_numbers()
def explain(
    tx: optax.GradientTransformation | Callable[..., optax.GradientTransformation],
    params: chex.ArrayTree = None,
    *,
    updates: int | None = None,
    updates_per_epoch: float | None = None,
    at: int | None = None,
    scale_invariant: Mask | None = None,
    state: optax.OptState | None = None,
    transferred: Transferred | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    **arguments: Any,
) -> Explanation:
    """Return a table of what every parameter will get, from shapes alone: nothing is allocated.

    Args:
      tx: what `decoupled` or a preset returned; or that function itself, with its `arguments`; or what holds one such
        optimizer: `optax.chain`, `optax.masked`, `optax.MultiSteps`, `optax.inject_hyperparams`, any other wrapper that
        calls the `init` of what is inside; a built Keras optimizer, or a model that is compiled with one.
      params: the parameters, or their shapes (`jax.eval_shape`, `jax.ShapeDtypeStruct`); for Keras its variables, which
        a model has itself.
      updates: length of the run, to find the peak of a schedule that is a plain function; the first 100,000 if None.
      updates_per_epoch: for timescales in epochs.
      at: the table is for the update number `at`, counted from 0; None is for the peaks of the run.
      scale_invariant: which leaves' lengths the loss ignores, as a mask by paths or as `scale_invariant` returns it, to
        be shown in a column, and with it the angle by which an update turns them in equilibrium, where it is known.
      state: the state from which a run goes on, if it does: a warning says where its position is not the schedule's.
      transferred: what `transfer` returned; columns show by what each rate and l2 differ from the small run's.
      mesh: the chips of the run: columns show for every leaf that Muon orthogonalizes where its matrices are whole, and
        what an update takes for it per chip: bytes that collectives return, and operations. Placements are those of
        `params`, or the `shardings` that the direction was given.
      arguments: of the preset.

    Returns:
      A table, see `Explanation`.

    Raises:
      TypeError: no optimizer of this library inside, or several; a leaf that is no array. ValueError, TypeError: as the
        preset's `init`; a count `at` that is outside the run.

    Warns:
      UserWarning: a pattern that decides nothing because an earlier one takes all its paths; a path that several
        parameters have; a schedule whose peak is far from 1; a `state` that was made under another schedule.

    >>> import jax.numpy as jnp
    >>> from adamw_jax._optimizer.presets import adamw
    >>> params = {"kernel": jax.ShapeDtypeStruct((8, 4), jnp.float32), "bias": jax.ShapeDtypeStruct((4,), jnp.float32)}
    >>> print(explain(adamw, params, learning_rate=0.001, weight_decay={"kernel": 0.0001}))
    parameter     shape  dtype    size   rate  decay rule      l2  decay/update  half-life  state bytes
    ---------------------------------------------------------------------------------------------------
    bias          4      float32     4  0.001  -                0             0          -           32
    kernel        8x4    float32    32  0.001  kernel      0.0001        0.0001   6.93e+03          256
    ---------------------------------------------------------------------------------------------------
    2 parameters                    36                                                              300
    at the peak: learning rate 0.001, eta 1; coupling 'schedule', decay times 1, decoupled
    decayed: 32 of 36; frozen: 0; 12 of the state's bytes are scalars
    """
    tx, params = unpacked(tx, params)
    tx = made_by(tx, arguments)
    if params is None:
        raise TypeError("`params` must be given, the parameters or their shapes, got None")
    if updates_per_epoch is not None:
        checks.check_number("updates_per_epoch", updates_per_epoch, low=0, open_low=True)
    shapes, paths = abstract(params), leaf_paths(params)
    plan, trained, state_shapes = optimizer_in(tx, shapes)
    state_bytes, scalar_bytes = state_bytes_of(state_shapes, shapes)
    if at is None:
        factors, counts = plan.run(updates), counts_of(updates)
    else:
        checks.check_count("at", at, low=0)
        if updates is not None and at >= checks.check_count("updates", updates):
            raise ValueError(f"`at` must be below the `updates` of the run, {updates}, got {at}")
        factors, counts = plan.factors(at), np.array([at])
    leaves = plan.leaves(trained)
    its = range(len(paths)) if len(leaves) == len(paths) else [paths.index(leaf.path) for leaf in leaves]
    aliases, every = aliases_of(params), jax.tree.leaves(params)
    arrays = [every[i] for i in its]
    invariant: list[Any] = [None] * len(paths)
    if scale_invariant is not None:
        invariant = list(resolve_mask("scale_invariant", scale_invariant, shapes))
    exchanges: list[Any] = [None] * len(leaves)
    if mesh is not None:
        placed = structure_of(trained).unflatten(arrays)
        exchanges = list(exchanges_of(plan.direction, placed, mesh, axes=plan.axes))
    rows = rows_of(plan, leaves, factors, counts, trained, arrays, updates_per_epoch)
    for row, leaf, i, exchange in zip(rows, leaves, its, exchanges, strict=True):
        row["state_bytes"], row["scale_invariant"] = state_bytes[i], invariant[i]
        row["flags"] = flags_of(row, leaf, aliases[i], updates)
        row["turn"] = turn_of(plan, leaf, row, at)
        row |= growth_factors(transferred, leaf.path)
        row |= dict.fromkeys(("whole", "moved", "operations")) if exchange is None else exchange.row
    peak, eta = float(factors.rate.max()), float(factors.eta.max())
    texts = rule_warnings(plan, trained) + plan_warnings(plan, eta, at, updates) + state_warnings(plan, state)
    for text in texts:
        warnings.warn(text, stacklevel=2)
    summary = {
        "learning_rate": peak / eta if eta else float(factors.alpha.max()),
        "eta": eta,
        "coupling": plan.factor.c.name,
        "norm": float(factors.norm.max()),
        "decay_form": type(plan.form).__name__.lower(),
        "at": at,
    }
    totals = _totals(rows, paths, sum(state_bytes), scalar_bytes)
    return Explanation(rows, totals, summary, texts, plan, leaves)
