"""`transfer`: what the numbers of a tuned small run become for a large one."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import chex
import jax

from adamw_jax._decay.coupling import Corrected
from adamw_jax._direction.by_path import direction_per_leaf
from adamw_jax._direction.direction import about
from adamw_jax._optimizer.transfer_notes import notes_of
from adamw_jax._optimizer.transfer_numbers import scaled, transferred_numbers
from adamw_jax._optimizer.transferred import Case, Transferred
from adamw_jax._rates.lengths import check_length
from adamw_jax._rules.growth import growth_of
from adamw_jax._rules.scaling import LIKE, Growth, Rule
from adamw_jax._rules.scaling_tables import rule_of
from adamw_jax._rules.values import resolve_rules
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Scalar

KINDS = {
    "muon": ("muon", "orthogonalize"),
    "adam": ("adam", "lion", "sign", "amsgrad", "adan", "belief", "yogi", "rms"),
    "momentum": ("momentum", "trace", "identity"),
}
"""Kinds of directions -> what the names of the functions that make them contain; the first decides."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The size of a run, for `transfer`.

    Attributes:
      params: the parameters, or their shapes (`jax.eval_shape`).
      updates: of the run, > 0.
      batch: examples or tokens per update, > 0, in one unit for both runs.
      depth: residual blocks, > 0; None where both runs have as many and the rule asks for none.

    Raises:
      ValueError, TypeError: a number out of range or of another kind.

    >>> Run({"w": jax.ShapeDtypeStruct((4, 8), "float32")}, updates=1000, batch=32).tokens
    32000
    """

    params: chex.ArrayTree
    updates: Scalar
    batch: Scalar
    depth: Scalar | None = None

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "depth"):
            if name != "depth" or self.depth is not None:
                checks.check_number(name, getattr(self, name), low=0, open_low=True)
        checks.check_arrays("params", self.params)

    @property
    def tokens(self) -> Scalar:
        """The examples or tokens of the run."""
        tokens: Scalar = self.updates * self.batch
        return tokens


def _growth(rule: Rule, base: Run, target: Run) -> Growth:
    for name, run in (("base", base), ("target", target)):
        if not isinstance(run, Run):
            raise TypeError(f"`{name}` must be a Run(params, updates, batch, depth), got {run!r}")
        if run.depth is None and (rule.needs_depth or (base.depth, target.depth) != (None, None)):
            raise ValueError(
                f"`depth` must be given to Run for both runs, the number of residual blocks, with rule={rule.name!r}, "
                f"got None in `{name}`"
            )
    depth = 1.0 if target.depth is None or base.depth is None else target.depth / base.depth
    return Growth(depth, target.batch / base.batch, target.tokens / base.tokens)


def _kinds(direction: Any, options: Mapping[str, Any], params: chex.ArrayTree) -> list[str]:
    """Return "adam", "muon" or "momentum" for every leaf."""
    if direction is not None:
        rules = {"": direction} if isinstance(direction, str) else direction
        check = functools.partial(checks.check_choice, choices=LIKE)
        return resolve_rules("direction", rules, params, check, "adam", lambda value: isinstance(value, str))
    if "direction" not in options:
        return ["momentum" if "momentum" in options else "adam"] * len(jax.tree.leaves(params))
    found = []
    for name in (about(each).name for each in direction_per_leaf(options["direction"], params)):
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), None)
        if kind is None:
            raise ValueError(
                f"`direction` must tell of what kind a direction is, one of {', '.join(map(repr, LIKE))}, where its "
                f"name does not, got {name!r}: transfer(..., direction='adam') or direction={{pattern: kind}}"
            )
        found.append(kind)
    return found


def _check_options(options: Any) -> None:
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise TypeError(f"`options` must be a mapping of a preset's options, got {options!r}")
    if "learning_rate" not in options:
        raise ValueError(f"`options` must have a 'learning_rate', got {sorted(options)}")
    if not callable(options["learning_rate"]):
        checks.check_non_negative("learning_rate", options["learning_rate"])


def transfer(
    options: Mapping[str, Any],
    base: Run,
    target: Run,
    *,
    rule: str | Rule = "default",
    direction: Any = None,
    axes: Any = None,
) -> Transferred:
    """Return the options of a large run from those of a tuned small one.

        number of the target = number of the base * m_N^a m_L^b m_B^c m_D^d

    with the growths of a leaf's inputs, of the depth, the batch and the tokens, and the exponents of a rule. They are
    those of the paper's form of the decay; an option that is multiplied by something else, as with
    coupling="learning_rate", becomes what makes its product follow the rule.

    Args:
      options: those of a preset, or of `decoupled` with its `direction`, as they were tuned; but a schedule with a
        number of updates in it is to be the large run's.
      base, target: `Run(params, updates, batch, depth)` of the small run and of the large one.
      rule: "default", what this library's study supports; or "completed" (arXiv 2512.22382), "completep" (2505.01618),
        "mup" (2203.03466), "timescale" (2405.13698, the decay alone), "sqrt_width" (2510.15262), "hyperball"
        (2603.28743, for held norms), or a `Rule(...)`.
      direction: "adam", "muon" or "momentum", what a step's size is like, or {pattern: kind}; None: by the options'
        `direction` or `momentum`, else "adam".
      axes: which axes of kernels are inputs, where names do not tell: {pattern: letters}, as {"blocks/": "sio"} for
        stacked layers and {"": "oi"} for weights (outputs, inputs); None: the options' own `axes`.

    Returns:
      The options as a dict, for `adamw(**transferred)`; with `.table()`, one row per role and per leaf, and `.notes`,
        what the model and the schedule must do. Rates that differ by leaf are `lr_multipliers`, multiplied with
        those given; decays and eps that differ are trees of values. What stands inside a `direction` is for the caller
        to set: the table has the factors.

    Raises:
      ValueError, TypeError: parameters that do not correspond, a depth that the rule needs, a matrix whose inputs are
        not known, 1 - b1 that would be 1 or more, a schedule of another number of updates.

    Warns:
      UserWarning: 1 - b1 or 1 - b2 of 0.5 or more.

    Source: see `rule`. In the study of docs/evidence/transfer.md, of a character transformer, runs by the default rule
    were within 0.01 nats of their own best pair of rate and decay, those with the base's numbers 0.03 to 0.41 above it
    (level for more tokens alone).

    >>> import jax.numpy as jnp
    >>> def shapes(width):
    ...     return jax.eval_shape(lambda: {"kernel": jnp.ones((width, width)), "bias": jnp.ones(width)})
    >>> small, large = Run(shapes(8), updates=1000, batch=32), Run(shapes(16), updates=2000, batch=64)
    >>> transferred = transfer({"learning_rate": 0.01, "weight_decay": 0.001}, small, large)
    >>> transferred["lr_multipliers"], transferred["weight_decay"], round(transferred["b1"], 3)
    ({'bias': 1.0, 'kernel': 0.5}, 0.001, 0.8)
    """
    _check_options(options)
    rule = rule_of(rule)
    growth = _growth(rule, base, target)
    for name in ("schedule", "learning_rate"):
        check_length(name, options.get(name), base.updates, target.updates)
    axes = options.get("axes") if axes is None else axes
    leaves = growth_of(base.params, target.params, axes, deeper=not checks.equals(growth.depth, 1))
    for each in leaves:
        if each.stack != 1 and base.depth is None:
            raise ValueError(
                f"`depth` must be given to Run for both runs where a stack of layers grows, got {each.leaf.path!r} "
                f"with {each.stack:g} times as many"
            )
    case = Case(options, rule, growth, leaves, _kinds(direction, options, target.params), base.params, target.params)
    found, entries = transferred_numbers(case)
    normalize, coupling = options.get("normalize_decay"), options.get("coupling")
    if normalize is not None and not isinstance(normalize, str):
        found["normalize_decay"] = scaled(normalize, target.updates / base.updates)
    if isinstance(coupling, Corrected) and coupling.peak is not None:
        factor = growth.factor(entries[0].exponents)
        found["coupling"] = dataclasses.replace(coupling, peak=scaled(coupling.peak, factor))
    return Transferred(found, case, entries, notes_of(case, target.updates))
