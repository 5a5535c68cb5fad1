"""Rules that carry a tuned number over to another run, as tables of exponents of width, depth, batch and tokens."""

import dataclasses
import difflib
import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from adamw_jax._tree import checks

ROLES = ("matrix", "head", "embedding", "vector", "scalar")
"""Rows of a table; "" is the row of the roles that have none."""

LIKE = ("adam", "muon", "momentum")
"""Kinds of directions: by how a step's size depends on the gradient and on the width."""


class Exponents(NamedTuple):
    """The exponents of a factor m_N^width m_L^depth m_B^batch m_D^tokens, and their source.

    m_N is the growth of a matrix's inputs, or of another leaf's features; m_L that of the number of residual blocks,
    m_B that of the batch, m_D that of the tokens (or examples) of the run.
    """

    width: float = 0.0
    depth: float = 0.0
    batch: float = 0.0
    tokens: float = 0.0
    source: str = ""


NO_CHANGE = Exponents(source="not in the rule")

Row = Exponents | Mapping[str, Any]


def _exponents(name: str, value: Row) -> Exponents:
    if isinstance(value, Exponents):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be exponents {{'width': number, ...}}, got {value!r}")
    for key, number in value.items():
        if key not in Exponents._fields:
            near = difflib.get_close_matches(str(key), Exponents._fields, n=1, cutoff=0.0)
            known = ", ".join(Exponents._fields[:4])
            raise ValueError(f"`{name}` must have exponents of {known}, got {key!r}; the nearest is {near[0]!r}")
        if key != "source":
            checks.check_number(f"{name}[{key!r}]", number)
    return Exponents(**value)


