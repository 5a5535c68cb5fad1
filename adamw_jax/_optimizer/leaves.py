"""What an optimizer gives to each leaf: one row per leaf."""

import dataclasses
from typing import Any

from adamw_jax._direction.direction import About
from adamw_jax._tree.typing import ScalarOrSchedule


@dataclasses.dataclass(frozen=True)
class LeafPlan:
    """What an optimizer gives to a leaf. A value is a number or a schedule count -> number.

    Attributes:
      path, shape, dtype: of the parameter.
      role, axes, why: see `Leaf`.
      direction: the name of its direction; `about` has its arguments, too.
      multiplier: r.
      l1, l2: of the decay.
      threshold: l1 of the soft threshold.
      frozen: whether it is not trained and has no moments.
      held: whether its norm is held.
      norm: the rule for its norm as text, "held per matrix"; None without one.
      normalized: whether its decay follows the coupling of layers that a normalization follows, see `Corrected`.
      about: facts about its direction.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    role: str
    axes: str | None
    why: str
    direction: str
    multiplier: ScalarOrSchedule
    l1: ScalarOrSchedule
    l2: ScalarOrSchedule
    threshold: ScalarOrSchedule
    frozen: bool
    held: bool
    norm: str | None
    normalized: bool
    about: About
