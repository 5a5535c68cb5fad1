"""The run of a recipe by the library: presets, or chains of its transforms, in one jitted scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax
from adamw_jax import (
    add_decoupled_decay,
    cosine_warm_restarts,
    current,
    freeze_where,
    scale_by_adam,
    scale_by_amsgrad,
    scale_by_momentum,
    scale_by_multipliers,
    scale_by_nadam,
    scale_by_rates,
    set_position,
    with_learning_rate,
    with_schedule,
)

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_cpu_parallel_codegen_split_count": 32}
"""XLA's defaults: what users run."""

quick_jit = functools.partial(jax.jit, compiler_options=QUICK)
"""A few thousand numbers do not repay an optimized program. `conftest.py` sets the same flags for `jax.jit`."""
optimized_jit = functools.partial(jax.jit, compiler_options=OPTIMIZED)
"""As users run it: for laws about bits or about a compiled program."""


def lenient(tx):
    """Promote dtypes inside of another package's transformation as JAX does where nothing is set."""

    def standard(function):
        @functools.wraps(function)
        def called(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                return function(*args, **kwargs)

        return called

    tx = optax.with_extra_args_support(tx)
    return optax.GradientTransformationExtraArgs(standard(tx.init), standard(tx.update))


def piece_function(piece):
    """One piece as a count -> factor function, the library's wherever it has it."""
    options = dict(piece.options)
    if piece.kind == "cosine":
        whole = cosine_warm_restarts(**options)
        if not piece.shift and not piece.offset and piece.scale == 1:
            return whole
    elif piece.kind == "fractional":
        whole = fractional_restarts(**options)
    elif piece.kind == "linear":
        whole = optax.linear_schedule(options["init"], options["peak"], options["steps"])
    else:
        whole = optax.constant_schedule(options["value"])
    return lambda count: piece.offset + piece.scale * whole(count + piece.shift)


def fractional_restarts(period, t_mult, eta_min=0.0, eta_max_decay=1.0):
    """Cosine restarts at period (1 + t_mult + t_mult^2 + ...), not rounded; for counts up to 10000."""
    starts = [0.0]
    while starts[-1] < 10000:
        starts.append(starts[-1] + period * t_mult ** (len(starts) - 1))
    table = jnp.asarray(starts)

    def schedule(count):
        cycle = jnp.searchsorted(table, count, side="right") - 1
        w = (1 + jnp.cos(jnp.pi * (count - table[cycle]) / (table[cycle + 1] - table[cycle]))) / 2
        return eta_min + (eta_max_decay**cycle - eta_min) * w

    return schedule


def schedule_function(pieces):
    """Pieces one after the other; a single endless one as it is, so that the state holds its position."""
    if len(pieces) == 1 and pieces[0].kind == "constant":
        return pieces[0].options["value"]
    if len(pieces) == 1:
        return piece_function(pieces[0])
    ends = np.cumsum([piece.length for piece in pieces[:-1]])
    return optax.join_schedules([piece_function(piece) for piece in pieces], [int(end) for end in ends])


def values_of(schedule, steps):
    """The factors of updates 0, 1, ..., steps - 1."""
    return np.asarray(quick_jit(jax.vmap(schedule))(jnp.arange(steps, dtype=jnp.int32)))


def tf_keras_nadam(b1, b2, eps, momentum_decay):
    """The library's NAdam moments with keras-adamw's tf.keras direction: formula as in reference.nadam_tf_keras."""
    inner = scale_by_nadam(b1, b2, eps, momentum_decay=momentum_decay)

    def update(gradients, state, params=None):
        _, state = inner.update(gradients, state, params)
        t = state.count.astype(jnp.result_type(float))
        now, then = (b1 * (1 - 0.5 * 0.96 ** (momentum_decay * (t + i))) for i in (0, 1))
        of_g, of_m = (1 - now) / (1 - state.mu_product), now / (1 - state.mu_product * then)
        c2 = 1 - jnp.asarray(b2) ** t
        direction = jax.tree.map(
            lambda g, m, v: (of_g * g + of_m * m) / jnp.sqrt(v / c2 + eps), gradients, state.mu, state.nu
        )
        return direction, state

    return optax.GradientTransformation(inner.init, update)


def cautious(inner):
    """timm's cautious mask: u * mask / max(mean(mask), 1e-3), mask = (u g > 0)."""

    def update(gradients, state, params=None):
        directions, state = inner.update(gradients, state, params)

        def masked(u, g):
            mask = (u * g > 0).astype(u.dtype)
            return u * mask / jnp.maximum(mask.mean(), 1e-3)

        return jax.tree.map(masked, directions, gradients), state

    return optax.GradientTransformation(inner.init, update)


def preset(recipe, learning_rate, weight_decay, schedule):
    """The preset that is the recipe, or None where it takes a chain of stages."""
    options = dict(recipe.options)
    common = {"weight_decay": weight_decay, "coupling": recipe.coupling, "normalize_decay": recipe.normalize,
              "lr_multipliers": recipe.lr_multipliers, "schedule": schedule,
              "multiplier_scales_decay": recipe.multiplier_scales_decay and bool(recipe.lr_multipliers)}  # fmt: skip
    if recipe.cautious:
        return None
    if recipe.direction in ("adam", "amsgrad") and options.pop("max_of", "nu") == "nu":
        return adamw_jax.adamw(learning_rate, amsgrad=recipe.direction == "amsgrad", **options, **common)
    if recipe.direction == "nadam" and not options.pop("shared_correction", False):
        return adamw_jax.nadamw(learning_rate, **options, **common)
    if recipe.direction == "momentum" and recipe.rate_in_velocity:
        return adamw_jax.sgdw(learning_rate, **options, **common)
    return None


def pipeline(recipe, learning_rate, weight_decay, schedule):
    """The recipe as a chain of the library's stages."""
    makers = {"adam": scale_by_adam, "amsgrad": scale_by_amsgrad, "nadam": scale_by_nadam,
              "momentum": scale_by_momentum, "nadam_tf_keras": tf_keras_nadam}  # fmt: skip
    direction = makers[recipe.direction](**recipe.options)
    if recipe.cautious:
        direction = cautious(direction)
    rules = 1.0 if recipe.lr_multipliers is None else recipe.lr_multipliers
    pair = [scale_by_multipliers(rules), add_decoupled_decay(weight_decay, normalize=recipe.normalize)]
    if recipe.multiplier_scales_decay:
        pair.reverse()
    rates = [scale_by_rates("alpha"), scale_by_rates("eta")]
    place = ("learning_rate", "schedule", "constant").index(recipe.coupling)
    ends = [freeze_where(lr_multipliers=rules), optax.scale(-1.0)]
    stages = optax.chain(direction, *rates[:place], *pair, *rates[place:], *ends)
    return with_learning_rate(learning_rate, with_schedule(1.0 if schedule is None else schedule, stages))


def run(recipe, params, gradients):
    """Drive the library: (params of 0 .. steps, stacked; positions before and after each update; the last state).

    One jitted scan over the steps. A learning rate that changes is a traced number of the step, as are the actions.
    """
    schedule = schedule_function(recipe.schedule) if recipe.schedule else None
    rates = recipe.learning_rate
    steps = len(rates)
    decay_scale = None
    if recipe.corrected:  # the decay times lr / lr_0: the rate has to be a number of the step, not a schedule
        factors = np.ones(steps) if schedule is None else values_of(schedule, steps)
        rates, decay_scale, schedule = rates * factors, factors, None
    constant = bool(np.all(rates == rates[0]))

    def transformation(rate, scale):
        decay = recipe.weight_decay if scale is None else recipe.weight_decay * scale
        args = (recipe, float(rates[0]) if constant else rate, decay, schedule)
        return preset(*args) or pipeline(*args)

    def position(state):
        found = {name: optax.tree.get(state, name) for name in ("t_cur", "period", "cycle", "eta")}
        return {name: value for name, value in found.items() if value is not None}

    def act(state, action):
        eta = jnp.where(action["keep"], current(state).eta, action["eta"]) if schedule is not None else None
        moved = set_position(state, action["t_cur"], period=action["period"], cycle=action["cycle"], eta=eta)
        return jax.tree.map(lambda new, old: jnp.where(action["acts"], new, old), moved, state)

    def step(carry, x):
        params, state = carry
        if recipe.actions:
            state = act(state, x["action"])
        before = position(state)
        updates, state = transformation(x["rate"], x["scale"]).update(x["g"], state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, before, position(state))

    @quick_jit
    def all_steps(params, state, xs):
        return jax.lax.scan(step, (params, state), xs)

    width = jnp.result_type(float)
    params, gradients = (jax.tree.map(lambda x: jnp.asarray(x, width), tree) for tree in (params, gradients))
    state = transformation(float(rates[0]), None).init(params)
    xs = {"g": gradients, "rate": jnp.asarray(rates, width), "scale": None if decay_scale is None else decay_scale}
    if recipe.actions:
        xs["action"] = action_table(recipe, steps, state)
    (_, last), (trajectory, before, after) = all_steps(params, state, xs)
    trajectory = {name: np.concatenate([params[name][None], values]) for name, values in trajectory.items()}
    return trajectory, before, after, last


def action_table(recipe, steps, state):
    """The actions as arrays over the steps; what an action leaves out stays as it is at the start."""
    width = jnp.result_type(float)
    table = {"acts": np.zeros(steps, bool), "keep": np.zeros(steps, bool), "t_cur": np.zeros(steps, np.int32),
             "period": np.full(steps, optax.tree.get(state, "period"), np.int32),
             "cycle": np.zeros(steps, np.int32), "eta": np.full(steps, -1.0)}  # fmt: skip
    for at, action in recipe.actions.items():
        table["acts"][at], table["keep"][at] = True, "eta" not in action
        for name, value in action.items():
            if value is not None:
                table[name][at] = value
    return {name: jnp.asarray(x, width if name == "eta" else None) for name, x in table.items()}