def _table(name: str, rows: Mapping[str, Row] | Row) -> dict[str, Exponents]:
    """Return a table {role: exponents}; one row alone is that of all roles."""
    if isinstance(rows, Exponents) or (isinstance(rows, Mapping) and set(rows) & set(Exponents._fields)):
        rows = {"": rows}
    if not isinstance(rows, Mapping):
        raise TypeError(f"`{name}` must be exponents, or {{role: exponents}}, got {rows!r}")
    known = ("", *ROLES, *LIKE[1:], *(f"{like} {role}" for like in LIKE[1:] for role in ROLES))
    for role in rows:
        if role not in known:
            near = difflib.get_close_matches(str(role), known, n=3, cutoff=0.0)
            raise ValueError(
                f"`{name}` must have roles as keys, got {role!r}; the nearest are {', '.join(map(repr, near))}"
            )
    return {role: _exponents(f"{name}[{role!r}]", row) for role, row in rows.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule for `transfer`: how tuned numbers change with width, depth, batch and tokens.

        number of the target = number of the base * m_N^width m_L^depth m_B^batch m_D^tokens

    Attributes:
      name: for tables and errors.
      rate, decay, eps: {role: exponents} with the roles "matrix", "head", "embedding", "vector" (biases, scales,
        norms), "scalar", and "" for the others; or exponents alone, for all. Exponents are {"width": number,
        "depth": ..., "batch": ..., "tokens": ..., "source": text}, 0 where left out. "muon matrix" or "momentum" are
        rows for directions of that kind. `decay` is the paper's form's: what an update takes away at the peak.
      b1, b2: exponents of 1 - b1 and of 1 - b2, for all leaves.
      branch: the exponent of depth of the factor in front of each residual branch, for the notes.
      init: {role: exponent of width} of the standard deviation of initial weights, for the notes.
      logits: the exponent of width of a factor in front of the logits, for the notes.
      about: what the rule covers without an exponent: "width" where no number depends on it.
      source: of the rows that have none of their own.
      remarks: texts for the notes.

    Source: see `transfer` for each rule that has a name.

    >>> rule = Rule(name="mine", rate={"matrix": {"width": -1.0, "batch": 0.5}, "": {"batch": 0.5}})
    >>> rule.exponents("rate", "matrix").width, rule.exponents("rate", "embedding").width
    (-1.0, 0.0)
    """

    name: str = "my own"
    rate: Mapping[str, Row] | Row = NO_CHANGE
    decay: Mapping[str, Row] | Row = NO_CHANGE
    eps: Mapping[str, Row] | Row = NO_CHANGE
    b1: Row = NO_CHANGE
    b2: Row = NO_CHANGE
    branch: float = 0.0
    init: Mapping[str, float] = dataclasses.field(default_factory=dict)
    logits: float = 0.0
    about: tuple[str, ...] = ()
    source: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rate", "decay", "eps", "b1", "b2"):
            object.__setattr__(self, name, _table(name, getattr(self, name)))

    @property
    def all_rows(self) -> list[Exponents]:
        """The exponents of all numbers and roles."""
        tables: Any = (self.rate, self.decay, self.eps, self.b1, self.b2)
        return [row for table in tables for row in table.values()]

    @property
    def needs_depth(self) -> bool:
        """Whether a number of the optimizer depends on the depth."""
        return any(row.depth != 0 for row in self.all_rows)

    def exponents(self, quantity: str, role: str = "", like: str = "adam") -> Exponents:
        """Return the exponents of "rate", "decay", "eps", "b1" (of 1 - b1) or "b2" for a role and a kind of direction.

        Without a row for "muon" or "momentum", the rate's are Adam's changed by `_KINDS`, and b1 of a velocity stays.
        """
        table: dict[str, Exponents] = getattr(self, quantity)
        own = (f"{like} {role}".strip(), like) if like != "adam" else ()
        found = next((table[key] for key in (*own, role, "") if key in table), NO_CHANGE)
        if found.source == "":
            found = found._replace(source=self.source)
        if like == "adam" or any(key in table for key in own) or found.source == NO_CHANGE.source:
            return found
        if like == "momentum" and quantity == "b1":
            return NO_CHANGE
        return _KINDS[like](role, found) if quantity == "rate" else found


def _for_muon(role: str, row: Exponents) -> Exponents:
    """Return Adam's row for a step times sqrt(max(1, out / in)), whose spectral size is the same at every width."""
    source = f"{row.source}; width: derived, the step's spectral size"
    return row._replace(width=0.0, source=source) if role == "matrix" else row


def _for_momentum(role: str, row: Exponents) -> Exponents:
    """Return muP's column for SGD; a step that grows with the gradient needs Adam's factor of a batch squared."""
    width = {"matrix": 0.0, "head": -1.0}.get(role, 1.0)
    return row._replace(width=width, batch=2 * row.batch, source="2203.03466 (width), 1706.02677 (batch)")


_KINDS = {"muon": _for_muon, "momentum": _for_momentum}


def power(growth: Any, exponent: float) -> Any:
    """Return growth^exponent, exactly 1 where nothing grows."""
    if exponent == 0 or checks.equals(growth, 1):
        return 1.0
    return growth if exponent == 1 else growth**exponent


class Growth(NamedTuple):
    """How a run has grown besides its widths: m_L, m_B, m_D."""

    depth: Any = 1.0
    batch: Any = 1.0
    tokens: Any = 1.0

    def parts(self, exponents: Exponents, width: Any = 1.0) -> tuple[Any, ...]:
        """Return the factors from width, depth, batch and tokens."""
        return tuple(power(growth, e) for growth, e in zip((width, *self), exponents[:4], strict=True))

    def factor(self, exponents: Exponents, width: Any = 1.0) -> Any:
        """Return their product.

        >>> Growth(batch=4.0, tokens=16.0).factor(Exponents(width=-1, batch=1, tokens=-0.5), width=2.0)
        0.5
        """
        return math.prod(self.parts(exponents, width))

    def key(self, exponents: Exponents, width: Any = 1.0) -> tuple[Any, ...]:
        """Return a key that is equal for leaves with one factor, also where the growths are traced."""
        grown = zip((width, *self), exponents[:4], strict=True)
        powers = tuple(0.0 if checks.equals(growth, 1) else exponent for growth, exponent in grown)
        return (width if powers[0] else 1.0, *powers)


def combined(*terms: tuple[float, Exponents]) -> Exponents:
    """Return the exponents of a product of powers of factors: (power, exponents) each.

    >>> combined((1, Exponents(batch=1)), (-1, Exponents(batch=0.5))).batch
    0.5
    """
    columns = zip(*(exponents[:4] for _, exponents in terms), strict=True)
    times = [power for power, _ in terms]
    width, depth, batch, tokens = (sum(map(operator.mul, times, map(float, column))) for column in columns)
    return Exponents(width, depth, batch, tokens, terms[0][1].source)
