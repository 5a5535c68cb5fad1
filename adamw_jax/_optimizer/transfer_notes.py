"""What a transfer asks of the model and of the schedule, in sentences."""

from typing import Any

from adamw_jax._optimizer.transferred import Case
from adamw_jax._rules.scaling import power
from adamw_jax._tree import checks

BY_RULE = {"learning_rate", "lr_multipliers", "weight_decay", "b1", "b2", "eps", "eps_root", "normalize_decay"}
UNDERSTOOD = BY_RULE | {"coupling", "multiplier_scales_decay", "schedule", "direction", "momentum", "axes"}
"""Options that a transfer changes, or that it reads and that need no change."""


def _number(value: Any) -> str:
    return "traced" if checks.is_traced(value) else f"{float(value):.4g}"


def _grows(growth: Any) -> bool:
    return not checks.equals(growth, 1)


def _silent_about(case: Case) -> list[str]:
    """Return what grows, and what no exponent of the rule depends on."""
    rule = case.rule
    grown = {"width": any(each.width != 1 for each in case.leaves)}
    grown |= {key: _grows(value) for key, value in case.growth._asdict().items()}
    silent = [key for key, grows in grown.items() if grows and not any(getattr(row, key) for row in rule.all_rows)]
    return [key for key in silent if key not in rule.about and not (key == "depth" and rule.branch)]


def notes_of(case: Case, updates: Any) -> list[str]:
    """Return the notes of a transfer: first work for the user, then options that were kept, then the rule's remarks.

    `updates` is the number of the target.
    """
    options, rule, growth, leaves, kinds, *_ = case
    notes = []
    if _grows(growth.depth) and rule.branch:
        factor = _number(power(growth.depth, rule.branch))
        notes.append(
            f"the model: multiply each residual branch by {factor} times its factor in the base (m_L^{rule.branch:g}); "
            "no change of the rate replaces it"
        )
    for row, exponent in rule.init.items():
        widths = sorted({each.width for each in leaves if each.row == row and each.width != 1})
        if widths:
            factors = ", ".join(f"{width**exponent:.4g}" for width in widths)
            usual = ", as initializers with 1 / sqrt(fan-in) do" if exponent == -0.5 else ""
            notes.append(
                f"the model: initial weights of role {row!r} have {factors} times the standard deviation{usual}"
            )
    heads = [each for each in leaves if each.row == "head" and each.width != 1]
    if rule.logits and heads:
        paths = ", ".join(f"{each.leaf.path} by {each.width**rule.logits:.4g}" for each in heads)
        notes.append(f"the model: multiply the outputs of {paths}")
    if _grows(growth.tokens / growth.batch):
        notes.append(
            f"the schedule: of {_number(updates)} updates, with the shape and the share of warm-up of the base"
        )
    if "direction" in options:
        notes.append(
            "the direction: kept as it was given; make it anew with the table's factors of 1 - b1, 1 - b2 and eps, "
            "which cannot be read from it"
        )
    if "muon" in kinds and any(each.width != 1 for each in leaves):
        notes.append(
            "Muon: its step is taken to be scaled by sqrt(max(1, out / in)), so that its rate keeps at other widths"
        )
    if "momentum" in options:
        notes.append("momentum: kept; the rate grows with the batch instead (1706.02677)")
    kept = sorted(key for key, value in options.items() if key not in UNDERSTOOD and value is not None)
    if kept:
        notes.append(f"kept as given, for the rule says nothing about them: {', '.join(kept)}")
    if silent := _silent_about(case):
        notes.append(
            f"rule {rule.name!r} says nothing about {', '.join(silent)}, which grows: nothing was changed for it"
        )
    return [*notes, *rule.remarks]
