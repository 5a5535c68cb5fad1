"""What a Keras user will try, and what went wrong in other adapters: one row each, with the test that shows it."""

import importlib

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
from jax.experimental.sparse import BCOO
from keras import layers
from keras.regularizers import L2

from adamw_jax.keras import SGDW, AdamW, HyperparameterSetter, NadamW, OptaxOptimizer, RateLogger
from tests.keras_models import close, data, dense, same, states, values

TABLE = {
    "README example with only the import changed": "optimizers.the_readme_example_of_keras_adamw_runs",
    "eta_t over three cycles, exact t_cur": "optimizers.warm_restarts_follow_the_formula_and_survive_saving",
    "manual restart": "optimizers.a_manual_restart_acts_after_the_next_update",
    "eta bounds": "optimizers.eta_bounds_and_start_are_settable",
    "decays applied, total_iterations_wd or not; independent of rate and multiplier": (
        "optimizers.the_models_decays_are_applied_and_scale_with_neither_rate_nor_multiplier"
    ),
    "method 2": "optimizers.method_2_fills_the_decays_in_order",
    "equality with Keras's forms": "optimizers.equals_kerass_own_form_when_extras_are_off",
    "max-norm constraint": "optimizers.embeddings_and_constraints",
    ".keras and .weights.h5 resume, in a fresh process, where paths change": (
        "resume.resume_in_a_new_process_is_bit_for_bit"
    ),
    "full config round trip": "optimizers.the_whole_configuration_goes_round",
    "LearningRateScheduler": "users.a_learning_rate_scheduler_acts",
    "ReduceLROnPlateau": "users.reduce_lr_on_plateau_acts",
    "t_cur edited from a callback": "users.t_cur_is_set_from_callbacks",
    "the rates in history and progress bar": "users.the_rate_logger_fills_history_and_progress_bar",
    "three clips, accumulation, EMA with SwapEMAWeights, loss scale": "users.keras_options_act_as_in_kerass_optimizer",
    "accumulation counts real updates": "users.under_accumulation_the_schedule_counts_real_updates",
    "mixed_float16 overflow": "users.an_overflow_in_mixed_float16_freezes_everything",
    "mixed_bfloat16, bfloat16, float16": "users.narrow_policies_train_with_float32_moments",
    "run_eagerly, jit_compile=False, steps_per_execution": "users.every_way_to_run_gives_the_same_weights",
    "DataParallel": "users.data_parallel_equals_one_device",
    "ModelParallel, adafactor included": "users.model_parallel_shards_the_slots_like_their_variables",
    "BackupAndRestore": "users.backup_and_restore_after_a_crash_equals_no_crash",
    "ModelCheckpoint": "users.a_model_checkpoint_holds_the_optimizer",
    "shared regularizers": "decays.shared_regularizer_objects_stay_intact",
    "unbuilt Sequential": "decays.an_unbuilt_model_is_read_when_the_optimizer_is_built",
    "frozen layers": "users.frozen_layers_stay",
    "MultiOptimizer": "users.a_multi_optimizer_splits_the_variables",
    "duplicate paths": "decays.repeated_paths_are_told_apart",
    "jit, scan and vmap over the rate": "users.stateless_apply_under_scan_and_vmap",
    "TensorFlow backend refused": "adapter.another_backend_is_refused_and_the_core_needs_no_keras",
    "PyDataset and generators": "users.every_kind_of_data_gives_the_same_weights",
    "LoRA": "users.lora_trains_its_own_weights_alone",
    "float8": "users.float8_scales_are_overwritten_not_optimized",
    "optimizer.variables": "users.the_optimizer_holds_no_variable_of_the_model",
    "typed keys": "decays.bad_keys_and_values_are_named_with_the_paths",
    "300 variables": "users.three_hundred_variables",
    "P1 tracked collections": "users.the_optimizer_holds_no_variable_of_the_model",
    "P2 aliased leaves": "adapter.equals_a_pure_optax_loop",
    "P3 no truth value": "users.hyperparameters_take_variables",
    "P4 layouts": "users.model_parallel_shards_the_slots_like_their_variables",
    "P5 names": "users.kerass_own_names_stay_kerass",
    "P6 backend": "adapter.another_backend_is_refused_and_the_core_needs_no_keras",
    "P7 load before build": "users.loading_before_the_optimizer_is_built_warns",
    "P8 changed trainable set": "users.a_changed_set_of_variables_needs_a_new_optimizer",
    "P9 float16": "users.narrow_policies_train_with_float32_moments",
    "P10 random keys": "users.a_random_key_in_the_state_survives_saving",
    "P11 None and sparse gradients": "users.missing_and_sparse_gradients",
}


