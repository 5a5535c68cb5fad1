"""Every `scale_by_*` of optax under its name: a direction for `decoupled`, or the reason why it is none."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
import optax.contrib

import adamw_jax as aj


class Trained(NamedTuple):
    """A direction that trains: how it is made, with which rate, and what a user should know."""

    make: Callable[[], Any]
    rate: float = 0.01
    note: str = ""


def contrib_muon():
    """optax's bare Muon, which wants its matrices spelled out, and nothing beside them."""
    matrix = optax.contrib.MuonDimensionNumbers()
    return optax.contrib.scale_by_muon(weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: matrix, tree))


BY_PATH = "no scalars, which stand for frozen leaves: give those another direction by path"
LOSS = "`update` wants the loss as `value`"

DIRECTIONS = {
    "optax.scale_by_adadelta": Trained(optax.scale_by_adadelta, 5.0),
    "optax.scale_by_adam": Trained(optax.scale_by_adam),
    "optax.scale_by_adamax": Trained(optax.scale_by_adamax),
    "optax.scale_by_adan": Trained(optax.scale_by_adan),
    "optax.scale_by_amsgrad": Trained(optax.scale_by_amsgrad),
    "optax.scale_by_belief": Trained(optax.scale_by_belief),
    "optax.scale_by_distance_over_gradients": Trained(
        lambda: optax.scale_by_distance_over_gradients(reps_rel=0.1), 1.0, "finds its rate itself: 1 goes with it"
    ),
    "optax.scale_by_factored_rms": Trained(optax.scale_by_factored_rms),
    "optax.scale_by_lbfgs": Trained(lambda: optax.scale_by_lbfgs(memory_size=3), 0.1, "whole batches"),
    "optax.scale_by_lion": Trained(optax.scale_by_lion),
    "optax.scale_by_novograd": Trained(optax.scale_by_novograd, 0.1),
    "optax.scale_by_optimistic_gradient": Trained(optax.scale_by_optimistic_gradient, 0.5),
    "optax.scale_by_param_block_norm": Trained(
        optax.scale_by_param_block_norm, 0.1, "the gradient times the parameter's norm"
    ),
    "optax.scale_by_param_block_rms": Trained(
        optax.scale_by_param_block_rms, 5.0, "the gradient times the parameter's root mean square"
    ),
    "optax.scale_by_polyak": Trained(optax.scale_by_polyak, 1.0, LOSS),
    "optax.scale_by_radam": Trained(optax.scale_by_radam, 0.2),
    "optax.scale_by_rms": Trained(optax.scale_by_rms),
    "optax.scale_by_rprop": Trained(
        lambda: optax.scale_by_rprop(1.0), 0.01, "its `learning_rate` is the first step's size, in units of alpha"
    ),
    "optax.scale_by_rss": Trained(optax.scale_by_rss, 0.1),
    "optax.scale_by_sign": Trained(optax.scale_by_sign),
    "optax.scale_by_sm3": Trained(lambda: {"frozen": optax.identity(), "": optax.scale_by_sm3()}, 0.05, BY_PATH),
    "optax.scale_by_stddev": Trained(optax.scale_by_stddev),
    "optax.scale_by_trust_ratio": Trained(optax.scale_by_trust_ratio, 0.05, "behind another direction, as in LAMB"),
    "optax.scale_by_yogi": Trained(optax.scale_by_yogi),
    "optax.contrib.scale_by_acprop": Trained(optax.contrib.scale_by_acprop, 0.01),
    "optax.contrib.scale_by_ademamix": Trained(optax.contrib.scale_by_ademamix),
    "optax.contrib.scale_by_adopt": Trained(optax.contrib.scale_by_adopt, 0.03),
    "optax.contrib.scale_by_galore": Trained(lambda: optax.contrib.scale_by_galore(rank=4), 0.03),
    "optax.contrib.scale_by_muon": Trained(
        lambda: {"kernel": contrib_muon(), "": optax.scale_by_adam()}, 0.05, "`scale_by_muon` of this library is easier"
    ),
    "optax.contrib.scale_by_simplified_ademamix": Trained(optax.contrib.scale_by_simplified_ademamix, 0.004),
}

