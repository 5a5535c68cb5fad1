"""What AdamW, NadamW and SGDW share: keras-adamw's arguments, translated onto the presets' options."""

import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import keras
import optax

from adamw_jax import _checks as checks
from adamw_jax._decay.strength import COUPLINGS, normalization
from adamw_jax._leaves import wide
from adamw_jax._rates.cycles import Cycles
from adamw_jax._rates.schedules import cosine_warm_restarts
from adamw_jax.keras.adapter import OptaxOptimizer
from adamw_jax.keras.held import HeldCosine, HeldFactor
from adamw_jax.keras.paths import table
from adamw_jax.keras.rules import WeightRules
from adamw_jax.keras.slots import add_variable


def _hyperparameter(name: str, doc: str) -> property:
    return property(
        lambda self: getattr(self._hyper, name), lambda self, value: getattr(self._hyper, name).assign(value), doc=doc
    )


class DecoupledOptimizer(OptaxOptimizer):
    """The base of the three classes: theta <- theta - eta_t (lr r d + n (l1 sign(theta) + l2 theta)), n = sqrt(1 / T).

    Args:
        learning_rate: lr: a float, a Keras schedule or a callable. It does not scale the decay (see `coupling`).
        own: the options of the class, {keras name: value}.
        lr: another name for learning_rate, which wins.
        decay: divides the rate by 1 + decay * iterations; 0.0 for none.
        model: a `keras.Model` whose l1, l2 and l1_l2 penalties become the decays (read when the model is built).
        zero_penalties: whether the penalties of `model` are zeroed in the loss.
        weight_decays: {weight: (l1, l2)}, where a weight is named by its path, the end of it, or layer and last name
            ("lstm_1/kernel"); or one pair per trainable variable, in their order.
        lr_multipliers: {part of a path: r}, the first key that matches wins; or one number per trainable variable.
        total_iterations: T, updates in the first cycle. With T <= 1 there is neither decay nor annealing.
        total_iterations_wd: updates to normalize the decay over, instead of T.
        use_cosine_annealing: whether eta_t follows a cosine from eta_max down to eta_min over T updates.
        autorestart: whether the next cycle begins after T updates; None means `use_cosine_annealing`.
        eta_min: smallest factor, >= 0.
        eta_max: largest factor, >= eta_min.
        t_cur: position of the first update in the cycle.
        eta_t: factor of the first update; None for the schedule's own at t_cur.
        t_mult: ratio of the lengths of consecutive cycles.
        coupling: what multiplies the decay: "schedule" (eta_t), "learning_rate" (lr eta_t) or "constant" (nothing).
        moment_dtype: how the moments are stored: "packed", "packed8", "bfloat16" or a wider dtype; None means the
            variable's, or float32 if that is wider.
        init_verbose: whether to print a table of what each weight gets, when the optimizer is built.
        **kwargs: arguments of `keras.optimizers.Optimizer`, except `weight_decay`.

    Raises:
        ValueError: for a number outside its range, `autorestart` without annealing; at `build`, for a key that matches
            no weight, or several, or a sequence of another length than the trainable variables.
    """

    def __init__(
        self,
        learning_rate: Any,
        own: Mapping[str, Any],
        *,
        lr: Any = None,
        decay: float = 0.0,
        model: Any = None,
        zero_penalties: bool = True,
        weight_decays: Mapping[str, Any] | Sequence[Any] | None = None,
        lr_multipliers: Mapping[str, float] | Sequence[float] | None = None,
        total_iterations: int = 0,
        total_iterations_wd: int | None = None,
        use_cosine_annealing: bool = False,
        autorestart: bool | None = None,
        eta_min: float = 0.0,
        eta_max: float = 1.0,
        t_cur: int = 0,
        eta_t: float | None = None,
        t_mult: float = 1,
        coupling: str = "schedule",
        moment_dtype: Any = None,
        init_verbose: bool = True,
        **kwargs: Any,
    ) -> None:
        rate = learning_rate if lr is None else lr
        if isinstance(learning_rate, keras.Model):
            raise TypeError("`learning_rate` must be a rate, not a model: pass the model as `model=model`")
        if kwargs.get("weight_decay") is not None:
            raise ValueError("`weight_decay` is not an argument here: use `weight_decays` or `model`")
        super().__init__(self._preset, float(rate) if isinstance(rate, int) else rate, **kwargs)
        annealed = checks.check_flag("use_cosine_annealing", use_cosine_annealing)
        if autorestart and not annealed:
            raise ValueError("`autorestart` needs `use_cosine_annealing=True`. Received: autorestart=True")
        self._own = SimpleNamespace(**own)
        self._fixed = SimpleNamespace(
            decay=checks.check_non_negative("decay", decay),
            total_iterations=int(checks.check_count("total_iterations", total_iterations, low=0)),
            total_iterations_wd=total_iterations_wd
            and int(checks.check_count("total_iterations_wd", total_iterations_wd)),
            use_cosine_annealing=annealed,
            autorestart=annealed if autorestart is None else checks.check_flag("autorestart", autorestart),
            t_mult=t_mult,
            coupling=checks.check_choice("coupling", coupling, COUPLINGS),
            moment_dtype=moment_dtype
            if moment_dtype is None or isinstance(moment_dtype, str)
            else jnp.dtype(moment_dtype).name,
            init_verbose=checks.check_flag("init_verbose", init_verbose),
        )
        if model is not None and weight_decays is not None:
            warnings.warn("`weight_decays` is ignored: the decays are those of `model`", stacklevel=3)
            weight_decays = None
        by_position = isinstance(weight_decays, Sequence)  # as `get_config` writes them, zeros included
        decayed = any(map(any, weight_decays)) if weight_decays and by_position else bool(weight_decays)
        if self._fixed.total_iterations <= 1 and (annealed or decayed or model is not None):
            warnings.warn(
                f"total_iterations={total_iterations} must be > 1 for weight decay and cosine annealing: going on "
                "without either; penalties stay in the loss",
                stacklevel=3,
            )
            model = weight_decays = None
        schedule = self._cosine(eta_min, eta_max)
        start = schedule.start()._replace(t_cur=jnp.asarray(t_cur, jnp.int32))
        if eta_t is None:
            eta_t = float(schedule.eta(start)) if self._annealed else 1.0
        self._hyper = SimpleNamespace(
            t_cur=add_variable(self, "t_cur", start.t_cur),
            eta_t=add_variable(self, "eta_t", wide(checks.check_non_negative("eta_t", eta_t))),
        )
        for name, value in {"eta_min": eta_min, "eta_max": eta_max}.items():
            # Without annealing no update reads them: then they are no part of the state.
            kept = add_variable(self, name, wide(value)) if self._annealed else keras.Variable(wide(value), name=name)
            setattr(self._hyper, name, kept)
        self._rules = WeightRules(model, zero_penalties, weight_decays, lr_multipliers)

    t_cur = _hyperparameter("t_cur", "Position of the next update in its cycle; -1 restarts after the next update.")
    eta_t = _hyperparameter("eta_t", "Factor of the next update; computed anew from t_cur after each.")
    eta_min = _hyperparameter("eta_min", "Smallest factor, from the next computation of eta_t on.")
    eta_max = _hyperparameter("eta_max", "Largest factor, from the next computation of eta_t on.")

    @property
    def lr_t(self) -> Any:
        """lr c_t eta: the latest update's rate and bias correction with the factor of the next, as in keras-adamw.

        c_t is sqrt(1 - beta_2^t) / (1 - beta_1^t) in AdamW and 1 elsewhere. The layers' multipliers are left out.
        """
        latest = jnp.maximum(self.iterations - 1, 0)
        return self._rate(jnp.asarray(self.learning_rate), latest) * self._correction(latest + 1) * self.eta_t.value

    def _correction(self, count: Any) -> Any:
        return 1.0

    def _rate(self, learning_rate: Any, iterations: Any) -> Any:
        return learning_rate / (1 + self._fixed.decay * iterations) if self._fixed.decay else learning_rate

    @property
    def _annealed(self) -> bool:
        return bool(self._fixed.use_cosine_annealing and self._fixed.total_iterations > 1)

    def _cosine(self, eta_min: Any, eta_max: Any) -> HeldCosine:
        fixed = self._fixed
        cosine = cosine_warm_restarts(
            max(fixed.total_iterations, 1),
            t_mult=fixed.t_mult,
            eta_min=eta_min,
            eta_max=eta_max,
            autorestart=fixed.autorestart,
        )
        return HeldCosine(**vars(cosine))

    def _schedule(self) -> Cycles:
        return self._cosine(self.eta_min.value, self.eta_max.value) if self._annealed else HeldFactor(self.eta_t.value)

    def _preset(self, learning_rate: Any) -> optax.GradientTransformation:
        keys, fixed, rules = self._optax.keys, self._fixed, self._rules
        decays, multipliers = (dict(zip(keys, v, strict=True)) for v in (rules.decays, rules.multipliers))
        return self._direction(
            self._rate(learning_rate, self.iterations),
            weight_decay=decays if any(map(any, rules.decays)) else 0.0,
            normalize_decay=(fixed.total_iterations_wd or fixed.total_iterations) or None,
            lr_multipliers=multipliers if any(r != 1 for r in rules.multipliers) else None,
            schedule=self._schedule(),
            coupling=fixed.coupling,
            moment_dtype=fixed.moment_dtype,
        )

    def _direction(self, learning_rate: Any, **options: Any) -> optax.GradientTransformation:
        raise NotImplementedError

    def _holders(self) -> dict[str, Any]:
        # Constants stand for what is given (all counts are Keras's iterations), what no update asks for (alpha, the
        # latest rate) and, unless cycles grow, what stays as it is.
        holders = {"t_cur": self.t_cur, "eta": self.eta_t, "count": jnp.zeros([], jnp.int32), "alpha": jnp.zeros([])}
        if self._fixed.t_mult == 1 or not self._annealed:
            start = self._cosine(0.0, 1.0).start()
            holders |= {"period": start.period, "cycle": start.cycle}
        return holders

    def _given(self, rate: Any) -> dict[str, Any]:
        return {"count": jnp.asarray(self.iterations, jnp.int32)}

    def build(self, variables: Sequence[Any]) -> None:
        """Resolves decays and multipliers, and makes the state's Variables."""
        if self.built:
            return
        updated = [v for v in variables if not self._overwrite_variable_with_gradient(v)]
        self._rules.resolve(updated)
        if self._fixed.init_verbose:
            n = float(normalization(self._fixed.total_iterations_wd or self._fixed.total_iterations or 1))
            print(table(updated, self._rules.multipliers, [(n * l1, n * l2) for l1, l2 in self._rules.decays]))
        super().build(variables)

    def get_config(self) -> dict[str, Any]:
        """The arguments as they stand; decays and multipliers of a built optimizer by position."""
        config = super().get_config()
        del config["tx"]
        hyper = {name: float(getattr(self, name)) for name in ("eta_t", "eta_min", "eta_max")}
        hyper["t_cur"] = int(self.t_cur)
        return config | vars(self._own) | vars(self._fixed) | hyper | self._rules.config()