@pytest.mark.parametrize("row", TABLE)
def test_every_row_has_its_test(row):
    file, name = TABLE[row].split(".")
    assert callable(getattr(importlib.import_module(f"tests.test_keras_{file}"), f"test_{name}"))


def adamw(**options):
    return AdamW(**{"learning_rate": 0.01, "init_verbose": False} | options)


def annealed(**options):
    return adamw(use_cosine_annealing=True, total_iterations=6, **options)


def trained(optimizer, model=None, epochs=2, batches=2, callbacks=(), **compile_options):
    model = model or dense()
    model.compile(optimizer, "mse", **compile_options)
    x, y = data(batches)
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def test_a_learning_rate_scheduler_acts():
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.5 if epoch == 0 else rate / 4)
    model = trained(annealed(), callbacks=[scheduler], epochs=3)
    assert float(model.optimizer.learning_rate) == 0.5 / 16
    assert model.history.history["learning_rate"] == [0.5, 0.125, 0.03125]


def test_reduce_lr_on_plateau_acts():
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e3)
    model = trained(adamw(learning_rate=0.5), callbacks=[plateau], epochs=4)
    assert float(model.optimizer.learning_rate) == 0.5 / 8


def test_t_cur_is_set_from_callbacks():
    class Restart(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.optimizer.t_cur.assign(4)

    # 3 batches: t_cur is 4 after the second, so 5 after the third.
    assert int(trained(annealed(), epochs=1, batches=3, callbacks=[Restart()]).optimizer.t_cur) == 5
    setter = HyperparameterSetter({1: {"t_cur": -1, "eta_max": 0.5}, 4: {"learning_rate": 0.125}})
    logger = RateLogger(every_batch=True)
    model = trained(annealed(), epochs=2, batches=3, callbacks=[setter, logger])
    assert int(model.optimizer.t_cur) == 4
    assert logger.batches["eta_t"][1] == 0.5
    assert float(model.optimizer.learning_rate) == 0.125
    with pytest.raises(ValueError, match="has no hyperparameter 'eta'"):
        trained(annealed(), callbacks=[HyperparameterSetter({0: {"eta": 1.0}})])


def test_the_rate_logger_fills_history_and_progress_bar(capsys):
    model, logger, (x, y) = dense(), RateLogger(every_batch=True), data(2)
    model.compile(annealed(), "mse")
    history = model.fit(x, y, batch_size=8, epochs=3, callbacks=[logger], verbose=2).history
    assert len(history["eta_t"]) == len(history["lr_t"]) == 3
    assert history["eta_t"] == logger.batches["eta_t"][1::2]
    # After 1, ..., 6 updates of a cycle of 6, eta_t is that of the next update.
    expected = [0.5 * (1 + np.cos(np.pi * (k % 6) / 5)) for k in range(1, 7)]
    np.testing.assert_allclose(logger.batches["eta_t"], expected, atol=2e-7)
    assert "eta_t: 0.6545" in capsys.readouterr().out


OPTIONS = {
    "clipnorm": {"clipnorm": 0.05},
    "global_clipnorm": {"global_clipnorm": 0.05},
    "clipvalue": {"clipvalue": 0.02},
    "accumulation": {"gradient_accumulation_steps": 2},
    "loss scale": {"loss_scale_factor": 8.0},
    "EMA": {"use_ema": True, "ema_momentum": 0.5},
    "EMA, overwriting": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    "schedule": {"learning_rate": keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.01])},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_keras_options_act_as_in_kerass_optimizer(name):
    options = {"learning_rate": 0.1, "momentum": 0.9} | OPTIONS[name]
    swap = [keras.callbacks.SwapEMAWeights()] if name == "EMA" else []
    ours = trained(SGDW(init_verbose=False, **options), callbacks=swap)
    theirs = trained(keras.optimizers.SGD(**options), callbacks=swap)
    # Four updates of the same float32 operations, fused differently.
    assert close(values(ours), values(theirs), rtol=2e-6, atol=2e-7)
    plain = trained(SGDW(0.1, momentum=0.9, init_verbose=False))
    acts = not close(values(ours), values(plain), rtol=1e-4, atol=1e-5)
    assert acts == (name != "loss scale")


