"""The rules that `transfer` knows by name: tables of exponents, each with its source.

All decays are those of the paper's form. Where a source has a decay for the coupled form, rate x decay, the exponents
here are the sums of both.
"""

import difflib

from adamw_jax._rules.scaling import Exponents, Rule

_SDE = "2205.10287 (batch)"
_COMPLETED, _COMPLETEP = "2512.22382, table 1", "2505.01618, table 1"
_HEAD = {"matrix": -0.5, "head": -0.5}
_MUP_HEAD = {"matrix": -0.5, "head": -1.0}

DEFAULT = Rule(
    name="default",
    rate={
        "matrix": Exponents(width=-1, batch=0.5, source=f"2203.03466 (width), {_SDE}"),
        "head": Exponents(width=-1, batch=0.5, source=f"2203.03466 (width), {_SDE}"),
        "": Exponents(batch=0.5, source=_SDE),
    },
    decay=Exponents(batch=1, tokens=-0.5, source="2510.19093 (width), 2405.13698 (batch), 1711.05101 B.1 (tokens)"),
    eps=Exponents(width=-1, batch=-0.5, source=f"2505.01618 (width), {_SDE}"),
    b1=Exponents(batch=1, source=_SDE),
    b2=Exponents(batch=1, source=_SDE),
    branch=-1,
    init=_HEAD,
    source="the study",
)
"""What the study of this library supports: docs/evidence/transfer.md."""

COMPLETED = Rule(
    name="completed",
    rate={
        "matrix": Exponents(width=-1, batch=0.5, tokens=-0.5),
        "head": Exponents(width=-1, batch=0.5, tokens=-0.5),
        "": Exponents(batch=0.5, tokens=-0.5),
    },
    # rate x decay: the width's m_N^-1 and m_N cancel, sqrt(m_B / m_D) stands in both.
    decay=Exponents(batch=1, tokens=-1),
    eps={
        "matrix": Exponents(width=-1, depth=-1, batch=-0.5, tokens=0.5),
        "vector": Exponents(width=-1, depth=-1, batch=-0.5, tokens=0.5),
        "embedding": Exponents(width=-1, batch=-0.5, tokens=0.5),
        "": Exponents(batch=-0.5, tokens=0.5),
    },
    b1=Exponents(batch=1, tokens=-1),
    b2=Exponents(batch=1, tokens=-1),
    branch=-1,
    init=_MUP_HEAD,
    source=_COMPLETED,
    remarks=(
        "eps: a final normalization counts among the hidden ones; the source has neither width nor depth in its eps, "
        "and no width in that of normalizations of queries and keys",
    ),
)
"""Mlodozeniec et al., with alpha = 1."""

COMPLETEP = Rule(
    name="completep",
    # The head's m_N^-1 stands in front of the logits.
    rate={"matrix": Exponents(width=-1), "": Exponents()},
    # rate x decay: hidden matrices have m_N^-1 and m_N.
    decay=Exponents(),
    eps={
        "matrix": Exponents(width=-1, depth=-1),
        "vector": Exponents(width=-1, depth=-1),
        "": Exponents(width=-1),
    },
    branch=-1,
    init={"matrix": -0.5},
    logits=-1,
    source=_COMPLETEP,
)
"""Dey et al., with alpha = 1; checked against github.com/EleutherAI/nanoGPT-mup, branch completep."""

MUP = Rule(
    name="mup",
    rate={"matrix": Exponents(width=-1), "head": Exponents(width=-1), "": Exponents()},
    init=_MUP_HEAD,
    source="2203.03466, table 3",
)
"""Yang et al.: the width alone."""

TIMESCALE = Rule(name="timescale", decay=Exponents(batch=1, tokens=-1, source="2405.13698"), about=("width", "depth"))
"""Wang & Aitchison: the decay alone."""

SQRT_WIDTH = Rule(
    name="sqrt_width",
    rate={"matrix": Exponents(width=-1), "head": Exponents(width=-1), "": Exponents()},
    # rate x decay: m_N^-1 and m_N^0.5.
    decay={"matrix": Exponents(width=-0.5), "head": Exponents(width=-0.5), "": Exponents()},
    init=_MUP_HEAD,
    source="2510.15262",
)
"""Fan et al.: the width alone, with a decay that keeps the matrices' singular values in proportion."""

HYPERBALL = Rule(
    name="hyperball",
    rate=Exponents(batch=0.5, tokens=-0.32, source="2603.28743 (width, tokens), 2205.10287 (batch)"),
    b1=Exponents(batch=1, source=_SDE),
    b2=Exponents(batch=1, source=_SDE),
    branch=-1,
    about=("width",),
    source="2603.28743",
    remarks=(
        "for matrices whose norms are held (hold_norm=...), which need no decay",
        "at the small widths of this library's studies, held norms did not remove the 1 / m_N of Adam's rate: where "
        "the directions are like Adam's, try lr_multipliers=width_multipliers(...) beside it",
    ),
)
"""Ren et al.: norms on a sphere."""

RULES = {rule.name: rule for rule in (DEFAULT, COMPLETED, COMPLETEP, MUP, TIMESCALE, SQRT_WIDTH, HYPERBALL)}


def rule_of(rule: str | Rule) -> Rule:
    """Return a rule, or the one of that name.

    Raises:
      ValueError: an unknown name. TypeError: neither a name nor a rule.
    """
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, str):
        raise TypeError(f"`rule` must be a name or a Rule(...), got {rule!r} of type {type(rule).__name__}")
    if rule not in RULES:
        near = difflib.get_close_matches(rule, RULES, n=1, cutoff=0.0)
        known = ", ".join(map(repr, RULES))
        raise ValueError(f"`rule` must be one of {known}, or a Rule(...), got {rule!r}; the nearest is {near[0]!r}")
    return RULES[rule]
