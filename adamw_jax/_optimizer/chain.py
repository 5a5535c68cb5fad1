"""`decoupled`: the chain of every optimizer on one screen."""

from typing import Any

import optax

from adamw_jax._decay import DecayFactor, add_decoupled_decay, hold_norm as held, soft_threshold
from adamw_jax._decay.coupling import Schedule, coupling_of
from adamw_jax._decay.forms import Decoupled, form_of
from adamw_jax._decay.held import Norms
from adamw_jax._direction.by_path import directions
from adamw_jax._optimizer.factors import largest_rate
from adamw_jax._optimizer.optimizer import Optimizer, made_per_tree, make_of
from adamw_jax._optimizer.options import with_options_of
from adamw_jax._optimizer.plan import Plan
from adamw_jax._rates import scale_by_rates, with_learning_rate, with_schedule
from adamw_jax._rates.scale import negate
from adamw_jax._rules import freeze_where, scale_by_multipliers, without_moments
from adamw_jax._rules.axes import with_axes
from adamw_jax._rules.freezing import hide_frozen
from adamw_jax._storage import round_to_params
from adamw_jax._tree import checks
from adamw_jax._tree.fit import with_fitting_state
from adamw_jax._tree.typing import Directions, Mask, Rules, Scalar, ScalarOrSchedule
from adamw_jax._tree.width import widen_updates


