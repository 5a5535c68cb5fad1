"""Do the claims of "Decoupled Weight Decay Regularization" show on small data, each with its own tuned optimum?

    best       (a) the test error at the best pair of rate and decay, chosen by validation error
    separable  (b) how the best decay depends on the rate, over the same grid
    budgets    (c) how the best decay depends on the number of updates, raw and normalized
    restarts   (d) the test error on the way, warm restarts against one cosine
    multiplier (e) fine-tuning: the rate of the pretrained layer against the new head's

Every grid, seeds included, is one program of `adamw_jax.sweep`.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from adamw_jax import plot as pictures
from benchmarks.pictures import plot
from benchmarks.report import publish
from benchmarks.trainings import PROBLEMS, Problem, fit, network, scores, train

RATES = {"adam": np.geomspace(3e-4, 1e-1, 7), "sgd": np.geomspace(5e-3, 2.0, 7)}


def _l2(direction):
    """Return the optimizer whose decay is part of the gradient, as a penalty's is."""

    def make(rate, decay, schedule):
        stages = (optax.add_decayed_weights(decay), direction(), optax.scale(-1.0 * rate))
        return optax.chain(*stages, aj.scale_by_warm_restarts(schedule))

    return make


def _decoupled(preset, **options):
    return lambda rate, decay, schedule: preset(rate, weight_decay=decay, schedule=schedule, **options)


OPTIMIZERS = {
    "Adam + L2": ("adam", np.geomspace(1e-5, 1e-1, 9), _l2(aj.scale_by_adam)),
    "AdamW": ("adam", np.geomspace(1e-5, 1e-1, 9), _decoupled(aj.adamw)),
    "AdamW, decay x rate": ("adam", np.geomspace(1e-2, 1e2, 9), _decoupled(aj.adamw, coupling="learning_rate")),
    "SGD + L2": ("sgd", np.geomspace(1e-5, 1e-1, 9), _l2(lambda: aj.scale_by_momentum(0.9))),
    "SGDW": ("sgd", np.geomspace(1e-5, 1e-1, 9), _decoupled(aj.sgdw, momentum=0.9)),
}


def grid_of(problem, name, seeds, updates):
    """Return {score: array of (rate, decay, seed)} of a grid."""
    kind, decays, make = OPTIMIZERS[name]
    schedule = aj.cosine_warm_restarts(updates, endpoint=False)

    def run(learning_rate, weight_decay, seed):
        return train(problem, make(learning_rate, weight_decay, schedule), seed, updates)

    axes = {"learning_rate": RATES[kind].tolist(), "weight_decay": decays.tolist(), "seed": list(range(seeds))}
    return aj.sweep(run, axes, progress=False).values


def best_pair(errors):
    """Return the indices of the pair with the smallest mean error over the seeds."""
    means = errors.mean(axis=-1)
    return np.unravel_index(means.argmin(), means.shape)


def optimum(axis, losses):
    """Return the place of the smallest loss on a logarithmic axis, between its points by a parabola through three."""
    at = int(np.argmin(losses))
    x = np.log(axis)
    if not 0 < at < len(x) - 1:
        return x[at]
    before, here, after = losses[at - 1 : at + 2]
    bend = before - 2 * here + after
    return x[at] + (x[1] - x[0]) * (0.5 * (before - after) / bend if bend > 0 else 0.0)


def coupling_slope(rates, decays, losses, within=1.1):
    """Return d log(best decay) / d log(rate): 0 where the two can be tuned apart, -1 where only their product counts.

    A least-squares line through the optima of the rates whose smallest loss is at most `within` times the grid's.

    Args:
      rates, decays: the axes.
      losses: (rate, decay).
    """
    smallest = losses.min(axis=1)
    useful = smallest <= within * smallest.min()
    if useful.sum() < 2:
        return np.nan
    optima = [optimum(decays, row) for row in losses[useful]]
    return float(np.polyfit(np.log(np.asarray(rates)[useful]), optima, 1)[0])


def with_spread(values):
    values = np.asarray(values, float)
    return f"{np.nanmean(values):.2f} ± {np.nanstd(values, ddof=1):.2f}"