NO_DIRECTIONS = {
    "optax.scale_by_backtracking_linesearch": "a search for a rate along a step: it needs the loss as a function",
    "optax.scale_by_learning_rate": "a rate: it is `decoupled`'s argument",
    "optax.scale_by_schedule": "a schedule: it is `decoupled`'s argument",
    "optax.scale_by_zoom_linesearch": "a search for a rate along a step: it needs the loss as a function",
    "optax.contrib.scale_by_cocob": (
        "points downhill, to a place that it computes from the start of the training: its next update undoes any decay"
    ),
    "optax.contrib.scale_by_madgrad": (
        "points downhill, to a place that it computes from the start of the training, with a rate of its own"
    ),
}


class Alias(NamedTuple):
    """An optimizer of optax, and the same from `decoupled`, with the arguments that `decoupled` gets besides."""

    peer: Callable[[], optax.GradientTransformation]
    direction: Callable[[], Any]
    decay: float = 0.0
    rate: float = 0.01


RATE, DECAY = 0.01, 0.1

ALIASES = {
    "acprop": Alias(lambda: optax.contrib.acprop(RATE, weight_decay=DECAY), optax.contrib.scale_by_acprop, DECAY),
    "adabelief": Alias(lambda: optax.adabelief(RATE), optax.scale_by_belief),
    "adadelta": Alias(lambda: optax.adadelta(RATE), optax.scale_by_adadelta),
    "adafactor": Alias(
        lambda: optax.adafactor(RATE, multiply_by_parameter_scale=False),
        lambda: optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)),
    ),
    "adagrad": Alias(lambda: optax.adagrad(RATE), optax.scale_by_rss),
    "adam": Alias(lambda: optax.adam(RATE), optax.scale_by_adam),
    "adamax": Alias(lambda: optax.adamax(RATE), optax.scale_by_adamax),
    "adamaxw": Alias(lambda: optax.adamaxw(RATE, weight_decay=DECAY), optax.scale_by_adamax, DECAY),
    "adamw": Alias(lambda: optax.adamw(RATE, weight_decay=DECAY), optax.scale_by_adam, DECAY),
    "adamw, nesterov": Alias(
        lambda: optax.adamw(RATE, weight_decay=DECAY, nesterov=True), lambda: optax.scale_by_adam(nesterov=True), DECAY
    ),
    "adan": Alias(lambda: optax.adan(RATE, weight_decay=DECAY), optax.scale_by_adan, DECAY),
    "ademamix": Alias(
        lambda: optax.contrib.ademamix(RATE, weight_decay=DECAY, alpha=6.0), optax.contrib.scale_by_ademamix, DECAY
    ),
    "adopt": Alias(lambda: optax.contrib.adopt(RATE), optax.contrib.scale_by_adopt),
    "amsgrad": Alias(lambda: optax.amsgrad(RATE), optax.scale_by_amsgrad),
    "lamb": Alias(
        lambda: optax.lamb(RATE),
        lambda: optax.chain(optax.scale_by_adam(eps=1e-6), optax.scale_by_trust_ratio()),
    ),
    "lion": Alias(lambda: optax.lion(RATE, weight_decay=DECAY), optax.scale_by_lion, DECAY),
    "nadamw": Alias(lambda: optax.nadamw(RATE, weight_decay=DECAY), lambda: optax.scale_by_adam(nesterov=True), DECAY),
    "novograd": Alias(lambda: optax.novograd(RATE), optax.scale_by_novograd),
    "optimistic_gradient_descent": Alias(
        lambda: optax.optimistic_gradient_descent(RATE), optax.scale_by_optimistic_gradient
    ),
    "radam": Alias(lambda: optax.radam(RATE), optax.scale_by_radam),
    "rmsprop": Alias(lambda: optax.rmsprop(RATE), optax.scale_by_rms),
    "rmsprop, centered": Alias(lambda: optax.rmsprop(RATE, centered=True), optax.scale_by_stddev),
    "rprop": Alias(lambda: optax.rprop(RATE), lambda: optax.scale_by_rprop(RATE), rate=1.0),
    "sgd, momentum": Alias(lambda: optax.sgd(RATE, momentum=0.9), lambda: optax.trace(0.9)),
    "sgd, nesterov": Alias(
        lambda: optax.sgd(RATE, momentum=0.9, nesterov=True), lambda: optax.trace(0.9, nesterov=True)
    ),
    "sign_sgd": Alias(lambda: optax.sign_sgd(RATE), optax.scale_by_sign),
    "simplified_ademamix": Alias(
        lambda: optax.contrib.simplified_ademamix(RATE, weight_decay=DECAY),
        optax.contrib.scale_by_simplified_ademamix,
        DECAY,
    ),
    "sm3": Alias(lambda: optax.sm3(RATE), optax.scale_by_sm3),
    "yogi": Alias(lambda: optax.yogi(RATE), optax.scale_by_yogi),
    # This library's own against optax's.
    "adamw, scale_by_adam": Alias(lambda: optax.adamw(RATE, weight_decay=DECAY), aj.scale_by_adam, DECAY),
    "sgd, scale_by_momentum": Alias(lambda: optax.sgd(RATE, momentum=0.9), aj.scale_by_momentum),
}

