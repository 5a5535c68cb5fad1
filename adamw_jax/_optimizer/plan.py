"""The options of an optimizer, and what follows from them for every leaf and for every update."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax._decay.decay import decays_of
from adamw_jax._decay.factor import DecayFactor
from adamw_jax._decay.forms import Decoupled
from adamw_jax._decay.held import Held, Norms, norm_rules
from adamw_jax._decay.proximal import thresholds_of
from adamw_jax._direction.by_path import direction_per_leaf
from adamw_jax._direction.direction import About, about
from adamw_jax._optimizer.factors import Factors, factors_of, factors_of_run
from adamw_jax._rates.restarts import WarmRestarts
from adamw_jax._rates.shapes import Named
from adamw_jax._rules.freezing import frozen_flags
from adamw_jax._rules.leaf import Leaf, leaves_of
from adamw_jax._rules.multipliers import multipliers_of
from adamw_jax._rules.values import Resolved, check_decay, check_multiplier, check_rules, is_zero
from adamw_jax._tree.typing import Directions, Mask, Rules, Scalar, ScalarOrSchedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeafPlan(Leaf):
    """A leaf with what an optimizer gives to it. A value is a number or a schedule count -> number.

    Attributes:
      dtype: of the parameter.
      about: facts about its direction.
      multiplier: r.
      l1, l2: of the decay.
      threshold: l1 of the soft threshold.
      frozen: whether it is not trained and has no moments.
      held: whether its norm is held.
      norm: the rule for its norm as text, "held per matrix"; None without one.
      normalized: whether its decay follows the coupling of layers that a normalization follows, see `Corrected`.
    """

    dtype: Any
    about: About
    multiplier: ScalarOrSchedule
    l1: ScalarOrSchedule
    l2: ScalarOrSchedule
    threshold: ScalarOrSchedule
    frozen: bool
    held: bool
    norm: str | None
    normalized: bool

    @property
    def direction(self) -> str:
        """The name of its direction."""
        return self.about.name


Wrappers = tuple[tuple[str, dict[str, Any]], ...]
"""((name, options), ...)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The options of an optimizer, documented at `decoupled`, checked against each other.

    `around` are the wrappers that `explain` found around it, the outermost first.
    """

    direction: Directions
    learning_rate: ScalarOrSchedule
    weight_decay: Rules
    form: Decoupled
    factor: DecayFactor
    proximal_l1: Rules | None
    lr_multipliers: Rules | None
    schedule: ScalarOrSchedule | None
    freeze: Mask | None
    hold_norm: Norms | None
    axes: Any
    round_params: bool
    accumulate: str
    around: Wrappers = ()

    def __post_init__(self) -> None:
        check_rules("weight_decay", self.weight_decay, check_decay)
        check_rules("proximal_l1", self.proximal_l1, check_multiplier)
        check_rules("lr_multipliers", self.lr_multipliers, check_multiplier)
        if isinstance(self.learning_rate, Named):
            raise ValueError(
                "`learning_rate` must be the peak, a number, with a schedule of factors, whose peak is 1, got "
                f"{self.learning_rate!r}: write learning_rate=peak, schedule={self.learning_rate!r}"
            )
        if self.factor.normalize_decay == "cycle" and not isinstance(self.schedule, WarmRestarts):
            raise ValueError(
                "`normalize_decay` must not be 'cycle' unless `schedule` is from cosine_warm_restarts, "
                f"got schedule={self.schedule!r}"
            )
        only_eta = self.factor.c.needs_eta and not self.factor.c.needs_alpha
        if callable(self.learning_rate) and only_eta and not (is_zero(self.weight_decay) and is_zero(self.proximal_l1)):
            raise ValueError(
                "`learning_rate` must be a number with a decay and coupling='schedule', for only its peak could say "
                f"how much of it is eta, got {self.learning_rate!r}: write learning_rate=peak, schedule=lambda count: "
                "rate(count) / peak to schedule the decay with the step, or coupling='learning_rate' to multiply the "
                "decay by the rate as optax does"
            )

    def resolved(self, tree: chex.ArrayTree) -> "Plan":
        """Return the plan for one tree, with every rule as the values that it gives to the leaves.

        A traced value among them belongs to the current trace: a resolved plan is used at once, and not kept.

        Raises:
          ValueError, TypeError: rules that do not fit the tree.
        """
        r = None if self.lr_multipliers is None else Resolved(multipliers_of(self.lr_multipliers, tree, self.axes))
        l1 = None if self.proximal_l1 is None else Resolved(thresholds_of(self.proximal_l1, tree, self.axes))
        frozen, factor = frozen_flags(self.freeze, tree), self.factor
        multipliers = None if factor.multipliers is None else r
        return dataclasses.replace(
            self,
            form=self.form.beside(frozen),
            factor=dataclasses.replace(factor, coupling=factor.c.resolved(tree), multipliers=multipliers),
            weight_decay=Resolved(decays_of(self.weight_decay, tree, self.axes)),
            proximal_l1=l1,
            lr_multipliers=r,
            freeze=None if self.freeze is None else Resolved(frozen),
            hold_norm=None if self.hold_norm is None else Resolved(norm_rules(self.hold_norm, tree)),
        )

    def leaves(self, params: chex.ArrayTree) -> list[LeafPlan]:
        """Return what every leaf gets, in the order of `jax.tree.leaves`.

        Args:
          params: the parameters, or their shapes.

        Raises:
          ValueError, TypeError: rules that do not fit the parameters.
        """
        plan = self.resolved(params)
        columns = zip(
            leaves_of(params, self.axes),
            jax.tree.leaves(params),
            map(about, direction_per_leaf(self.direction, params)),
            multipliers_of(plan.lr_multipliers, params),
            decays_of(plan.weight_decay, params),
            thresholds_of(plan.proximal_l1, params),
            frozen_flags(plan.freeze, params),
            norm_rules(plan.hold_norm, params),
            plan.factor.c.flags(params),
            strict=True,
        )
        return [
            LeafPlan(
                **vars(leaf),
                dtype=jnp.result_type(array),
                about=facts,
                multiplier=r,
                l1=l1,
                l2=l2,
                threshold=threshold,
                frozen=frozen,
                held=isinstance(rule, Held),
                norm=None if rule is None else rule.text,
                normalized=normalized,
            )
            for leaf, array, facts, r, (l1, l2), threshold, frozen, rule, normalized in columns
        ]

    def factors(self, counts: Any) -> Factors:
        """Return alpha, eta, T_i and c n of the updates that some counts precede.

        Args:
          counts: an array of integers >= 0, or one of them.
        """
        return factors_of(self.learning_rate, self.schedule, self.factor, np.atleast_1d(np.asarray(counts, np.int64)))

    def run(self, updates: Scalar | None = None) -> Factors:
        """Return the factors at counts of a run among which each has its peak.

        Args:
          updates: length of the run; None looks at the first 100,000.
        """
        return factors_of_run(self.learning_rate, self.schedule, self.factor, updates)
