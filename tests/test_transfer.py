"""`transfer`: its laws, the numbers of others, and what it is for: updates of one size at every width."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj
from adamw_jax._rules.scaling_tables import RULES
from benchmarks.transfer import coordinates, plan
from benchmarks.transfer.trainings import shapes as study_shapes
from tests.running import quick_jit

OPTIONS = {"learning_rate": 0.01, "weight_decay": 0.02, "b1": 0.95, "b2": 0.99, "eps": 1e-6}


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def model(width, depth=2):
    """Return the shapes of a transformer with all roles."""
    block = {
        "ln": {"scale": shape(width)},
        "qkv": {"kernel": shape(width, 3 * width), "bias": shape(3 * width)},
        "out": {"kernel": shape(width, width)},
    }
    ends = {"embed": shape(100, width), "norm_f": {"scale": shape(width)}, "head": {"kernel": shape(width, 100)}}
    return ends | {"blocks": [block] * depth, "temperature": shape()}


def run(width=32, depth=2, batch=4, updates=1000):
    return aj.Run(model(width, depth), updates=updates, batch=batch, depth=depth)


BASE = run()
LARGE = run(width=96, depth=4, batch=16, updates=2500)
"""3 times the width, twice the depth, 4 times the batch, 10 times the tokens."""


def leaves_of(transferred):
    return {row["path"]: row for row in transferred.leaves}


@pytest.mark.parametrize("rule", RULES)
def test_a_transfer_to_itself_changes_nothing(rule):
    options = OPTIONS | {"lr_multipliers": {"embed": 2.0}, "moment_dtype": None, "coupling": "learning_rate"}
    assert dict(aj.transfer(options, BASE, run(), rule=rule)) == options


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("coupling", ["schedule", "learning_rate"])
def test_by_way_of_a_middle_run_is_the_same(rule, coupling):
    middle = run(width=64, depth=2, batch=8, updates=4000)
    options = OPTIONS | {"coupling": coupling, "lr_multipliers": {"embed": 2.0}, "normalize_decay": 1000}
    straight = aj.transfer(options, BASE, LARGE, rule=rule)
    by_way = aj.transfer(aj.transfer(options, BASE, middle, rule=rule), middle, LARGE, rule=rule)
    assert set(straight) == set(by_way)
    for a, b in zip(straight.leaves, by_way.leaves, strict=True):
        for key in ("rate", "decay", "eps"):
            # float64, a handful of products.
            np.testing.assert_allclose(a[key], b[key], rtol=1e-12)
    for key in ("learning_rate", "b1", "b2", "normalize_decay"):
        np.testing.assert_allclose(straight[key], by_way[key], rtol=1e-12)


def test_the_timescale_is_a_share_of_the_run():
    found = aj.transfer(OPTIONS, BASE, LARGE, rule="timescale")
    assert found["weight_decay"] * LARGE.updates == pytest.approx(OPTIONS["weight_decay"] * BASE.updates, rel=1e-12)
    assert {key: value for key, value in found.items() if key != "weight_decay"} == {
        key: value for key, value in OPTIONS.items() if key != "weight_decay"
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "options",
    [
        {"coupling": "learning_rate"},
        {"coupling": "corrected"},
        {"coupling": "learning_rate", "lr_multipliers": {"": 0.5}, "multiplier_scales_decay": True},
        {"normalize_decay": 1000},
        {"coupling": aj.Corrected(peak=0.01)},
    ],
    ids=str,
)
def test_every_convention_decays_as_the_papers_form_does(rule, options):
    """c n r' l2 over its value at the base is the paper's factor, leaf by leaf."""
    found = aj.transfer(OPTIONS | options, BASE, LARGE, rule=rule)
    paper = leaves_of(aj.transfer(OPTIONS, BASE, LARGE, rule=rule))
    for row in found.leaves:
        (_, l2), (_, wanted) = row["decay"], paper[row["path"]]["decay"]
        factor = l2 / OPTIONS["weight_decay"]
        if "coupling" in options:
            factor *= found["learning_rate"] / OPTIONS["learning_rate"]
        if "multiplier_scales_decay" in options:
            factor *= row["rate"] / found["learning_rate"] / 0.5
        if "normalize_decay" in options:
            factor *= (found["normalize_decay"] / 1000) ** -0.5
        assert factor == pytest.approx(wanted / OPTIONS["weight_decay"], rel=1e-12)


def test_the_worked_case_of_the_default():
    """3 x the width, 4 x the batch, 10 x the tokens: one answer, that of every part of the library."""
    found = aj.transfer(OPTIONS, BASE, LARGE)
    leaves = leaves_of(found)
    assert found["learning_rate"] == pytest.approx(0.02)
    assert found["weight_decay"] == pytest.approx(0.02 * 4 / 10**0.5) == pytest.approx(0.025298, rel=1e-4)
    assert (found["b1"], found["b2"]) == (pytest.approx(0.8), pytest.approx(0.96))
    assert leaves["blocks/3/qkv/kernel"]["rate"] == pytest.approx(0.02 / 3)
    assert leaves["head/kernel"]["rate"] == pytest.approx(0.02 / 3)
    for path in ("blocks/3/qkv/bias", "blocks/0/ln/scale", "embed", "temperature"):
        assert leaves[path]["rate"] == pytest.approx(0.02)
    assert leaves["blocks/0/out/kernel"]["eps"] == pytest.approx(1e-6 / 2 / 3)
    assert any("each residual branch by 0.5" in note for note in found.notes)


def test_the_parts_are_computed_by_the_same_tables():
    found = aj.transfer(OPTIONS, BASE, LARGE)
    four = aj.transfer(OPTIONS, BASE, run(batch=16, updates=250))
    assert aj.convert_decay(0.02, "paper", "paper", batch=(4, 16)) == pytest.approx(four["weight_decay"], rel=1e-12)
    normalized = aj.transfer(OPTIONS | {"normalize_decay": 1000}, BASE, run(batch=16, updates=250))
    assert normalized["normalize_decay"] == 250
    assert aj.convert_decay(0.02, "normalized", "normalized", batch=(4, 16), updates=1000) == pytest.approx(
        normalized["weight_decay"], rel=1e-12
    )
    wide = run(width=96)
    multipliers = aj.width_multipliers(wide.params, BASE.params)
    assert aj.transfer(OPTIONS, BASE, wide)["lr_multipliers"] == multipliers
    assert jax.tree.structure(found["lr_multipliers"]) == jax.tree.structure(LARGE.params)


# (role, rate, coupled decay, eps) at m_N = 3, m_L = 2, m_B = 4, m_D = 10.
COMPLETED = {
    # Table 1 of arXiv 2512.22382 with alpha = 1: rate sqrt(m_B / m_D) and m_N^-1 for hidden and unembedding weights;
    # decay of the coupled form sqrt(m_B / m_D), times m_N for the same; eps sqrt(m_D / m_B), times m_N^-1 m_L^-1 for
    # hidden weights, biases and norms and m_N^-1 for embeddings; 1 - b1 and 1 - b2 times m_B / m_D.
    "blocks/0/qkv/kernel": (0.2108, 1.897, 0.2635),
    "blocks/0/qkv/bias": (0.6325, 0.6325, 0.2635),
    "blocks/0/ln/scale": (0.6325, 0.6325, 0.2635),
    "embed": (0.6325, 0.6325, 0.5270),
    "head/kernel": (0.2108, 1.897, 1.581),
}
COMPLETEP = {
    # configure_optimizers of github.com/EleutherAI/nanoGPT-mup, branch completep, with depth_alpha_exp = 1: hidden
    # weights have lr / m_N, weight_decay m_N and eps / m_N / m_L; hidden biases and norms lr and eps / m_N / m_L;
    # embedding and unembedding lr, weight_decay and eps / m_N.
    "blocks/0/qkv/kernel": (0.3333, 3.0, 0.1667),
    "blocks/0/qkv/bias": (1.0, 1.0, 0.1667),
    "blocks/0/ln/scale": (1.0, 1.0, 0.1667),
    "embed": (1.0, 1.0, 0.3333),
    "head/kernel": (1.0, 1.0, 0.3333),
}


@pytest.mark.parametrize(("rule", "published"), [("completed", COMPLETED), ("completep", COMPLETEP)])
def test_published_factors(rule, published):
    coupled = OPTIONS | {"coupling": "learning_rate", "multiplier_scales_decay": True, "lr_multipliers": {"": 1.0}}
    found = aj.transfer(coupled, BASE, LARGE, rule=rule)
    leaves = leaves_of(found)
    for path, wanted in published.items():
        row = leaves[path]
        # Four digits, as written above.
        told = row["rate"] / 0.01, row["decay"][1] / 0.02, row["eps"] / 1e-6
        np.testing.assert_allclose(told, wanted, rtol=3e-4, err_msg=path)
    if rule == "completed":
        assert (1 - found["b1"], 1 - found["b2"]) == (pytest.approx(0.05 * 0.4), pytest.approx(0.01 * 0.4))
    else:
        assert any("multiply the outputs of head/kernel by 0.3333" in note for note in found.notes)


def test_the_heuristic_of_marins_held_norms():
    """muonh_rate = 18.31 T^-0.395 d^-0.150 sqrt(B), eps = 9.676e-18 sqrt(T / (B L)), as powers from another run.

    The published run has a rate of 0.003733, and 3/13 of it, 0.000861, for Adam. Derived: that is the fit at 300,000
    updates of B = 8192 sequences of L = 4096 tokens and a width of d = 2560.
    """
    row = {"width": -0.150, "batch": 0.5, "tokens": -0.395}
    rule = aj.Rule(name="MuonH", rate=row, eps={"batch": -0.5, "tokens": 0.5})

    def fitted(d, b, t):
        return 18.31 * t**-0.395 * d**-0.150 * b**0.5, 9.676e-18 * (t / (b * 4096)) ** 0.5

    def at(d, b, updates):
        return aj.Run({"w": shape(d, d)}, updates=updates, batch=b)

    rate, eps = fitted(512, 32, 10_000 * 32 * 4096)
    options = {"learning_rate": rate, "b1": 0.9062, "b2": 0.95, "eps": eps}
    found = aj.transfer(options, at(512, 32, 10_000), at(2560, 8192, 300_000), rule=rule)
    (leaf,) = found.leaves
    assert leaf["rate"] == pytest.approx(0.003733, abs=5e-7)
    assert leaf["rate"] * 3 / 13 == pytest.approx(0.000861, abs=5e-7)
    assert leaf["eps"] == pytest.approx(fitted(2560, 8192, 300_000 * 8192 * 4096)[1])


def test_kinds_of_directions():
    wide = run(width=96, batch=16)
    adam, muon, momentum = (
        leaves_of(aj.transfer(OPTIONS, BASE, wide, direction=kind)) for kind in ("adam", "muon", "momentum")
    )
    path = "blocks/0/qkv/kernel"
    assert adam[path]["rate_factor"] == pytest.approx(2 / 3)
    assert muon[path]["rate_factor"] == pytest.approx(2)
    assert muon["embed"]["rate_factor"] == adam["embed"]["rate_factor"] == pytest.approx(2)
    # muP's column for SGD, and a batch's factor without Adam's root.
    assert [momentum[p]["rate_factor"] for p in (path, "embed", "blocks/0/ln/scale", "head/kernel")] == pytest.approx(
        [4, 12, 12, 4 / 3]
    )
    by_path = aj.transfer(OPTIONS, BASE, wide, direction={"blocks/./(qkv|out)/kernel": "muon"})
    assert leaves_of(by_path)[path]["rate_factor"] == pytest.approx(2)
    assert leaves_of(by_path)["head/kernel"]["rate_factor"] == pytest.approx(2 / 3)
    direction = {"blocks/./(qkv|out)/kernel": aj.scale_by_muon(), "": aj.scale_by_adam()}
    given = aj.transfer({"learning_rate": 0.01, "direction": direction}, BASE, wide)
    assert [row["rate_factor"] for row in given.leaves] == [row["rate_factor"] for row in by_path.leaves]
    aj.decoupled(**given).init(jax.tree.map(lambda s: jnp.ones(s.shape), wide.params))


def test_sgdws_momentum_stays():
    found = aj.transfer({"learning_rate": 0.1, "momentum": 0.9}, BASE, run(batch=16, updates=250))
    assert dict(found) == {"learning_rate": 0.4, "momentum": 0.9}


def test_axes_of_stacks_and_of_weights_with_the_outputs_first():
    def stacked(width, depth):
        return aj.Run({"blocks": {"w": shape(depth, width, 4 * width), "b": shape(depth, width)}}, 100, 8, depth)

    found = aj.transfer(OPTIONS, stacked(8, 2), stacked(16, 6), axes={"": "sio"}, rule="completep")
    assert leaves_of(found)["blocks/w"]["rate_factor"] == pytest.approx(1 / 2)
    assert leaves_of(found)["blocks/b"]["eps_factor"] == pytest.approx(1 / 2 / 3)
    own = aj.transfer(OPTIONS | {"axes": {"": "sio"}}, stacked(8, 2), stacked(16, 6), rule="completep")
    assert own["axes"] == {"": "sio"}
    assert leaves_of(own) == leaves_of(found)
    torch = aj.transfer(OPTIONS, *(aj.Run({"w": shape(3 * n, n * n)}, 100, 8) for n in (4, 8)), axes={"": "oi"})
    assert leaves_of(torch)["w"]["rate_factor"] == pytest.approx(1 / 4)


def test_an_input_layer_has_the_embeddings_row_and_an_output_layer_the_heads():
    def mlp(width):
        return aj.Run({"first": {"kernel": shape(7, width)}, "last": {"kernel": shape(width, 3)}}, 100, 8, 1)

    roles = {path: row["role"] for path, row in leaves_of(aj.transfer(OPTIONS, mlp(8), mlp(16))).items()}
    assert roles == {"first/kernel": "embedding (matrix)", "last/kernel": "head (matrix)"}


def test_schedules_are_scaled_and_rules_that_are_trees_go_to_new_blocks():
    options = {"learning_rate": 0.01, "lr_multipliers": {"": lambda count: 2.0}, "weight_decay": lambda path, leaf: 0.1}
    found = aj.transfer(options, BASE, run(width=64, batch=16))
    values = jax.tree.leaves(found["lr_multipliers"])
    assert sorted({value(0) for value in values}) == [1.0, 2.0]
    assert set(jax.tree.leaves(found["weight_decay"])) == {0.2}
    tree = jax.tree.map(lambda s: 0.1 * len(s.shape), BASE.params)
    deeper = aj.transfer({"learning_rate": 0.01, "weight_decay": tree}, BASE, run(depth=6))
    assert deeper["weight_decay"]["blocks"][5] == {
        "ln": {"scale": 0.1},
        "qkv": {"kernel": 0.2, "bias": 0.1},
        "out": {"kernel": 0.2},
    }


def test_traced_numbers_and_sizes():
    @jax.jit
    def numbers(rate, batch):
        wide = aj.Run(model(64), updates=1000 * 4 / batch, batch=batch, depth=2)
        found = aj.transfer(OPTIONS | {"learning_rate": rate}, BASE, wide)
        return found["learning_rate"], found["lr_multipliers"]["head"]["kernel"], found["b1"], found["weight_decay"]

    # float32.
    np.testing.assert_allclose(jnp.stack(numbers(0.01, 16.0)), [0.02, 0.5, 0.8, 0.08], rtol=1e-6)


def test_the_studys_points_are_those_of_the_default():
    for growth in plan.TARGETS.values():
        point = plan.by_default(plan.BASE, growth)
        sizes = plan.BASE, plan.grown(plan.BASE, growth)
        runs = [
            aj.Run(
                jax.tree.map(
                    lambda s: shape(*s), study_shapes(p["width"], p["depth"]), is_leaf=lambda n: isinstance(n, tuple)
                ),
                p["updates"],
                p["batch"],
                p["depth"],
            )
            for p in sizes
        ]
        options = {"learning_rate": plan.BASE["rate"], "weight_decay": plan.BASE["decay"]}
        found = aj.transfer(options | {key: plan.BASE[key] for key in ("b1", "b2")}, *runs)
        leaf = leaves_of(found)["blocks/0/up"]
        told = leaf["rate"], leaf["decay"][1], found.get("b1"), found.get("b2")
        wanted = point["rate"] * point["matrices"], point["decay"], point["b1"], point["b2"]
        np.testing.assert_allclose(told, wanted, rtol=1e-12)


def test_updates_change_a_layers_outputs_alike_at_every_width():
    slopes = {}
    for name in ("left", "transferred"):
        found = []
        for width in coordinates.WIDTHS:
            rules = coordinates.multipliers(width)
            if name == "left":
                rules = dict.fromkeys(rules, 1.0)
            found.append(quick_jit(coordinates.changes, static_argnums=0)(width, rules))
        for layer in ("hidden", "last"):
            sizes = [each[layer][-1] for each in found]
            slopes[name, layer] = np.polyfit(np.log(coordinates.WIDTHS), np.log(sizes), 1)[0]
    # The powers of the width are 1 and 0 in the limit; found are 0.90, 0.92 and -0.03, 0.00 with one seed.
    assert min(slopes["left", layer] for layer in ("hidden", "last")) > 0.8
    assert max(abs(slopes["transferred", layer]) for layer in ("hidden", "last")) < 0.1


def test_the_table_says_what_to_type():
    found = aj.transfer(OPTIONS, BASE, LARGE)
    text = str(found)
    assert text == found.table()
    for line in (
        r"^learning_rate +all +0\.01 +0\.02 ",
        r"^lr_multipliers +matrix, width x 3 +1 +0\.3333 ",
        r"^weight_decay +head, width x 3 +0\.02 +0\.0253 +1\.265 +1 +1 +4 +0\.3162 ",
        r"^b1 \(by 1 - b1\) +all +0\.95 +0\.8 +4 ",
        r"^blocks/3/qkv/kernel +matrix .* 0\.006667 ",
        r"^- the model: multiply each residual branch by 0\.5",
    ):
        assert re.search(line, text, re.MULTILINE), line


def test_what_the_rule_does_not_know_is_kept_and_said():
    found = aj.transfer(OPTIONS | {"amsgrad": True, "momentum_decay": 0.01}, BASE, LARGE)
    assert (found["amsgrad"], found["momentum_decay"]) == (True, 0.01)
    assert any(re.search("kept as given.*amsgrad, momentum_decay", note) for note in found.notes)
    assert any(
        "says nothing about batch, tokens" in note for note in aj.transfer(OPTIONS, BASE, LARGE, rule="completep").notes
    )


def test_a_batch_that_leaves_little_of_the_momentum_is_a_warning():
    with pytest.warns(UserWarning, match=r"1 - b1 .* should stay below 0\.5.* = 0\.05 times 12 = 0\.6"):
        aj.transfer(OPTIONS, BASE, run(batch=48))


def test_a_schedule_of_the_large_run_passes():
    longer = run(updates=2000)
    for schedule in (
        aj.cosine_warm_restarts(2000),
        aj.cosine_warm_restarts(1900, warmup=100),
        optax.warmup_cosine_decay_schedule(0.0, 1.0, 100, 2000),
        aj.linear_warmup(100),
        lambda count: 1.0,
    ):
        assert aj.transfer(OPTIONS | {"schedule": schedule}, BASE, longer)["schedule"] is schedule
    rates = optax.warmup_cosine_decay_schedule(0.0, 0.01, 100, 2000)
    coupled = {"learning_rate": rates, "weight_decay": 0.1, "coupling": "learning_rate"}
    found = aj.transfer(coupled, BASE, run(batch=16, updates=2000))
    # float32.
    assert float(found["learning_rate"](100)) == pytest.approx(0.02, rel=1e-6)
    assert found["weight_decay"] == pytest.approx(0.1 * 4 / 8**0.5 / 2)


def test_rows_have_numbers():
    found = aj.transfer(OPTIONS, BASE, LARGE)
    row = next(row for row in found.rows if row["number"] == "weight_decay" and row["role"].startswith("matrix"))
    assert row["factor"] == pytest.approx(row["width"] * row["depth"] * row["batch"] * row["tokens"])
    assert (row["batch"], row["tokens"]) == (4, pytest.approx(10**-0.5))
    assert all(row["source"] for row in found.rows)


def test_explain_shows_the_factors_beside_the_rates():
    found = aj.transfer(OPTIONS, BASE, LARGE)
    explained = aj.explain(aj.adamw, LARGE.params, transferred=found, **found)
    for row in explained.rows:
        leaf = leaves_of(found)[row["path"]]
        # Rates are told in float32.
        assert (row["rate"], row["l2"]) == (pytest.approx(leaf["rate"]), pytest.approx(leaf["decay"][1]))
        assert (row["rate_factor"], row["decay_factor"]) == (leaf["rate_factor"], leaf["decay_factor"])
    head, *_ = str(explained).splitlines()
    assert head.index("rate x") > head.index("rate")
    assert "l2 x" in head
    assert "rate x" not in str(aj.explain(aj.adamw, LARGE.params, **found))
