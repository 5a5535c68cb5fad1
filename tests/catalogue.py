"""Every optimizer and stage once, under a name: what the laws in test_contract.py are held against."""

from collections.abc import Callable

import optax

import adamw_jax as aj

RESTARTS = aj.cosine_warm_restarts(5, t_mult=1.5, eta_min=0.1, warmup=2)
DECAY = {"kernel": (0.01, 0.1)}
MULTIPLIERS = {"head": 0.5}
EXTRAS = {
    "weight_decay": DECAY,
    "lr_multipliers": MULTIPLIERS,
    "schedule": RESTARTS,
    "normalize_decay": "cycle",
}

OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adamw": lambda: aj.adamw(0.01),
    "adamw all options": lambda: aj.adamw(0.01, **EXTRAS),
    "adamw amsgrad": lambda: aj.adamw(0.01, amsgrad=True, weight_decay=0.1),
    "adamw epsilon hat": lambda: aj.adamw(0.01, epsilon_hat=True, weight_decay=0.1),
    "adamw learning-rate schedule": lambda: aj.adamw(
        optax.linear_schedule(0.01, 0.0, 10), weight_decay=0.1, coupling="learning_rate"
    ),
    "adamw constant decay": lambda: aj.adamw(0.01, weight_decay=0.1, coupling="constant", schedule=RESTARTS),
    "adamw packed": lambda: aj.adamw(0.01, moment_dtype="packed", **EXTRAS),
    "adamw bfloat16 moments": lambda: aj.adamw(0.01, moment_dtype="bfloat16", **EXTRAS),
    "adamw packed8": lambda: aj.adamw(0.01, moment_dtype="packed8", **EXTRAS),
    "adamw amsgrad packed8": lambda: aj.adamw(0.01, amsgrad=True, moment_dtype="packed8"),
    "adamw amsgrad packed": lambda: aj.adamw(0.01, amsgrad=True, moment_dtype="packed"),
    "nadamw packed": lambda: aj.nadamw(0.01, moment_dtype="packed"),
    "sgdw packed": lambda: aj.sgdw(0.01, moment_dtype="packed", weight_decay=0.1),
    "nadamw": lambda: aj.nadamw(0.01),
    "nadamw all options": lambda: aj.nadamw(0.01, **EXTRAS),
    "nadamw constant momentum": lambda: aj.nadamw(0.01, momentum_decay=None, weight_decay=0.1, normalize_decay=20),
    "sgdw": lambda: aj.sgdw(0.01),
    "sgdw all options": lambda: aj.sgdw(0.01, nesterov=True, **EXTRAS),
    "sgdw scaled decay": lambda: aj.sgdw(
        0.01,
        weight_decay=0.1,
        coupling="learning_rate",
        lr_multipliers=MULTIPLIERS,
        multiplier_scales_decay=True,
        schedule=RESTARTS,
    ),
    "adamw corrected cautious proximal": lambda: aj.adamw(
        0.01, weight_decay=0.1, coupling="corrected", decay="cautious", proximal_l1=0.01, schedule=RESTARTS
    ),
    "sgdw plain schedule": lambda: aj.sgdw(0.01, weight_decay=0.1, schedule=optax.linear_schedule(1.0, 0.0, 10)),
}

STAGES: dict[str, Callable[[], optax.GradientTransformation]] = {
    "scale_by_adam": aj.scale_by_adam,
    "scale_by_amsgrad": aj.scale_by_amsgrad,
    "scale_by_amsgrad of nu_hat": lambda: aj.scale_by_amsgrad(max_of="nu_hat"),
    "scale_by_nadam": aj.scale_by_nadam,
    "scale_by_nadam shared correction": lambda: aj.scale_by_nadam(shared_correction=True),
    "scale_by_momentum": aj.scale_by_momentum,
    "scale_by_momentum nesterov": lambda: aj.scale_by_momentum(nesterov=True),
    "scale_by_multipliers": lambda: aj.scale_by_multipliers(MULTIPLIERS),
    "freeze_where_zero": lambda: aj.freeze_where_zero({"head": 0}),
    "add_decoupled_decay": lambda: aj.add_decoupled_decay(DECAY),
    "add_anchored_decay": lambda: aj.add_anchored_decay(DECAY),
    "add_cautious_decay": lambda: aj.add_cautious_decay(DECAY),
    "add_huber_decay": lambda: aj.add_huber_decay(DECAY, delta=0.5),
    "freeze_where": lambda: aj.freeze_where("head"),
    "without_moments": lambda: aj.without_moments("head", aj.scale_by_adam()),
    "with_warm_restarts": lambda: aj.with_warm_restarts(RESTARTS, aj.scale_by_eta()),
    "scale_by_correction": lambda: aj.with_learning_rate(0.1, aj.scale_by_correction(aj.Corrected("kernel"), 0.2)),
    "soft_threshold": lambda: aj.soft_threshold(0.01, coupling="constant"),
    "with_learning_rate": lambda: aj.with_learning_rate(0.1, aj.scale_by_alpha()),
    "scale_by_warm_restarts": lambda: aj.scale_by_warm_restarts(RESTARTS),
    "observe": lambda: aj.observe(aj.adamw(0.01, **EXTRAS), every=2),
    "skip_spikes": lambda: aj.skip_spikes(aj.nadamw(0.01, **EXTRAS), window=3),
    "add_term": lambda: aj.add_term(aj.add_decoupled_decay(DECAY)),
}

CATALOGUE = OPTIMIZERS | STAGES