def test_under_accumulation_the_schedule_counts_real_updates():
    model = trained(annealed(gradient_accumulation_steps=2), epochs=3)
    assert int(model.optimizer.t_cur) == 3
    assert int(model.optimizer.iterations) == 3


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def test_an_overflow_in_mixed_float16_freezes_everything(policy):
    policy("mixed_float16")
    model, (x, y) = dense(), data(1)
    model.compile(annealed(), "mse")
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    inner = model.optimizer.inner_optimizer
    while int(inner.t_cur) == 0:  # the initial scale of 2^15 may overflow by itself
        model.train_on_batch(x, y)
    before, held = values(model), states(inner)
    model.train_on_batch(np.full_like(x, np.inf), y)
    assert same(values(model), before)
    assert same(states(inner), held)
    model.train_on_batch(x, y)
    assert int(inner.t_cur) == 2
    assert float(inner.eta_t) == pytest.approx(0.5 * (1 + np.cos(np.pi * 2 / 5)), abs=2e-7)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "bfloat16", "float16"])
def test_narrow_policies_train_with_float32_moments(policy, name):
    policy(name)
    model = dense()
    before = values(model)
    trained(annealed(lr_multipliers={"out": 1.0}), model)
    assert all(np.isfinite(v.astype(np.float32)).all() for v in values(model))
    assert not same(values(model), before)
    moments = [v for v in model.optimizer.variables if v.name.endswith(("_mu", "_nu"))]
    assert len(moments) == 8
    assert {v.dtype for v in moments} == {"float32"}
    if name == "float16":
        # A squared gradient of 1e-5 is 0 in float16; the step must still be alpha.
        variable = keras.Variable(np.zeros(2), dtype="float16")
        adamw(learning_rate=0.5, epsilon=1e-12).apply([jnp.full(2, 1e-5, jnp.float16)], [variable])
        np.testing.assert_allclose(variable.numpy(), -0.5, rtol=0.02)


def test_every_way_to_run_gives_the_same_weights():
    expected = trained(annealed())
    for options in ({"run_eagerly": True}, {"jit_compile": False}, {"steps_per_execution": 2}):
        other = trained(annealed(), **options)
        # Compiled and op by op: contractions round differently, four steps of 0.01.
        assert close(values(expected), values(other), rtol=1e-5, atol=1e-6)
        assert int(other.optimizer.t_cur) == int(expected.optimizer.t_cur) == 4


@pytest.fixture
def distribution():
    devices = keras.distribution.list_devices()[:4]
    assert len(devices) == 4
    yield lambda kind: keras.distribution.set_distribution(kind(devices))
    keras.distribution.set_distribution(None)


def data_parallel(devices):
    return keras.distribution.DataParallel(devices=devices)


def model_parallel(devices):
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    # It also matches the slots' own paths, of whatever shape they are.
    layout[".*hidden.*kernel.*"] = (None, "model")
    return keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


def test_data_parallel_equals_one_device(distribution):
    expected = values(trained(annealed(), dense(8)))
    distribution(data_parallel)
    model = trained(annealed(), dense(8))
    # Sums over the batch are split in four.
    assert close(values(model), expected, rtol=1e-5, atol=1e-6)
    assert all(len(v.value.sharding.device_set) == 4 for v in model.optimizer.variables)


@pytest.mark.parametrize("name", ["AdamW", "adafactor"])
def test_model_parallel_shards_the_slots_like_their_variables(distribution, name):
    def make():
        return annealed() if name == "AdamW" else OptaxOptimizer(optax.adafactor(0.01, min_dim_size_to_factor=2))

    expected = values(trained(make(), dense(8)))
    distribution(model_parallel)
    model = trained(make(), dense(8))
    assert close(values(model), expected, rtol=1e-5, atol=1e-6)
    kernel = model.get_layer("hidden").kernel
    assert tuple(kernel.value.sharding.spec) == (None, "model")
    slots = [v for v in model.optimizer.variables if v.name.startswith("hidden_kernel")]
    assert len(slots) >= 2
    for slot in slots:
        sharded = slot.shape == kernel.shape
        assert slot.value.sharding.is_fully_replicated != sharded, slot.path


