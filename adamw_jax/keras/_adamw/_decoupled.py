"""What AdamW, NadamW and SGDW share: keras-adamw's arguments, translated onto the presets' options."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import keras
import optax

from adamw_jax._decay.factor import normalization
from adamw_jax._rates.position import Cycles
from adamw_jax._tree import checks
from adamw_jax._tree.width import as_scalar
from adamw_jax.keras._adamw._attributes import Hyperparameters, ReadableOptimizer
from adamw_jax.keras._adamw._by_name import check_kind, decays_something
from adamw_jax.keras._adamw._options import SHARED, checked_options
from adamw_jax.keras._adamw._penalties import decay_of
from adamw_jax.keras._adamw._rules import WeightRules
from adamw_jax.keras._adamw._schedule import SettableCosine, SettableFactor, settable_cosine
from adamw_jax.keras._hyperparameters import add_hyperparameter, position
from adamw_jax.keras._slots import scalars_named
from adamw_jax.keras._weights import Weights
from adamw_jax.keras._written import read


class DecoupledOptimizer(ReadableOptimizer):
    """The base of the three classes: theta <- theta - eta_t (lr r d + n (l1 sign(theta) + l2 theta)), n = sqrt(1 / T).

    Every argument can be read as an attribute. `learning_rate` (also `lr`), `t_cur`, `eta_t`, `eta_min` and `eta_max`
    can be set at any time, `total_iterations` for the cycles that begin afterwards; the others refuse.

    Args:
      learning_rate: lr: a number, a Keras schedule or a callable. It does not scale the decay (see `coupling`).
      own: the options of the class, {keras name: value}.
      lr: another name for learning_rate, which wins.
      decay: divides the rate by 1 + decay * iterations; 0.0 for none.
      model: a `keras.Model` whose l1, l2 and l1_l2 penalties become the decays (read when the model is built), and
        which tells the names of functional models inside it.
      zero_penalties: whether the penalties of `model` are zeroed in the loss.
      weight_decays: {key: (l1, l2)}, where a key is a layer, or a weight's path, or names of layers, or of layers and a
        weight ("lstm_1/kernel"), or a pattern found in paths, whichever of these it is first, and the first key that
        means a weight decides; or one pair per trainable variable, in their order. An update takes n times them off.
      lr_multipliers: {key: r}, where a key is part of a path, or a layer, or the name of one that `model` has; the
        first decides; or one number per trainable variable. A value here and in `weight_decays` may be a Keras schedule
        or a function count -> number.
      total_iterations: T, updates in the first cycle. With T <= 1 there is neither decay nor annealing; decays without
        T are an error.
      total_iterations_wd: updates to normalize the decay over, instead of T.
      use_cosine_annealing: whether eta_t follows a cosine from eta_max down to eta_min over T updates.
      autorestart: whether the next cycle begins after T updates; None means `use_cosine_annealing`.
      eta_min: smallest factor, >= 0.
      eta_max: largest factor, >= eta_min.
      t_cur: position of the first update in the cycle, an integer.
      eta_t: factor of the first update; None for the schedule's own at t_cur.
      t_mult: ratio of the lengths of consecutive cycles.
      coupling: what multiplies the decay: "schedule" (eta_t), "learning_rate" (lr eta_t) or "constant" (nothing).
      moment_dtype: how the moments are stored: "packed", "packed8", "bfloat16" or a wider dtype; None means the
        variable's, or float32 if that is wider.
      init_verbose: whether to print a table of what each weight gets, when the optimizer is built.
      **kwargs: arguments of `keras.optimizers.Optimizer`, except `weight_decay`.

    Raises:
      ValueError, TypeError: a number outside its range or of another kind, decays without `total_iterations`,
        `autorestart` without annealing; at `build`, a key that means no weight, or a sequence of another length than
        the trainable variables; an attribute that cannot be set.
    """

    def __init__(
        self,
        learning_rate: Any,
        own: Mapping[str, Any],
        *,
        lr: Any = None,
        model: Any = None,
        weight_decays: Mapping[str, Any] | Sequence[Any] | None = None,
        lr_multipliers: Mapping[str, float] | Sequence[float] | None = None,
        eta_min: float = 0.0,
        eta_max: float = 1.0,
        t_cur: int = 0,
        eta_t: float | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(learning_rate, keras.Model):
            raise TypeError("`learning_rate` must be a rate, not a model: pass the model as `model=model`")
        if kwargs.get("weight_decay") is not None:
            raise ValueError("`weight_decay` is not an argument here: use `weight_decays` or `model`")
        shared = {name: kwargs.pop(name, default) for name, default in SHARED.items()}
        super().__init__(self._preset, learning_rate if lr is None else lr, model=model, **kwargs)
        self._options = checked_options({**own, **shared})
        total_iterations = shared["total_iterations"]
        decayed = decays_something(check_kind("weight_decays", weight_decays, "pairs (l1, l2)"))
        if model is not None and weight_decays is not None:
            warnings.warn("`weight_decays` is ignored: the decays are those of `model`", stacklevel=3)
            weight_decays = None
        if total_iterations is None and (decayed or _penalizes(model)):
            raise ValueError(
                "`total_iterations` must be given with decays, for an update multiplies them by sqrt(1 / "
                "total_iterations). Give the number of updates of the run or of a cycle; or 0, to train without decay, "
                "as keras-adamw does by default; or OptaxOptimizer(adamw_jax.adamw, options={'weight_decay': ...}), "
                "which decays by the numbers as they are. Received: total_iterations=None"
            )
        self._decaying = self._options["total_iterations"] > 1
        asked = shared["use_cosine_annealing"] or decayed or (model is not None and total_iterations is not None)
        if asked and not self._decaying:
            warnings.warn(
                f"total_iterations={total_iterations or 0} must be > 1 for weight decay and cosine annealing: going on "
                "without either; penalties stay in the loss",
                stacklevel=3,
            )
        model = model if self._decaying else None
        self._hyper = self._hyperparameters(eta_min, eta_max, position("t_cur", t_cur), eta_t)
        self._rules = WeightRules(model, self.zero_penalties, weight_decays, lr_multipliers)

    def _hyperparameters(self, eta_min: Any, eta_max: Any, t_cur: Any, eta_t: Any) -> Hyperparameters:
        annealed = self.use_cosine_annealing
        schedule = self._cosine(eta_min=eta_min, eta_max=eta_max)
        start = schedule.start()._replace(t_cur=jnp.asarray(t_cur, jnp.int32))
        if eta_t is None:
            eta_t = float(schedule.eta(start)) if annealed else 1.0
        total = jnp.asarray(self._options["total_iterations"], jnp.int32)
        return Hyperparameters(
            add_hyperparameter(self, "t_cur", start.t_cur),
            add_hyperparameter(self, "eta_t", as_scalar(checks.check_non_negative("eta_t", eta_t))),
            # Without annealing no update reads them: then they are no part of the state.
            add_hyperparameter(self, "eta_min", as_scalar(eta_min), tracked=annealed),
            add_hyperparameter(self, "eta_max", as_scalar(eta_max), tracked=annealed),
            add_hyperparameter(self, "total_iterations", total) if annealed and self.t_mult == 1 else None,
        )

    def _cosine(self, **settable: Any) -> SettableCosine:
        period = max(self._options["total_iterations"], 1)
        return settable_cosine(period, self.t_mult, bool(self.autorestart), **settable)

    def _schedule(self) -> Cycles:
        hyper = self._hyper
        if not self.use_cosine_annealing:
            return SettableFactor(hyper.eta_t.value)
        following = None if hyper.total_iterations is None else hyper.total_iterations.value
        return self._cosine(eta_min=hyper.eta_min.value, eta_max=hyper.eta_max.value, following=following)

    def _preset(self, learning_rate: Any) -> optax.GradientTransformation:
        decays, multipliers = self._rules.by_key(self._decaying)
        return self._function(
            self._rate(learning_rate, self.iterations),
            weight_decay=decays,
            normalize_decay=self.total_iterations_wd or None,
            lr_multipliers=multipliers,
            schedule=self._schedule(),
            coupling=self.coupling,
            moment_dtype=self.moment_dtype,
            **{name: self._options[given] for given, name in self._own_names.items()},
        )

    def _bind(self, state: Any, keys: Sequence[str]) -> tuple[dict[str, list[int]], dict[int, Any]]:
        # Constants stand for what is given (all counts are Keras's iterations), what no update asks for (the latest
        # rate) and what stays as it is: the cycle's index, if all cycles are alike, and its length, without any.
        zero, start = jnp.zeros([]), self._cosine().start()
        held = {"t_cur": self.t_cur, "eta": self.eta_t, "count": zero.astype(jnp.int32), "learning_rate": zero}
        if not self.use_cosine_annealing:
            held |= {"period": start.period, "cycle": start.cycle}
        elif self._hyper.total_iterations is not None:
            held |= {"cycle": start.cycle}
        found = scalars_named(state, held, keys)
        return found, {position: held[name] for name, positions in found.items() for position in positions}

    def _given(self, rate: Any) -> dict[str, Any]:
        # The update asks for the count alone; who reads the state, for the latest rate, too.
        latest = self._rate(rate, jnp.maximum(self.iterations - 1, 0))
        return {"count": jnp.asarray(self.iterations, jnp.int32), "learning_rate": latest}

    def _prepare(self, trained: list[Any], variables: Sequence[Any]) -> Weights:
        weights = Weights.of(trained, self._source.model)
        self._rules.resolve(weights, variables, self._exclusions.flags(weights), self._from_config)
        if self.init_verbose:
            n = float(normalization(self.total_iterations_wd or 1))
            print(self._rules.table(weights, n if self._decaying else 0.0))
        return weights

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as they stand; decays and multipliers of a built optimizer by position."""
        config = super().get_config()
        del config["tx"], config["kind"]
        hyper = {name: float(getattr(self, name)) for name in ("eta_t", "eta_min", "eta_max")}
        whole = {"t_cur": int(self.t_cur), "total_iterations": self.total_iterations}
        return config | dict(self._options) | hyper | whole | self._rules.config()

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DecoupledOptimizer":
        """Return the optimizer with these arguments; one that fits no variables is an error when it is used."""
        rules = {name: read(config.get(name), custom_objects) for name in ("weight_decays", "lr_multipliers")}
        optimizer: DecoupledOptimizer = super().from_config(config | rules, custom_objects=custom_objects)
        return optimizer


def _penalizes(model: Any) -> bool:
    """Return whether a model has penalties that become decays, as far as it is built."""
    return model is not None and (not model.built or any(any(decay_of(v) or ()) for v in model.trainable_variables))
