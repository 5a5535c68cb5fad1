"""The regimes of the study: data sets with networks, each named by what it has and lacks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import characters
from benchmarks.decoupling.forms import HELD, HELD_ALL, LEAN, LEAN_LOW, LEAN_SGD, NORMALIZED, TRANSFORMER
from benchmarks.decoupling.networks import dense, residual
from benchmarks.decoupling.trainings import Problem, Regime
from benchmarks.problems import random_like
from examples import maps

SHOWN, VALIDATION, TEST = 32_000, 2000, 4000
"""Examples of MNIST-1D: to train on in all (each seed has its part), to choose by, to report."""


@functools.cache
def mnist_1d():
    """Return signals (n, 40, 1) and labels from the generator of Greydanus (arXiv 2011.14439)."""
    from mnist1d.data import get_dataset_args, make_dataset

    options = get_dataset_args()
    # The generator keeps 0.8 of the numbers asked for, which are rounded to whole tens of a class.
    options.num_samples = SHOWN + VALIDATION + TEST
    made = make_dataset(options)
    x, y = (np.concatenate([made[name], made[f"{name}_test"]]) for name in ("x", "y"))
    return np.asarray(x[..., None], np.float32), np.asarray(y)


def by_lot(key, y, noise, classes):
    """Return the labels with a share of them drawn by lot."""
    which, drawn = jax.random.split(key)
    return jnp.where(jax.random.uniform(which, y.shape) < noise, jax.random.randint(drawn, y.shape, 0, classes), y)


def signals(seed, *, examples, noise=0.0):
    """MNIST-1D; sixteen seeds begin at places of their own among the examples to train on."""
    x, y = map(jnp.asarray, mnist_1d())
    rows = (2000 * jnp.asarray(seed) + jnp.arange(examples)) % SHOWN
    inputs, labels = x[rows], y[rows]
    labels = by_lot(jax.random.fold_in(jax.random.key(7), seed), labels, noise, 10)
    end = SHOWN + VALIDATION
    return Problem((inputs, labels), (x[SHOWN:end], y[SHOWN:end]), (x[end:], y[end:]))


def digits(seed, *, examples, noise=0.0, images=True):
    """Handwritten digits: of 900, every seed trains on some; 300 to validate, 597 to test."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x = jnp.asarray(x[order] / 16, jnp.float32)
    x, y = x.reshape(-1, 8, 8, 1) if images else x, jnp.asarray(y[order])
    key = jax.random.fold_in(jax.random.key(7), seed)
    rows = jax.random.permutation(key, 900)[:examples]
    labels = by_lot(jax.random.fold_in(key, 1), y[rows], noise, 10)
    return Problem((x[rows], labels), (x[900:1200], y[900:1200]), (x[1200:], y[1200:]))