class Crash(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise RuntimeError("crash")


def test_backup_and_restore_after_a_crash_equals_no_crash(tmp_path):
    expected = trained(annealed(), epochs=4)
    backup = tmp_path / "backup"
    with pytest.raises(RuntimeError, match="crash"):
        trained(annealed(), epochs=4, callbacks=[keras.callbacks.BackupAndRestore(backup), Crash()])
    model = trained(annealed(), dense(seed=1), epochs=4, callbacks=[keras.callbacks.BackupAndRestore(backup)])
    assert same(values(model), values(expected))
    assert same(states(model.optimizer), states(expected.optimizer))


def test_a_model_checkpoint_holds_the_optimizer(tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    model = trained(annealed(), callbacks=[checkpoint])
    loaded = keras.models.load_model(tmp_path / "2.keras")
    assert same(states(loaded.optimizer), states(model.optimizer))
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


def test_frozen_layers_stay():
    model = dense(regularizer=L2(0.5))
    model.get_layer("hidden").trainable = False
    before = values(model), model.get_layer("hidden").kernel.numpy()
    trained(adamw(model=model, total_iterations=5), model)
    assert np.array_equal(model.get_layer("hidden").kernel.numpy(), before[1])
    assert not same(values(model), before[0])
    assert len([v for v in model.optimizer.variables if v.name.endswith("_mu")]) == 2


def test_a_multi_optimizer_splits_the_variables():
    first, second = annealed(), SGDW(0.125, init_verbose=False)
    optimizer_map = keras.optimizers.OptimizerMap(default_optimizer=first, optimizer_map={"out/.*": second})
    model = trained(keras.optimizers.MultiOptimizer(optimizer_map), epochs=1)
    alone = trained(annealed(), epochs=1)
    assert int(first.t_cur) == 2
    assert [v.name for v in second.variables if v.name.endswith("_trace")] == ["out_kernel_trace", "out_bias_trace"]
    assert not close(values(model)[2:], values(alone)[2:])


def test_stateless_apply_under_scan_and_vmap():
    model = dense()
    optimizer = annealed(weight_decays={"hidden/kernel": (0, 0.1)})
    optimizer.build(model.trainable_variables)
    parameters, state = values(model), [v.value for v in optimizer.variables]
    gradients = [np.ones(p.shape, np.float32) for p in parameters]
    at = next(i for i, v in enumerate(optimizer.variables) if v is optimizer.learning_rate)

    def train(rate):
        def step(carry, _):
            return optimizer.stateless_apply(carry[1], gradients, carry[0]), None

        start = (parameters, [*state[:at], rate, *state[at + 1 :]])
        return jax.lax.scan(step, start, length=4)[0]

    rates = jnp.array([0.0, 0.01, 0.1])
    many, held = jax.jit(jax.vmap(train))(rates)
    for index, rate in enumerate(rates):
        optimizer.learning_rate = rate
        one, kept = jax.jit(train)(rate)
        # A batched program of the same operations.
        assert close([m[index] for m in many], one, rtol=1e-6, atol=1e-6)
        assert close([h[index] for h in held], kept, rtol=1e-6, atol=1e-6)
    assert float(abs(many[2][0] - many[1][0]).max()) > 0.05


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        x, y = data(2)
        return x[8 * index : 8 * index + 8], y[8 * index : 8 * index + 8]


def test_every_kind_of_data_gives_the_same_weights():
    expected = trained(annealed(), epochs=1)
    for source in (Batches(), (Batches()[index] for index in range(2))):
        model = dense()
        model.compile(annealed(), "mse")
        model.fit(source, steps_per_epoch=2, shuffle=False, verbose=0)
        assert same(values(model), values(expected))


def test_lora_trains_its_own_weights_alone():
    model = dense(4)
    hidden = model.get_layer("hidden")
    hidden.enable_lora(2)
    kernel = hidden._kernel.numpy()
    trained(adamw(weight_decays={"hidden/lora_kernel_a": (0, 0.1)}, total_iterations=5), model)
    assert np.array_equal(hidden._kernel.numpy(), kernel)
    assert abs(hidden.lora_kernel_b.numpy()).max() > 0


def test_float8_scales_are_overwritten_not_optimized():
    model = dense(4)
    model.get_layer("hidden").quantize("float8")
    trained(annealed(), model)
    scale = model.get_layer("hidden").inputs_amax_history
    assert abs(scale.numpy()).max() > 0
    assert not [v.path for v in model.optimizer.variables if "amax" in v.path or "scale" in v.path]


def test_the_optimizer_holds_no_variable_of_the_model():
    model = trained(annealed(model=dense()), dense())
    assert not {id(v) for v in model.optimizer.variables} & {id(v) for v in model.variables}
    names = [v.name for v in model.optimizer.variables]
    assert names[:6] == ["iteration", "learning_rate", "t_cur", "eta_t", "eta_min", "eta_max"]
    growing = trained(annealed(model=dense(), t_mult=2), dense()).optimizer
    assert [v.name for v in growing.variables[6:8]] == ["period", "cycle"]


def test_three_hundred_variables():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), *[layers.Dense(2, "tanh") for _ in range(150)], layers.Dense(1)])
    optimizer = annealed(lr_multipliers={"dense": 0.5})
    optimizer.build(model.trainable_variables)
    assert len(model.trainable_variables) == 302
    assert len(optimizer.variables) == 2 * 302 + 8
    variables = [v.value for v in model.trainable_variables]
    new, _ = jax.eval_shape(optimizer.stateless_apply, [v.value for v in optimizer.variables], variables, variables)
    assert [(v.shape, v.dtype) for v in new] == [(v.shape, v.dtype) for v in variables]


