"""The form of a decay, for presets."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax

from adamw_jax import checks
from adamw_jax.transforms.decay import add_decoupled_decay
from adamw_jax.transforms.decay_variants import add_anchored_decay, add_cautious_decay
from adamw_jax.typing import Rules, Scalar


@dataclasses.dataclass(frozen=True, init=False)
class DecayForm:
    """The form of a decay, to be given to a preset: a stage's function, with the arguments of its own.

    An object and no function, because `optax.inject_hyperparams` takes functions for schedules.

    Attributes:
      stage: called as stage(weight_decay, normalize=..., **arguments).
      arguments: what it is to be given besides.

    >>> import jax.numpy as jnp
    >>> from adamw_jax.transforms.decay_variants import add_huber_decay
    >>> tx = DecayForm(add_huber_decay, delta=1.0).build(0.1, None)
    >>> updates, _ = tx.update(jnp.zeros(1), tx.init(jnp.zeros(1)), jnp.array([5.0]))
    >>> print(updates)
    [0.1]
    """

    stage: Callable[..., optax.GradientTransformation]
    arguments: Mapping[str, Any]

    def __init__(self, stage: Callable[..., optax.GradientTransformation], **arguments: Any) -> None:
        if not callable(stage):
            raise TypeError(f"`stage` must be a function that returns a stage, got {stage!r}")
        object.__setattr__(self, "stage", stage)
        object.__setattr__(self, "arguments", arguments)

    def build(self, weight_decay: Rules, normalize: Scalar | str | None) -> optax.GradientTransformation:
        """Return the stage."""
        return self.stage(weight_decay, normalize=normalize, **self.arguments)


DECAY_FORMS = {
    "decoupled": DecayForm(add_decoupled_decay),
    "cautious": DecayForm(add_cautious_decay),
    "anchored": DecayForm(add_anchored_decay),
}
"""The forms that need no argument, by name."""


def decay_form(decay: str | DecayForm) -> DecayForm:
    """Return the form that a preset's argument `decay` tells."""
    return decay if isinstance(decay, DecayForm) else DECAY_FORMS[checks.check_choice("decay", decay, DECAY_FORMS)]
