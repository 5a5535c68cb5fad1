"""Rules for norms: which leaves are held, braked or moved by a least share, per matrix, row, column or leaf."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import chex
import jax

from adamw_jax._rules.axes import matrix_axes
from adamw_jax._rules.leaf import Leaf, require_axes
from adamw_jax._rules.masks import resolve_mask
from adamw_jax._rules.values import Resolved
from adamw_jax._tree import checks
from adamw_jax._tree.typing import Mask, Scalar

PER = ("matrix", "row", "column", "leaf")


class NormRule:
    """Base of `Held`, `Brake` and `Floor`: the leaves of a rule, and the part of a leaf that has one norm."""

    mask: Mask
    per: str
    number: ClassVar[str] = ""
    """The field with the rule's number."""

    def __post_init__(self) -> None:
        checks.check_choice("per", self.per, PER)

    @property
    def text(self) -> str:
        """The rule as `explain` shows it."""
        number = getattr(self, self.number, None)
        shown = "" if number is None or checks.is_traced(number) else f"{float(number):g} "
        return f"{type(self).__name__.lower()} {shown}per {self.per}"


@dataclasses.dataclass(frozen=True)
class Held(NormRule):
    """Hold norms as they are at the start: R normalize(theta), see `hold_norm`.

    Attributes:
      mask: the leaves: a pattern, patterns, {pattern: flag}, a function (path, leaf) -> bool, or a tree of flags.
      per: the part that has one norm: each "matrix" of a stack; each "row", the outputs of one input, such as an
        embedding's features of one token; each "column", the inputs of one output; or the whole "leaf".

    >>> Held("kernel", per="row").text
    'held per row'
    """

    mask: Mask
    per: str = "matrix"


@dataclasses.dataclass(frozen=True)
class Brake(NormRule):
    """Let norms grow by a share s of what a step asks: |theta'| = |theta| + s (|theta+| - |theta|), see `hold_norm`.

    Attributes:
      mask: the leaves, as in `Held`.
      outward: s, in [0, 1); 0 lets no norm grow. A step that makes a norm smaller stays as it is.
      per: as in `Held`.

    >>> Brake("kernel").text
    'brake 0.5 per matrix'
    """

    mask: Mask
    outward: Scalar = 0.5
    per: str = "matrix"
    number = "outward"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_number("outward", self.outward, low=0, high=1, open_high=True)


@dataclasses.dataclass(frozen=True)
class Floor(NormRule):
    """Make steps at least a share of the weights' norm: |step| >= ratio |theta|, see `hold_norm`.

    Attributes:
      mask: the leaves, as in `Held`.
      ratio: the share, > 0. A step that is zero stays zero.
      per: as in `Held`.

    >>> Floor("kernel", 1e-4).text
    'floor 0.0001 per matrix'
    """

    mask: Mask
    ratio: Scalar
    per: str = "matrix"
    number = "ratio"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_number("ratio", self.ratio, low=0, open_low=True)


Norms = Mask | NormRule | Sequence[NormRule]


def norm_rules(norms: Norms | Resolved | None, tree: chex.ArrayTree) -> list[Any]:
    """Return the rule for the norm of every leaf, in the order of `jax.tree.leaves`, None where there is none.

    Args:
      norms: a mask, which is `Held(mask)`; a rule; a sequence of rules, of which the first that finds a leaf decides;
        or resolved rules.
      tree: the parameters, or any tree of their structure.

    Raises:
      ValueError, TypeError: as `resolve_mask`; a `Held`, `Brake` or `Floor` that finds no leaf.
    """
    if isinstance(norms, Resolved):
        return norms.values
    given: Any = norms if isinstance(norms, (list, tuple)) and norms else [norms]
    are_rules = all(isinstance(each, NormRule) for each in given)
    rules = given if are_rules else [Held(norms)] if norms is not None else []
    found: list[Any] = [None] * len(jax.tree.leaves(tree))
    for rule in rules:
        flags = resolve_mask("hold_norm", rule.mask, tree)
        if are_rules and flags and not any(flags):
            raise ValueError(f"`hold_norm` must find a leaf, got {rule!r}, which finds none of {len(flags)}")
        found = [before or (rule if flag else None) for flag, before in zip(flags, found, strict=True)]
    return found


def axes_of_unit(rule: NormRule, leaf: Leaf) -> tuple[int, ...]:
    """Return the axes of a leaf over which a norm is taken: it has one norm for each place along the others.

    Raises:
      ValueError: a matrix whose axes are not known, or rows of a leaf that is no matrix.
    """
    every = tuple(range(len(leaf.shape)))
    if rule.per == "leaf":
        return every
    if leaf.is_matrix:
        require_axes("hold_norm", leaf)
    if rule.per == "matrix":
        return matrix_axes(leaf)
    letters = leaf.axes or ""
    if not {"i", "o"} <= set(letters):
        raise ValueError(
            f"`per={rule.per!r}` of `hold_norm` is for matrices, got the {leaf.role} {leaf.path!r} of shape "
            f"{leaf.shape}: use per='leaf'"
        )
    return tuple(axis for axis in every if letters[axis] == ("o" if rule.per == "row" else "i"))
