"""From the schedules of golden/index.json to pieces: the library's schedules joined, shifted and scaled."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a schedule: offset + scale * kind(count + shift), for `length` updates (None: for ever)."""

    kind: str  # "cosine" (cosine_warm_restarts), "fractional" (cosine, periods not rounded), "linear", "constant"
    options: Mapping[str, Any]
    length: int | None = None
    shift: int = 0
    offset: float = 0.0
    scale: float = 1.0


class Arguments(dict):
    """The arguments not yet understood; `take` removes one under any of its names."""

    def take(self, default, *names):
        found = [self.pop(name) for name in names if name in self]
        return found[0] if found else default

    def done(self):
        if self:
            raise NotImplementedError(f"arguments without a translation: {dict(self)}")


def cosine(period, **options):
    return Piece("cosine", {"period": period, "endpoint": False, **options})


def schedule_pieces(spec, rate, steps):
    """The pieces relative to the learning rate, that rate, the deviations, and the pieces as documented.

    `spec` has the schedule's kind and arguments; `rate` is used where it names no learning rate of its own.
    """
    args = Arguments(spec)
    kind = args.take(None, "kind")
    if kind == "optax_sgdr":
        return optax_sgdr_pieces(args.take(None, "cycles")), rate, (), ()
    rate = args.take(rate, "lr", "initial_learning_rate")
    for floor in ("eta_min", "lr_min"):
        if floor in args:
            args[floor] = args[floor] / rate
    pieces = {"torch_cawr": torch_pieces, "keras_cdr": keras_pieces, "timm_cosine": timm_pieces,
              "authors_lua": authors_pieces}[kind](args, steps)  # fmt: skip
    args.done()
    if any(piece.kind == "fractional" for piece in pieces):
        return pieces, rate, ("fractional periods",), tuple(map(with_rounded_periods, pieces))
    if kind == "authors_lua":
        whole = {**pieces[1].options, "period": pieces[0].options["period"]}
        return pieces, rate, ("authors' code",), (Piece("cosine", whole),)
    return pieces, rate, (), ()


def with_rounded_periods(piece):
    if piece.kind != "fractional":
        return piece
    return dataclasses.replace(piece, kind="cosine", options={**piece.options, "endpoint": False})


def restarts(period, t_mult, steps, **options):
    """Warm restarts whose periods the library has (integers), or else the local form with fractional ones."""
    exact, start = period, 0.0
    while start < steps and float(exact).is_integer() and t_mult != 1:
        exact, start = exact * t_mult, start + exact
    if float(exact).is_integer() or start >= steps:
        return cosine(int(period), t_mult=t_mult, **options)
    return Piece("fractional", {"period": period, "t_mult": t_mult, **options})


def torch_pieces(args, steps):
    """eta_min + (lr - eta_min) (1 + cos(pi c / T_i)) / 2, T_{i+1} = T_mult T_i."""
    return (cosine(args.take(None, "T_0"), t_mult=args.take(1, "T_mult"), eta_min=args.take(0.0, "eta_min")),)


def keras_pieces(args, steps):
    """alpha + (1 - alpha) m_mul^i (1 + cos(pi c / T_i)) / 2."""
    floor = args.take(0.0, "alpha")
    piece = restarts(args.take(None, "first_decay_steps"), args.take(2.0, "t_mul"), steps,
                     eta_max_decay=args.take(1.0, "m_mul"))  # fmt: skip
    return (dataclasses.replace(piece, offset=floor, scale=1 - floor),)


def timm_pieces(args, steps):
    """lr_min + (cycle_decay^i - lr_min) (1 + cos(pi c / T_i)) / 2 for cycle_limit cycles, lr_min after them."""
    floor, t_mult, limit = args.take(0.0, "lr_min"), args.take(1.0, "cycle_mul"), args.take(1, "cycle_limit")
    period = args.take(None, "t_initial")
    piece = restarts(period, t_mult, steps, eta_min=floor, eta_max_decay=args.take(1.0, "cycle_decay"))
    end = int(np.ceil(sum(period * t_mult**i for i in range(min(limit, steps)))))
    pieces = (dataclasses.replace(piece, length=end), Piece("constant", {"value": floor}))
    warmup, first = args.take(0, "warmup_t"), args.take(0.0, "warmup_lr_init")
    if not warmup:
        return pieces
    ramp = Piece("linear", {"init": first, "peak": 1.0, "steps": warmup}, length=warmup)
    if args.take(False, "warmup_prefix"):
        return (ramp, *pieces)
    return (ramp, dataclasses.replace(pieces[0], length=end - warmup, shift=warmup), pieces[1])


def authors_pieces(args, steps):
    """The authors' Lua code: (k + 1) / n in the first cycle, k / n in the others."""
    n, t_mult = args.take(None, "Te") * args.take(None, "nBatches"), args.take(1, "Tmult")
    first = dataclasses.replace(cosine(n, autorestart=False), length=n, shift=1)
    return (first, cosine(round(n * t_mult), t_mult=t_mult))


def optax_sgdr_pieces(cycles):
    """Per cycle a linear ramp inside decay_steps, then the cosine; end_value after the last cycle."""
    same = all(cycle == cycles[0] for cycle in cycles) and not cycles[0]["warmup_steps"]
    end = cycles[-1].get("end_value", 0.0)
    last = Piece("constant", {"value": end})
    if same:
        steps = cycles[0]["decay_steps"]
        whole = cosine(steps, eta_min=end, eta_max=cycles[0]["peak_value"])
        return (dataclasses.replace(whole, length=steps * len(cycles)), last)
    pieces = []
    for c in cycles:
        ramp = c["warmup_steps"]
        if ramp:
            options = {"init": c["init_value"], "peak": c["peak_value"], "steps": ramp}
            pieces.append(Piece("linear", options, length=ramp))
        fall = cosine(c["decay_steps"] - ramp, eta_min=c.get("end_value", 0.0), eta_max=c["peak_value"])
        pieces.append(dataclasses.replace(fall, length=c["decay_steps"] - ramp))
    return (*pieces, last)