def test_hyperparameters_take_variables():
    first, second = annealed(), annealed(t_cur=3)
    first.eta_t, first.t_cur, first.learning_rate = second.eta_t, second.t_cur, keras.Variable(0.25)
    assert float(first.eta_t) == float(second.eta_t)
    assert int(first.t_cur) == 3
    assert float(first.learning_rate) == 0.25


@pytest.mark.parametrize("make", [AdamW, NadamW, SGDW])
def test_kerass_own_names_stay_kerass(make):
    assert keras.saving.get_registered_name(make) == f"adamw_jax>{make.__name__}"
    assert type(keras.optimizers.get("AdamW")) is keras.optimizers.AdamW
    config = keras.optimizers.serialize(make(init_verbose=False))
    assert type(keras.optimizers.get(config)) is make


def test_loading_before_the_optimizer_is_built_warns(tmp_path):
    trained(annealed()).save_weights(tmp_path / "a.weights.h5")
    model = dense(seed=1)
    model.compile(annealed(), "mse")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        model.load_weights(tmp_path / "a.weights.h5")
    model.optimizer.build(model.trainable_variables)
    model.load_weights(tmp_path / "a.weights.h5")
    assert int(model.optimizer.t_cur) == 4


def test_a_changed_set_of_variables_needs_a_new_optimizer():
    model = trained(annealed(), epochs=1)
    model.get_layer("hidden").trainable = False
    model.compile(model.optimizer, "mse")
    with pytest.raises(ValueError, match="trainable variables"):
        model.train_on_batch(*data(1))
    trained(annealed(), model)


def test_a_random_key_in_the_state_survives_saving(tmp_path):
    def make():
        return OptaxOptimizer(optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.01)))

    model = trained(make(), epochs=1)
    model.save_weights(tmp_path / "a.weights.h5")
    other = dense(seed=1)
    other.compile(make(), "mse")
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "a.weights.h5")
    for each in (model, other):
        x, y = data(1)
        each.train_on_batch(x, y)
    assert same(values(model), values(other))


def test_missing_and_sparse_gradients():
    optimizer = annealed(weight_decays={"b": (0, 0.5)})
    a, b = (keras.Variable(np.ones((2, 2), np.float32), name=name) for name in "ab")
    sparse = BCOO.fromdense(jnp.array([[1.0, 0.0], [0.0, 0.0]]))
    optimizer.build([a, b])
    held = {v.name: v.numpy() for v in optimizer.variables}
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([sparse, None], [a, b])
    # b keeps its value (no decay either) and its moments; the schedule goes on.
    assert b.numpy().tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert a.numpy()[0, 0] < 1.0
    assert a.numpy()[1].tolist() == [1.0, 1.0]
    after = {v.name: v.numpy() for v in optimizer.variables}
    assert np.array_equal(after["b_nu"], held["b_nu"])
    assert not np.array_equal(after["a_nu"], held["a_nu"])
    assert int(optimizer.t_cur) == 1