def best_and_separable(problems, seeds, updates):
    best, separable, maps = [], [], {}
    for title, problem in problems.items():
        for name, (kind, decays, _) in OPTIMIZERS.items():
            values = grid_of(problem, name, seeds, updates)
            losses = np.nan_to_num(values["validation loss"], nan=1e3, posinf=1e3)
            wrong = values["validation error"]
            row, column = best_pair(wrong)
            errors = values["test error"][row, column]
            undecayed = values["test error"][best_pair(wrong[:, :1])[0], 0]
            pair = {"learning rate": float(RATES[kind][row]), "decay": float(decays[column])}
            shown = {"test error %": with_spread(errors), "least decay, own best rate %": with_spread(undecayed)}
            best.append({"data": title, "optimizer": name} | pair | shown)
            print(best[-1], flush=True)
            slopes = [coupling_slope(RATES[kind], decays, losses[..., seed]) for seed in range(seeds)]
            mean = coupling_slope(RATES[kind], decays, losses.mean(-1))
            separable.append({"data": title, "optimizer": name, "slope": with_spread(slopes), "of the mean": mean})
            maps[title, name] = (RATES[kind], decays, losses.mean(-1))
    publish("decoupling_best", best)
    publish("decoupling_separable", separable)

    def draw(axes):
        axes = axes.reshape(len(problems), -1)
        for ax, ((title, name), (rates, decays, losses)) in zip(axes.flat, maps.items(), strict=True):
            points = [{"learning_rate": a, "weight_decay": b} for a in rates for b in decays]
            table = aj.Sweep({"learning_rate": rates, "weight_decay": decays}, points, np.minimum(losses, 2.5))
            pictures.heat_map(table, label="validation loss", ax=ax)
            ax.set_title(f"{title}: {name}")

    plot("decoupling_maps", draw, size=(24, 8), grid=(len(problems), len(OPTIMIZERS)))


def budgets(problems, seeds, shortest):
    rows, curves = [], {}
    lengths = [shortest * factor for factor in (1, 2, 4, 8)]
    decays = np.geomspace(1e-5, 1e-1, 17)
    for title, problem in problems.items():
        losses = []
        for updates in lengths:
            schedule = aj.cosine_warm_restarts(updates, endpoint=False)

            def run(weight_decay, seed, updates=updates, schedule=schedule, problem=problem):
                return train(problem, aj.adamw(5e-3, weight_decay=weight_decay, schedule=schedule), seed, updates)

            axes = {"weight_decay": decays.tolist(), "seed": list(range(seeds))}
            losses.append(aj.sweep(run, axes, progress=False).values["validation loss"])
        optima = np.array([[optimum(decays, each[:, seed]) for seed in range(seeds)] for each in losses])
        slopes = np.polyfit(np.log(lengths), optima, 1)[0]
        row = {"data": title}
        row |= {f"best decay, {n} updates": float(np.exp(o.mean())) for n, o in zip(lengths, optima, strict=True)}
        rows.append(row | {"slope, raw": with_spread(slopes), "slope, normalized": with_spread(slopes + 0.5)})
        curves[title] = np.stack([each.mean(-1) for each in losses])
    publish("decoupling_budgets", rows)

    def draw(axes):
        for (raw, normalized), (title, each) in zip(axes, curves.items(), strict=True):
            for n, row in zip(lengths, each, strict=True):
                raw.loglog(decays, row, marker=".", label=f"{n} updates")
                normalized.loglog(decays * n**0.5, row, marker=".", label=f"{n} updates")
            raw.set(title=title, xlabel="decay lambda", ylabel="validation loss")
            normalized.set(title=title, xlabel="normalized decay lambda sqrt(T)")
            raw.legend()

    plot("decoupling_budgets", draw, size=(10, 7), grid=(len(problems), 2))


