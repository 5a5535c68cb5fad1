"""Packed and bfloat16 moments: bits, statistics, agreement with a NumPy twin, and what training makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax import states
from adamw_jax._storage.formats import pack, unpack
from adamw_jax._storage.rounding import LOW, mix, noise, round_bits, round_to_bfloat16, seed_of
from adamw_jax._storage.words8 import pack8, unpack8

NARROW = ["packed", "bfloat16", "packed8"]
SPACING = {"packed": 2**-7, "bfloat16": 2**-7, "packed8": 2**-2}  # of neighbours, relative, at most
DIRECTIONS = {
    "adam": aj.scale_by_adam,
    "amsgrad": aj.scale_by_amsgrad,
    "amsgrad of nu_hat": lambda **kw: aj.scale_by_amsgrad(max_of="nu_hat", **kw),
    "nadam": aj.scale_by_nadam,
    "momentum": aj.scale_by_momentum,
    "nesterov": lambda **kw: aj.scale_by_momentum(nesterov=True, **kw),
}


def mix_twin(x):
    x = np.asarray(x, np.uint64)
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return (x ^ (x >> 16)).astype(np.uint32)


def noise_twin(shape, count, salt):
    index = np.arange(int(np.prod(shape)), dtype=np.uint32).reshape(shape)
    return mix_twin(index ^ mix_twin(count) ^ np.asarray(salt, np.uint32))


def pack_twin(mu, nu, bits):
    high = np.asarray(mu, np.float32).view(np.uint32).astype(np.uint64) + (bits >> 16)
    low = np.asarray(nu, np.float32).view(np.uint32).astype(np.uint64) + (bits & 0xFFFF)
    return ((high & 0xFFFF0000) | (low >> 16)).astype(np.uint32)


def unpack_twin(words):
    return (words & 0xFFFF0000).view(np.float32), (words << np.uint32(16)).view(np.float32)


def floats(bits):
    return jax.lax.bitcast_convert_type(jnp.asarray(bits, jnp.uint32), jnp.float32)


def as_bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 3, 4), (1, 1)], ids=str)
def test_noise_is_the_twins_bit_for_bit(shape):
    for count, leaf in [(1, 0), (2, 0), (2, 5), (2**31 - 1, 2000)]:
        got = noise(shape, seed_of(jnp.int32(count)), np.uint32(leaf))
        np.testing.assert_array_equal(got, noise_twin(shape, count, leaf))


def test_the_index_of_a_leaf_beyond_32_bits_wraps():
    """A leaf of 2^33 elements: its last ones, of which alone the compiled program makes anything."""
    last = jax.jit(lambda count: noise((2**17, 2**16), seed_of(count), np.uint32(3))[-1, -4:])(jnp.int32(5))
    index = np.arange(2**32 - 4, 2**32, dtype=np.uint64).astype(np.uint32)
    np.testing.assert_array_equal(last, mix_twin(index ^ mix_twin(5) ^ np.uint32(3)))


def test_all_bfloat16_pairs_survive_packing_whatever_the_noise():
    halves = np.arange(2**16, dtype=np.uint32) << 16
    finite = halves[np.isfinite(halves.view(np.float32))]
    mu, nu = floats(finite), floats(finite[::-1])
    for bits in (0, 0xFFFFFFFF, 0x1234ABCD):
        back = unpack(pack(mu, nu, jnp.full(mu.shape, bits, jnp.uint32)))
        np.testing.assert_array_equal(as_bits(back[0]), finite)
        np.testing.assert_array_equal(as_bits(back[1]), finite[::-1])


def test_random_pairs_pack_as_the_twin_does_bit_for_bit():
    rng = np.random.default_rng(0)
    mu = rng.standard_normal(4096).astype(np.float32)
    nu = np.square(rng.standard_normal(4096)).astype(np.float32) * np.float32(1e-8)
    bits = noise_twin((4096,), 3, 1)
    np.testing.assert_array_equal(pack(mu, nu, jnp.asarray(bits)), pack_twin(mu, nu, bits))


@pytest.mark.parametrize("bits", [0, 0xFFFF])
def test_what_is_not_finite_stays_what_it_is(bits):
    # Quiet and signalling NaNs of both signs, with the payloads that a carry or a truncation would turn into numbers.
    nans = floats([0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001])
    assert np.isnan(floats(round_bits(nans, jnp.full(nans.shape, bits, jnp.uint32)))).all()
    infinities = floats([0x7F800000, 0xFF800000])
    np.testing.assert_array_equal(floats(round_bits(infinities, jnp.full((2,), bits, jnp.uint32))), infinities)


def test_every_nan_is_one_nan_once_rounded():
    nans = floats([0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001])
    noise16 = jnp.full(nans.shape, 0xFFFF, jnp.uint32)
    np.testing.assert_array_equal(round_bits(nans, noise16), 0x7FC00000)
    narrow = round_to_bfloat16(nans, noise16)
    np.testing.assert_array_equal(jax.lax.bitcast_convert_type(narrow, jnp.uint16), 0x7FC0)
    words = pack(nans, nans, jnp.full(nans.shape, 0xFFFFFFFF, jnp.uint32))
    np.testing.assert_array_equal(words, 0x7FC07FC0)


def test_all_words_of_eight_bits_are_read_as_the_twin_reads_them():
    words = np.arange(2**16, dtype=np.uint32)
    for code, smallest, top, moment in (
        ((words >> 8) & 127, np.float32(2.0**-28), 127, unpack8(words.astype(np.uint16))[0]),
        (words & 255, np.float32(2.0**-56), 255, unpack8(words.astype(np.uint16))[1]),
    ):
        expected = ((code << 21) + smallest.view(np.uint32)).astype(np.uint32).view(np.float32) - smallest
        expected = np.where(code == top, np.nan, expected)
        np.testing.assert_array_equal(np.abs(moment), expected)
    negative = np.signbit(unpack8(words.astype(np.uint16))[0])[((words >> 8) & 127) != 127]
    np.testing.assert_array_equal(negative, (words >> 15 == 1)[((words >> 8) & 127) != 127])


@pytest.mark.parametrize("moment_dtype", NARROW)
@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_leaves_no_finite_first_moment(name, moment_dtype, bad):
    tx = DIRECTIONS[name](moment_dtype=moment_dtype)
    params = jnp.zeros(4)
    state = tx.init(params)
    for gradient in (bad, 1.0):
        updates, state = tx.update(jnp.array([gradient, 1.0, 1.0, gradient]), state)
    assert not np.isfinite(updates[jnp.array([0, 3])]).any()
    assert np.isfinite(updates[1:3]).all()
    first = aj.read_moments(state)[0] if hasattr(state, "nu") or hasattr(state, "moments") else state.trace
    assert not np.isfinite(first.astype(jnp.float32)[jnp.array([0, 3])]).any()


def test_subnormal_numbers_round_like_the_others():
    x = floats([0x00000001, 0x00008000, 0x007FFFFF, 0x80000001])
    np.testing.assert_array_equal(as_bits(floats(round_bits(x, jnp.zeros(4, jnp.uint32)))), as_bits(x) & 0xFFFF0000)
    np.testing.assert_array_equal(round_bits(x, jnp.full(4, 0xFFFF, jnp.uint32)) >> 16, [1, 1, 0x80, 0x8001])


@pytest.mark.parametrize("x", [1.0, 1.003, 1.00001, -3.1415927, 1e-30, 0.0])
def test_rounding_is_unbiased_over_elements_and_over_steps(x):
    for words in (
        noise((65536,), seed_of(jnp.int32(7)), np.uint32(3)),
        jax.vmap(lambda count: noise((), seed_of(count), np.uint32(3)))(jnp.arange(65536)),
    ):
        rounded = round_to_bfloat16(jnp.full(65536, x, jnp.float32), words & LOW).astype(jnp.float32)
        spacing = 2.0 ** (np.floor(np.log2(abs(x))) - 7) if x else 0.0
        # The standard error of the mean of 65536 draws from two neighbours is at most spacing / 2 / 256; five of them.
        assert abs(np.asarray(rounded, np.float64).mean() - np.float32(x)) <= 5 * spacing / 512


def test_noise_is_uncorrelated_across_elements_steps_leaves_and_halves():
    def uniform(count, leaf):
        words = np.asarray(noise((256, 256), seed_of(jnp.int32(count)), np.uint32(leaf)))
        return (words >> 16) / 65536 - 0.5, (words & 0xFFFF) / 65536 - 0.5

    high, low = uniform(1, 0)
    pairs = [(high, low)]
    pairs += [(half, np.roll(half, shift, axis)) for half in (high, low) for axis in (0, 1) for shift in (1, 2, 8)]
    pairs += [(high, uniform(count, leaf)[0]) for count, leaf in ((2, 0), (3, 0), (1, 1), (2, 1), (257, 0))]
    for a, b in pairs:
        # 65536 independent pairs have a sample correlation of standard deviation 1 / 256; five of them.
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / 256


def test_every_bit_of_the_hash_depends_on_every_bit_of_its_input():
    words = jnp.asarray(np.random.default_rng(0).integers(0, 2**32, 4096), jnp.uint32)
    flips = np.array(
        [
            [jnp.mean(((mix(words) ^ mix(words ^ np.uint32(1 << i))) >> o) & 1) for o in range(32)]
            for i in (0, 7, 16, 31)
        ]
    )
    # A fair coin thrown 4096 times strays from 1/2 by 0.0078 (one standard deviation); six of them.
    assert np.abs(flips - 0.5).max() < 6 * 0.0079


@pytest.mark.parametrize("moment_dtype", NARROW)
def test_moments_of_constant_and_of_vanished_gradients_are_unbiased(moment_dtype):
    tx = aj.scale_by_adam(b1=0.9, b2=0.99, moment_dtype=moment_dtype)

    def run(state, gradient, steps):
        def body(state, _):
            return tx.update(jnp.full(4096, gradient, jnp.float32), state)[1], None

        return jax.lax.scan(body, state, None, steps)[0]

    state = run(tx.init(jnp.zeros(4096)), 0.3, 200)
    mu, nu = aj.read_moments(state)
    # A step adds an error of half the spacing at most, and ten (a hundred) steps are remembered: their mean over 4096
    # moments has a standard error below spacing / 2 * sqrt(10 / 2 / 4096), or sqrt(100 / 2 / 4096); three of them.
    spacing = SPACING[moment_dtype]
    np.testing.assert_allclose(np.mean(mu), 0.3 * (1 - 0.9**200), rtol=0.05 * spacing)
    np.testing.assert_allclose(np.mean(nu), 0.09 * (1 - 0.99**200), rtol=0.17 * spacing)
    mu, nu = aj.read_moments(run(state, 0.0, 100))
    # Gradients of zero let the moments decay; rounded to nearest, 0.99 nu would stop where it loses less than 2^-9.
    np.testing.assert_allclose(np.mean(nu), 0.09 * (1 - 0.99**200) * 0.99**100, rtol=0.34 * spacing)
    assert np.std(nu) < 10 * spacing * np.mean(nu)


def test_packed_adam_is_the_twin_bit_for_bit():
    # Powers of two as rates and gradients of few bits: float32 calculates the moments exactly, in whatever order.
    tx = aj.scale_by_adam(b1=0.5, b2=0.75, moment_dtype="packed")
    rng = np.random.default_rng(1)
    params = {"a": jnp.zeros((3, 5)), "b": [jnp.zeros(()), jnp.zeros(7)]}
    state = tx.init(params)
    words = [np.zeros(p.shape, np.uint32) for p in jax.tree.leaves(params)]
    for count in range(1, 7):
        grads = [np.asarray(rng.integers(-15, 16, w.shape), np.float32) for w in words]
        updates, state = jax.jit(tx.update)(jax.tree.unflatten(jax.tree.structure(params), grads), state)
        for leaf, (g, word) in enumerate(zip(grads, words, strict=True)):
            mu, nu = unpack_twin(word)
            mu, nu = 0.5 * mu + 0.5 * g, 0.75 * nu + 0.25 * g * g
            words[leaf] = pack_twin(mu, nu, noise_twin(g.shape, count, g.view(np.uint32)))
        for got, expected in zip(jax.tree.leaves(state.moments), words, strict=True):
            np.testing.assert_array_equal(got, expected)
    for u, word in zip(jax.tree.leaves(updates), words, strict=True):
        mu, nu = (moment.astype(np.float64) for moment in unpack_twin(word))
        direction = mu / (1 - 0.5**6) / (np.sqrt(nu / (1 - 0.75**6)) + 1e-8)
        # A handful of float32 operations, half an ulp each.
        np.testing.assert_allclose(u, direction, rtol=1e-6, atol=1e-30)


def encode_twin(x, smallest, not_a_number, share):
    position = 4 * np.log2((np.abs(np.float64(x)) + smallest) / smallest)
    octave = np.floor(position / 4)
    # Within an octave the codes lie evenly between its ends.
    position = 4 * octave + 4 * ((np.abs(np.float64(x)) + smallest) / smallest / 2**octave - 1)
    return np.minimum(np.floor(position + share), not_a_number - 1)


def test_eight_bit_words_hold_sign_and_codes_as_the_twin_has_them():
    rng = np.random.default_rng(3)
    mu = (rng.standard_normal(4096) * 10.0 ** rng.uniform(-9, 2, 4096)).astype(np.float32)
    nu = (rng.random(4096) * 10.0 ** rng.uniform(-18, 3, 4096)).astype(np.float32)
    words = np.asarray(pack8(mu, nu, jnp.zeros(4096, jnp.uint32)))
    np.testing.assert_array_equal(words >> 15, mu < 0)
    # Adding `smallest` in float32 may reach the next code, half an ulp early.
    for codes, x, smallest, top in (((words >> 8) & 127, mu, 2.0**-28, 127), (words & 255, nu, 2.0**-56, 255)):
        expected = encode_twin(x, smallest, top, 0.0)
        assert (np.abs(codes - expected) <= 1).all()
        assert (codes == expected).mean() > 0.999
    back = unpack8(pack8(*unpack8(words), jnp.full(4096, 0x12345678, jnp.uint32)))
    np.testing.assert_array_equal(back[0], unpack8(words)[0])
    np.testing.assert_array_equal(back[1], unpack8(words)[1])


def test_eight_bit_words_end_where_the_documentation_says():
    largest = unpack8(pack8(jnp.array([1e9, -1e9]), jnp.array([1e9, 0.0]), jnp.zeros(2, jnp.uint32)))
    np.testing.assert_allclose(largest[0], [11.3, -11.3], rtol=0.15)
    assert float(largest[1][0]) > 150
    assert float(largest[1][1]) == 0


@pytest.mark.parametrize("x", [1.0, 1.1, -0.3, 3e-8, 1e-9, 0.0])
def test_eight_bit_rounding_is_unbiased(x):
    words = noise((65536,), seed_of(jnp.int32(7)), np.uint32(3))
    mu, nu = (np.float64(m) for m in unpack8(pack8(jnp.full(65536, x), jnp.full(65536, x * x), words)))
    # The standard error of the mean of 65536 draws from two neighbours is at most spacing / 2 / 256; five of them.
    np.testing.assert_allclose(mu.mean(), x, atol=5 / 512 * max(abs(x) / 4, 2.0**-30))
    np.testing.assert_allclose(nu.mean(), x * x, atol=5 / 512 * max(x * x / 4, 2.0**-58))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_both_narrow_forms_round_with_the_same_noise(name):
    states = []
    for moment_dtype in ("packed", "bfloat16"):
        tx = DIRECTIONS[name](moment_dtype=moment_dtype)
        state = tx.init(jnp.zeros(64))
        for k in range(3):
            updates, state = tx.update(jnp.sin(jnp.arange(64.0) + k), state)
        states.append(updates)
    # One rounding of the moments that a contracted multiplication tips over is 2^-8; none at all in most elements.
    np.testing.assert_allclose(*states, rtol=2**-6, atol=1e-6)
    assert np.mean(np.isclose(*states, rtol=1e-5)) > 0.9


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("moment_dtype", NARROW)
def test_directions_stay_close_to_float32(name, moment_dtype):
    narrow, wide = DIRECTIONS[name](moment_dtype=moment_dtype), DIRECTIONS[name]()
    states = narrow.init(jnp.zeros(512)), wide.init(jnp.zeros(512))
    for k in range(5):
        g = 2 + jnp.sin(jnp.arange(512.0) * (k + 1))
        (a, state_a), (b, state_b) = narrow.update(g, states[0]), wide.update(g, states[1])
        states = state_a, state_b
    # Five roundings of at most the spacing each, in the numerator and under a root; a velocity takes 16 bits at least.
    spacing = 2**-7 if "mom" in name or "nest" in name else SPACING[moment_dtype]
    np.testing.assert_allclose(a, b, rtol=8 * spacing)
    assert (np.asarray(a) != np.asarray(b)).any()


def test_states_hold_what_the_documentation_says():
    params = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)}

    def dtypes(tx):
        state = tx.init(params)
        shapes = {p.shape for p in jax.tree.leaves(params)} | {()}
        assert {leaf.shape for leaf in jax.tree.leaves(state)} == shapes
        return type(state), [leaf.dtype.name for leaf in jax.tree.leaves(state)]

    assert dtypes(aj.scale_by_adam(moment_dtype="packed")) == (states.PackedMomentsState, ["int32"] + 2 * ["uint32"])
    assert dtypes(aj.scale_by_adam(moment_dtype=jnp.bfloat16)) == (optax.ScaleByAdamState, ["int32"] + 4 * ["bfloat16"])
    assert dtypes(aj.scale_by_adam(moment_dtype="packed8")) == (
        states.PackedMomentsState,
        ["int32"] + 2 * ["uint16"],
    )
    kind, names = dtypes(aj.scale_by_amsgrad(moment_dtype="packed"))
    assert (kind, names) == (states.PackedAmsgradState, ["int32", *2 * ["uint32"], *2 * ["bfloat16"]])
    assert dtypes(aj.scale_by_nadam(moment_dtype="packed"))[1] == ["int32", "float32", "uint32", "uint32"]
    assert dtypes(aj.scale_by_momentum(moment_dtype="packed")) == (
        states.NarrowTraceState,
        ["int32"] + 2 * ["bfloat16"],
    )


def test_moments_are_read_from_any_state():
    params = {"w": jnp.ones(3)}
    for moment_dtype in (None, *NARROW):
        tx = optax.chain(optax.clip(1.0), aj.nadamw(0.1, b1=0.5, b2=0.75, moment_dtype=moment_dtype))
        _, state = tx.update(params, tx.init(params), params)
        mu, nu = aj.read_moments(state)
        np.testing.assert_array_equal(mu["w"], [0.5] * 3)
        np.testing.assert_array_equal(nu["w"], [0.25] * 3)
        assert mu["w"].dtype == nu["w"].dtype == jnp.float32
    with pytest.raises(ValueError, match="`state` must contain one pair of moments, got 0"):
        aj.read_moments(aj.sgdw(0.1).init(params))
    with pytest.raises(ValueError, match="got 2"):
        aj.read_moments(optax.chain(aj.adamw(0.1), aj.scale_by_adam(moment_dtype="packed")).init(params))


@pytest.mark.parametrize("preset", [aj.adamw, aj.nadamw, aj.sgdw])
def test_other_dtypes_are_refused(preset):
    for bad in ("float16", "int8", "Packed", "float8_e5m2", 4):
        with pytest.raises((ValueError, TypeError), match="`moment_dtype` must be"):
            preset(0.1, moment_dtype=bad)


def test_float64_gradients_and_a_traced_rate_and_vmap_reach_packed_moments():
    def final(rate):
        tx = aj.adamw(rate, moment_dtype="packed")
        params = jnp.array([1.0, -2.0])
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            params = params + updates
        return params

    rates = jnp.array([0.0, 0.1, 0.2])
    together = jax.jit(jax.vmap(final))(rates)
    # Equal noise in every member, so only contraction of multiplications may differ; it tips at most a few roundings.
    np.testing.assert_allclose(together, jnp.stack([final(rate) for rate in rates]), rtol=2**-7)
    np.testing.assert_array_equal(together[0], [1.0, -2.0])
    with jax.enable_x64(True):
        tx = aj.scale_by_adam(moment_dtype="packed")
        updates, state = tx.update(jnp.ones(2, jnp.float64), tx.init(jnp.zeros(2, jnp.float64)))
        assert updates.dtype == jnp.float64
        assert state.moments.dtype == jnp.uint32


def test_packed_training_ends_where_float32_does():
    features = jax.random.normal(jax.random.key(0), (256, 16))
    target = jnp.sin(features @ jax.random.normal(jax.random.key(1), (16, 4)))

    def loss(params):
        return jnp.mean(jnp.square(jnp.tanh(features @ params["a"]) @ params["b"] - target))

    def final(moment_dtype, seed):
        keys = jax.random.split(jax.random.key(seed), 2)
        params = {"a": jax.random.normal(keys[0], (16, 32)) / 4, "b": jax.random.normal(keys[1], (32, 4)) / 6}
        tx = aj.adamw(3e-3, schedule=aj.cosine_warm_restarts(300), moment_dtype=moment_dtype)

        def body(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return loss(jax.lax.scan(body, (params, tx.init(params)), None, 300)[0][0])

    losses = {kind: np.array(jax.vmap(lambda s, k=kind: final(k, s))(jnp.arange(6))) for kind in (None, *NARROW)}
    for kind in NARROW:
        # Within one standard deviation over the seeds, the yardstick of the quality benchmark.
        assert abs(losses[kind].mean() - losses[None].mean()) < losses[None].std(ddof=1)


@pytest.mark.parametrize("name", ["adam", "nadam", "amsgrad"])
def test_gradients_too_small_for_the_codes_make_no_long_steps(name):
    make = {"adam": aj.scale_by_adam, "nadam": aj.scale_by_nadam, "amsgrad": aj.scale_by_amsgrad}[name]
    rng = np.random.default_rng(0)
    for size in (1e-6, 1e-8, 1e-10, 1e-12):
        gradients = [jnp.asarray(size * rng.normal(size=256), jnp.float32) for _ in range(20)]
        longest = {}
        for dtype in (None, "packed8"):
            tx = make(eps=1e-15, moment_dtype=dtype)
            state, steps = tx.init(gradients[0]), []
            for g in gradients:
                d, state = jax.jit(tx.update)(g, state)
                steps.append(float(jnp.abs(d).max()))
            longest[dtype] = max(steps)
        # Exact moments are longest in the first updates; Cauchy and Schwarz's bound is 7.3 r / (1 - b1^t) there.
        assert longest["packed8"] < 4 * max(longest[None], 1.0)


def test_the_bound_of_nu_is_what_exact_moments_obey():
    from adamw_jax._storage.words8 import bounded

    rng = np.random.default_rng(1)
    for b1, b2 in ((0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.95, 0.9)):
        mu = nu = np.zeros(1000)
        for scale in 10.0 ** rng.uniform(-3, 0, 50):
            g = scale * rng.normal(size=1000)
            mu, nu = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
        weights = [jnp.float32(x) for x in (b1, 1 - b1, b2, 1 - b2)]
        tiny = 1e-10  # far below the codes of nu, where the bound holds
        with_mu = bounded(weights, jnp.float32(tiny * mu), jnp.zeros(1000), jnp.float32(tiny * g))
        assert np.all(np.float64(with_mu) <= tiny**2 * nu * (1 + 1e-5))  # float32's rounding
        large = jnp.full(1000, 1e-3)
        np.testing.assert_array_equal(bounded(weights, jnp.float32(mu), large), large)