@with_options_of(None)
def decoupled(
    direction: Directions,
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: Rules = 0.0,
    coupling: str | Schedule = "schedule",
    normalize_decay: Scalar | str | None = None,
    decay: str | Decoupled = "decoupled",
    proximal_l1: Rules | None = None,
    lr_multipliers: Rules | None = None,
    multiplier_scales_decay: bool = False,
    schedule: ScalarOrSchedule | None = None,
    freeze: Mask | None = None,
    hold_norm: Norms | None = None,
    axes: Any = None,
    round_params: bool = False,
    accumulate: str = "gradients",
) -> Optimizer:
    """Return an optimizer that follows any direction and decays as the paper states it.

        theta <- theta - (alpha eta_t r d + c n r' (l1 sign(theta) + l2 theta))

    with the rate alpha, the schedule's factor eta_t, the leaf's multiplier r, the direction d, and the decay's own
    factor, c n r'.

    Args:
      direction: d, a transformation that points uphill: `scale_by_*` of this library or of optax, or a chain of them,
        without rate and decay; or {pattern: transformation}, where the first pattern found in a leaf's path decides.
        Every leaf needs a direction; "" as the last pattern takes what the others leave.
      learning_rate: alpha, >= 0: a number, a JAX scalar (traced or not), or a schedule count -> rate.
      weight_decay: rules that give l2 or (l1, l2), each >= 0: a number decays every leaf; {pattern: value}, a function
        (path, leaf) -> value or a tree of values decay by leaf; see `matrices`. A value in them may be a schedule count
        -> number. Its scale depends on `coupling`.
      coupling: c, what multiplies the decay. "schedule": eta_t, the paper's form. "learning_rate": alpha eta_t, that of
        optax, PyTorch and Keras. "constant": nothing. "corrected": alpha eta_t, and (alpha eta_t)^2 / max(alpha eta) on
        layers that a normalization follows, see `Corrected`.
      normalize_decay: n: None is 1; T, the updates of the run, is sqrt(1 / T); "cycle" is sqrt(1 / T_i).
      decay: its form: "decoupled", "cautious", "anchored" (to the parameters given to `init`), or `Cautious()`,
        `Huber(delta)`, `Anchored(anchors)`.
      proximal_l1: rules for an l1 >= 0 per leaf that sets weights to exact zeros, see `soft_threshold`; None is none.
      lr_multipliers: rules that give r >= 0 per leaf, numbers or schedules; 1 where no pattern matches. A leaf is
        frozen while its r is 0, decay included; its moments go on.
      multiplier_scales_decay: multiply the decay by r, too: r' = r instead of 1.
      schedule: eta_t: from `cosine_warm_restarts`, or any function count -> factor, or a number; None is 1.
      freeze: the leaves that are not trained and have no moments, see `without_moments`, of any dtype; None trains all.
      hold_norm: the leaves whose norm stays what it is at the start, in place of a decay, matrix by matrix; or
        `Held(mask, per)`, `Brake(mask, outward)`, `Floor(mask, ratio)`; see the stage `hold_norm`.
      axes: the axes of leaves, where names do not show them, one letter each: s for a stack, i for inputs, o for
        outputs. "sio" for scanned layers, or {pattern: letters}.
      round_params: round bfloat16 parameters stochastically, see `round_to_params`.
      accumulate: what the direction sees: "gradients", or "steps", alpha eta_t g, as SGDW's velocity does.

    Returns:
      A transformation whose updates are to be added to the parameters (`optax.apply_updates`), in the gradients'
      shapes, as wide as the wider of gradient and parameter. Its state holds scalars and trees like the parameters; no
      number changes its structure. Extra arguments of `update` reach the direction.

    Raises:
      ValueError, TypeError: an argument of another kind or out of range; a learning-rate schedule together with a
        decay under coupling="schedule", whose eta it would hide; at `init`, rules that do not fit the parameters.

    Warns:
      UserWarning: at `init`, a decay that takes 0.05 or more of a weight per update, as another library's number does
        where the learning rate does not multiply it; an l1 that takes as much; a schedule that has the size of rates.

    Source: Loshchilov & Hutter, arXiv 1711.05101, Algorithms 1 and 2.

    >>> import jax.numpy as jnp
    >>> params = {"kernel": jnp.array([1.0]), "bias": jnp.array([1.0])}
    >>> tx = decoupled(optax.scale_by_lion(), 0.1, weight_decay={"kernel": 0.5})
    >>> updates, state = tx.update({"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}, tx.init(params), params)
    >>> print(updates["kernel"], updates["bias"])
    [-0.6] [-0.1]
    """
    if checks.check_flag("multiplier_scales_decay", multiplier_scales_decay) and lr_multipliers is None:
        raise ValueError(
            "`multiplier_scales_decay` must be False without `lr_multipliers`, got True: without multipliers there is "
            "nothing to scale the decay by"
        )
    checks.check_choice("accumulate", accumulate, ("gradients", "steps"))
    factor = DecayFactor(
        coupling_of(coupling).with_peak(lambda: largest_rate(learning_rate, schedule, coupling)),
        normalize_decay,
        multipliers=lr_multipliers if multiplier_scales_decay else None,
    )
    plan = Plan(
        direction=direction,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        form=form_of(decay),
        factor=factor,
        proximal_l1=proximal_l1,
        lr_multipliers=lr_multipliers,
        schedule=schedule,
        freeze=freeze,
        hold_norm=hold_norm,
        axes=axes,
        round_params=round_params,
        accumulate=accumulate,
    )
    rates = scale_by_rates("alpha", *(() if schedule is None else ("eta",)))
    step, rounding = directions(direction), round_to_params(round_params)

    def stages(its: Plan) -> optax.GradientTransformation:
        direct = with_axes(axes, without_moments(its.freeze, step))
        rules = {"weight_decay": its.weight_decay, "proximal_l1": its.proximal_l1, "lr_multipliers": its.lr_multipliers}
        chain = optax.chain(
            *((rates, direct) if accumulate == "steps" else (direct, rates)),
            scale_by_multipliers(its.lr_multipliers),
            add_decoupled_decay(its.weight_decay, form=its.form, factor=its.factor),
            soft_threshold(its.proximal_l1, factor=its.factor),
            held(its.hold_norm, axes=axes, **rules),
            freeze_where(its.freeze, its.lr_multipliers),
            negate(),
            rounding,
        )
        return hide_frozen(its.freeze, widen_updates(chain))

    owned = with_learning_rate(learning_rate, with_schedule(schedule, made_per_tree(plan, stages)))
    return Optimizer.made_from(plan, with_fitting_state(owned, make_of(plan)))