MADE_OF = {
    "acprop": "optax.contrib.scale_by_acprop", "adabelief": "optax.scale_by_belief",
    "adadelta": "optax.scale_by_adadelta", "adafactor": "optax.scale_by_factored_rms",
    "adagrad": "optax.scale_by_rss", "adam": "optax.scale_by_adam", "adamax": "optax.scale_by_adamax",
    "adamaxw": "optax.scale_by_adamax", "adamw": "optax.scale_by_adam", "nadamw": "optax.scale_by_adam",
    "adan": "optax.scale_by_adan", "ademamix": "optax.contrib.scale_by_ademamix",
    "adopt": "optax.contrib.scale_by_adopt", "amsgrad": "optax.scale_by_amsgrad",
    "lamb": "optax.scale_by_trust_ratio", "lion": "optax.scale_by_lion", "novograd": "optax.scale_by_novograd",
    "optimistic_gradient_descent": "optax.scale_by_optimistic_gradient", "radam": "optax.scale_by_radam",
    "rmsprop": "optax.scale_by_rms", "rmsprop, centered": "optax.scale_by_stddev", "rprop": "optax.scale_by_rprop",
    "sign_sgd": "optax.scale_by_sign", "simplified_ademamix": "optax.contrib.scale_by_simplified_ademamix",
    "sm3": "optax.scale_by_sm3", "yogi": "optax.scale_by_yogi",
}  # fmt: skip
"""Which direction an alias is made of, where it is one of the table."""


def found() -> list[str]:
    """Return the names of every `scale_by_*` of the installed optax."""
    modules = (optax, optax.contrib)
    return sorted(f"{m.__name__}.{name}" for m in modules for name in dir(m) if name.startswith("scale_by_"))


def as_markdown() -> str:
    """Return both tables as the documentation has them."""

    def row(name):
        equals = ", ".join(f"`{alias}`" for alias, of in MADE_OF.items() if of == name)
        return f"| `{name}` | {equals} | {DIRECTIONS[name].note} |"

    trained = ["| direction | equals optax's | note |", "|---|---|---|", *map(row, sorted(DIRECTIONS))]
    others = ["| no direction | because |", "|---|---|"]
    others += [f"| `{name}` | {reason} |" for name, reason in sorted(NO_DIRECTIONS.items())]
    return "\n".join(trained) + "\n\n" + "\n".join(others) + "\n"


if __name__ == "__main__":
    print(as_markdown())