def badly_scaled(seed, *, spread, examples=300, features=50):
    """Logistic regression on features scaled by 10^U(-spread, spread); every seed has a truth of its own."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(7), seed), 4)
    x = jax.random.normal(keys[0], (examples + 8000, features))
    truth = jax.random.normal(keys[1], (features,)) * 0.3
    y = (jax.random.uniform(keys[2], x.shape[:1]) < jax.nn.sigmoid(x @ truth)).astype(jnp.int32)
    x = x * 10 ** jax.random.uniform(keys[3], (features,), minval=-spread, maxval=spread)
    cut = examples + 4000
    return Problem((x[:examples], y[:examples]), (x[examples:cut], y[examples:cut]), (x[cut:], y[cut:]))


@functools.cache
def _teacher(examples, noise, gain):
    with jax.ensure_compile_time_eval():
        (x, y), rest = maps.teacher(examples, noise, gain)
        return tuple(np.asarray(each) for each in (x, y, *rest))


def teacher(seed, *, examples=4000, noise=0.0, gain=2.0):
    """What a random network with tanh tells apart: half of the validation examples report."""
    del seed
    x, y, *rest = map(jnp.asarray, _teacher(examples, noise, gain))
    (a, b) = rest
    return Problem((x, y), (a[:2000], b[:2000]), (a[2000:], b[2000:]))


def random_teacher(seed):
    """Five classes of a random network in 20 dimensions, 600 to train on, a fifth of their labels by lot."""
    del seed
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6600, 20))
    hidden = np.tanh(x @ rng.standard_normal((20, 10)) / 3)
    y = (hidden @ rng.standard_normal((10, 5))).argmax(-1)
    noisy = rng.random(600) < 0.2
    y[:600][noisy] = rng.integers(0, 5, noisy.sum())
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y)
    return Problem((x[:600], y[:600]), (x[600:2600], y[600:2600]), (x[2600:], y[2600:]))


CONTEXT = 32
"""Characters that the transformer reads at once."""


@functools.cache
def _stretches():
    paragraphs = characters.text().split("\n\n")
    text = characters.codes("\n\n".join(dict.fromkeys(paragraphs)))
    starts = np.arange(0, len(text) - CONTEXT, CONTEXT)
    windows = text[starts[:, None] + np.arange(CONTEXT + 1)].astype(np.int32)
    return windows[:, :-1], windows[:, 1:]


def one_reading(seed, *, examples):
    """Stretches of a text and what follows each character; every seed reads its part of the first nine tenths once."""
    x, y = map(jnp.asarray, _stretches())
    validation, test = len(y) - 1536, len(y) - 1024
    rows = jax.random.permutation(jax.random.fold_in(jax.random.key(7), seed), validation)[:examples]
    return Problem((x[rows], y[rows]), (x[validation:test], y[validation:test]), (x[test:], y[test:]))


def shift(key, x):
    """Return signals or images moved by lot, three places or one at most, and a little louder and noisier."""
    places, loud, noise = jax.random.split(key, 3)
    reach, axes = (3 if x.ndim == 3 else 1), x.ndim - 2
    padded = jnp.pad(x, ((0, 0), *[(reach, reach)] * axes, (0, 0)))
    starts = jax.random.randint(places, (len(x), axes), 0, 2 * reach + 1)
    cut = jax.vmap(lambda x, start: jax.lax.dynamic_slice(x, (*start, 0), (*[x.shape[0] - 2 * reach] * axes, 1)))
    amplitude = 1 + 0.1 * jax.random.normal(loud, (len(x), *[1] * (axes + 1)))
    return cut(padded, starts) * amplitude + 0.1 * jax.random.normal(noise, x.shape)


def _network(params, x, rows):
    del rows
    return maps.logits(params, x)


def _signals(norm, axes=LEAN, **data):
    init, logits = residual(norm)
    return Regime(functools.partial(signals, **data), init, logits, 1000, 32, shift, at_once=1, axes=axes)


def transformer(factor=1, updates=300):
    """Return the character transformer, 16 times `factor` wide, that reads each stretch once."""
    init = functools.partial(random_like, characters.shapes(16 * factor, CONTEXT))
    problem = functools.partial(one_reading, examples=16 * updates)
    options = {"one_pass": True, "at_once": 1, "axes": TRANSFORMER, "b2": 0.95, "choose": "loss"}
    return Regime(problem, init, _next_character, updates, 16, **options)


def _next_character(params, x, rows):
    del rows
    return characters.logits(params, x)


def _normalized(**data):
    problem = functools.partial(teacher, **data)
    options = {"at_once": 60, "axes": NORMALIZED | HELD_ALL, "b2": 0.99, "choose": "loss"}
    return Regime(problem, maps.init_params, _network, maps.UPDATES, maps.BATCH, **options)


def _logistic(spread):
    return Regime(functools.partial(badly_scaled, spread=spread), *dense(50, 2, None), 1000, 32, choose="loss")


_IMAGES = functools.partial(digits, examples=600, noise=0.2)
_FEW = functools.partial(digits, examples=300, images=False)

REGIMES = {
    "normalized MLP": _normalized(),
    "normalized MLP, 20 % by lot": _normalized(noise=0.2),
    "normalized MLP, 20000 examples": _normalized(examples=20_000, gain=4.0),
    "CNN, BatchNorm, 20 % by lot": _signals("batch", LEAN | LEAN_SGD | HELD, examples=1000, noise=0.2),
    "CNN, BatchNorm": _signals("batch", examples=1000),
    "CNN, LayerNorm, 20 % by lot": _signals("layer", examples=1000, noise=0.2),
    "CNN, LayerNorm at each place, 20 % by lot": _signals("layer at places", examples=1000, noise=0.2),
    "CNN, no normalization, 20 % by lot": _signals("none", LEAN_LOW, examples=1000, noise=0.2),
    "digits, CNN, BatchNorm, 20 % by lot": Regime(
        _IMAGES, *residual("batch", axes=2, width=8), 600, 32, shift, at_once=1, axes=LEAN
    ),
    "digits, MLP, no normalization": Regime(_FEW, *dense(64, 10), 3200, 50),
    "random teacher, MLP, no normalization, 20 % by lot": Regime(random_teacher, *dense(20, 5), 3200, 50),
    "character transformer, one pass": transformer(),
    "logistic regression, scales alike": _logistic(0.0),
    "logistic regression, scales 0.1 to 10": _logistic(1.0),
    "logistic regression, scales 0.01 to 100": _logistic(2.0),
}
"""What is searched as grids; MNIST-1D is meant where no data set is named."""