def restarts(problems, seeds, shortest):
    rows, curves = [], {}
    updates, every = 7 * shortest, shortest // 5
    schedules = {
        "warm restarts": aj.cosine_warm_restarts(shortest, t_mult=2, endpoint=False),
        "one cosine": aj.cosine_warm_restarts(updates, endpoint=False),
    }
    for title, problem in problems.items():
        along = {}
        for name, schedule in schedules.items():

            def run(seed, schedule=schedule, problem=problem):
                key = jax.random.key(seed)
                params = network(key, problem.training[0].shape[-1], problem.classes)
                tx = aj.adamw(5e-3, weight_decay=4e-3, schedule=schedule)
                way = fit(tx, params, problem.training, jax.random.fold_in(key, 1), updates, every)
                return jax.vmap(lambda params: scores(params, problem)["test error"])(way)

            along[name] = aj.sweep(run, {"seed": list(range(seeds))}, progress=False).values
            ends = {
                f"after {n}": with_spread(along[name][:, n // every - 1]) for n in (shortest, 3 * shortest, updates)
            }
            rows.append(
                {"data": title, "schedule": name} | ends | {"mean of the way": with_spread(along[name].mean(-1))}
            )
        curves[title] = along
    publish("decoupling_restarts", rows)

    def draw(axes):
        for ax, (title, along) in zip(axes.flat, curves.items(), strict=True):
            pictures.history(along, xlabel="updates", ylabel="test error (%)", first=every, step=every, ax=ax)
            ax.set_title(title)

    plot("decoupling_restarts", draw, size=(10, 4), grid=(1, len(problems)))


def multiplier(problems, seeds, updates):
    """Pretrain on the digits 0 to 6, fine-tune on 7 to 9 with ten examples of each."""
    parts = [tuple(map(np.asarray, part)) for part in problems["digits"][:3]]
    x, y = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    old, new = y < 7, np.flatnonzero(y >= 7)
    source = (jnp.asarray(x[old]), jnp.asarray(y[old]))
    multipliers, rates = [0.0, 0.01, 0.1, 1.0], np.geomspace(1e-4, 3e-2, 6)
    schedule = aj.cosine_warm_restarts(updates, endpoint=False)

    def shots(seed):
        order = np.random.default_rng(seed).permutation(new)
        few = np.concatenate([order[y[order] == digit][:10] for digit in (7, 8, 9)])
        rest = np.setdiff1d(order, few)
        return few, rest[: len(rest) // 2], rest[len(rest) // 2 : len(rest) // 2 * 2]

    drawn = [jnp.asarray(np.stack(part)) for part in zip(*(shots(seed) for seed in range(seeds)), strict=True)]
    x, y = jnp.asarray(x), jnp.asarray(np.maximum(y - 7, 0))

    def run(learning_rate, multiplier, pretrained, seed):
        few, validation, test = ((x[part[seed]], y[part[seed]]) for part in drawn)
        key = jax.random.key(seed)
        start = network(key, 64, 7)
        body = fit(aj.adamw(5e-3, schedule=schedule), start, source, jax.random.fold_in(key, 1), updates)["body"]
        body = jax.tree.map(lambda a, b: jnp.where(pretrained == 1, a, b), body, start["body"])
        params = {"body": body, "head": network(jax.random.fold_in(key, 2), 64, 3)["head"]}
        tx = aj.adamw(learning_rate, lr_multipliers={"body": multiplier}, schedule=schedule)
        params = fit(tx, params, few, jax.random.fold_in(key, 3), updates)
        return scores(params, Problem(few, validation, test, 3))

    rows = []
    for pretrained, r in [(1, r) for r in multipliers] + [(0, 1.0)]:
        points = [
            {"learning_rate": float(rate), "multiplier": r, "pretrained": pretrained, "seed": seed}
            for rate in rates
            for seed in range(seeds)
        ]
        values = aj.sweep(run, points, progress=False).values
        losses, errors = (values[key].reshape(len(rates), seeds) for key in ("validation loss", "test error"))
        at = int(losses.mean(-1).argmin())
        name = "from scratch" if not pretrained else {0.0: "frozen", 1.0: "full rate"}.get(r, "low rate")
        shown = {"multiplier of the body": r, "best rate": float(rates[at]), "test error %": with_spread(errors[at])}
        rows.append({"body": name} | shown)
    publish("decoupling_multiplier", rows)


PARTS = ("grid", "budgets", "restarts", "multiplier")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="grid is (a) and (b)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--updates", type=int, default=3200, help="of the grids; the shortest budget is a quarter of it"
    )
    args = parser.parse_args()
    problems = {name: make() for name, make in PROBLEMS.items()}
    calls = {
        "grid": lambda: best_and_separable(problems, args.seeds, args.updates),
        "budgets": lambda: budgets(problems, args.seeds, args.updates // 4),
        "restarts": lambda: restarts(problems, 2 * args.seeds, args.updates // 4),
        "multiplier": lambda: multiplier(problems, 2 * args.seeds, args.updates),
    }
    for part in args.parts.split(","):
        calls[part]()


if __name__ == "__main__":
    main()
