"""Every optimizer and stage once, under a name: what the laws in test_contract.py are held against."""

from collections.abc import Callable

import optax
import optax.contrib

import adamw_jax as aj
from tests.running import lenient

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
    "decoupled lion": lambda: aj.decoupled(optax.scale_by_lion(), 0.01, **EXTRAS),
    "decoupled by path": lambda: aj.decoupled(
        {"kernel": aj.scale_by_adam(moment_dtype="packed"), "": aj.scale_by_momentum()}, 0.01, **EXTRAS
    ),
    "decoupled steps": lambda: aj.decoupled(aj.scale_by_nadam(), 0.01, accumulate="steps", **EXTRAS),
    "decoupled narrow ademamix": lambda: aj.decoupled(
        aj.with_narrow_state(lenient(optax.contrib.scale_by_ademamix())), 0.01, **EXTRAS
    ),
    "adamw rules over time": lambda: aj.adamw(
        0.01,
        weight_decay={"kernel": (optax.linear_schedule(0.0, 0.1, 5), 0.1)},
        lr_multipliers={"head": optax.linear_schedule(0.0, 1.0, 5, 2)},
        proximal_l1={"kernel": optax.constant_schedule(0.01)},
        multiplier_scales_decay=True,
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
    "freeze_where by multipliers": lambda: aj.freeze_where(lr_multipliers={"head": 0}),
    "add_decoupled_decay": lambda: aj.add_decoupled_decay(DECAY),
    "anchored decay": lambda: aj.add_decoupled_decay(DECAY, form="anchored"),
    "cautious decay": lambda: aj.add_decoupled_decay(DECAY, form="cautious"),
    "Huber decay": lambda: aj.add_decoupled_decay(DECAY, form=aj.Huber(0.5)),
    "freeze_where": lambda: aj.freeze_where("head"),
    "without_moments": lambda: aj.without_moments("head", aj.scale_by_adam()),
    "with_schedule": lambda: aj.with_schedule(RESTARTS, aj.scale_by_rates("eta")),
    "add_decoupled_decay with a factor": lambda: aj.with_learning_rate(
        0.1, aj.add_decoupled_decay(DECAY, factor=aj.DecayFactor(aj.Corrected("kernel", peak=0.2), 20))
    ),
    "soft_threshold": lambda: aj.soft_threshold(0.01, factor=aj.DecayFactor("constant")),
    "with_learning_rate": lambda: aj.with_learning_rate(0.1, aj.scale_by_rates("alpha")),
    "both rates": lambda: aj.with_learning_rate(0.1, aj.with_schedule(RESTARTS, aj.scale_by_rates("alpha", "eta"))),
    "adamw held norms": lambda: aj.adamw(
        0.01, hold_norm="body/kernel", weight_decay={"head": 0.1}, lr_multipliers=MULTIPLIERS, schedule=RESTARTS
    ),
    "scale_by_muon by path": lambda: aj.decoupled({"body/kernel": aj.scale_by_muon(), "": aj.scale_by_adam()}, 0.01),
    "scale_by_muon bfloat16": lambda: aj.decoupled(
        {"body/kernel": aj.scale_by_muon(moment_dtype="bfloat16", nesterov=False), "": aj.scale_by_adam()}, 0.01
    ),
    "orthogonalize": lambda: aj.decoupled(
        {
            "body/kernel": optax.chain(aj.scale_by_momentum(), aj.orthogonalize(scale=None)),
            "": aj.scale_by_adam(),
        },
        0.01,
    ),
    "adamw braked and floored": lambda: aj.adamw(
        0.01, hold_norm=[aj.Brake("body/kernel"), aj.Floor("head/0", 0.1, per="leaf")], weight_decay=0.1
    ),
    "hold_norm per row": lambda: aj.with_learning_rate(0.1, aj.hold_norm(aj.Held("body/kernel", per="row"))),
    "hold_norm": lambda: aj.with_learning_rate(0.1, aj.hold_norm("body/kernel")),
    "observe": lambda: aj.observe(aj.adamw(0.01, **EXTRAS), every=2),
    "observe muon": lambda: aj.observe(
        aj.decoupled({"body/kernel": aj.scale_by_muon(), "": aj.scale_by_adam()}, 0.01, weight_decay=0.01), every=2
    ),
    "skip_spikes": lambda: aj.skip_spikes(aj.nadamw(0.01, **EXTRAS), window=3),
    "with_average": lambda: aj.with_average(aj.adamw(0.01, **EXTRAS), aj.Ema(3), but="head"),
    "with_average narrow": lambda: aj.with_average(aj.sgdw(0.01, schedule=RESTARTS), aj.CycleMean(), store="bfloat16"),
    "adamw frozen": lambda: aj.adamw(0.01, freeze="head", **EXTRAS),
    "round_to_params": lambda: aj.with_learning_rate(0.1, aj.round_to_params(False)),
    "with_narrow_state": lambda: aj.with_narrow_state(optax.scale_by_lion()),
}

CATALOGUE = OPTIMIZERS | STAGES

STORED = [
    "adamw all options",
    "nadamw all options",
    "sgdw all options",
    "adamw bfloat16 moments",
    "adamw packed",
    "adamw packed8",
    "decoupled by path",
    "decoupled narrow ademamix",
]
"""One optimizer for each way in which a state lies: wrappers move states, whatever their numbers are."""
