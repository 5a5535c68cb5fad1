# `make demo` runs the main job, `make test` every check. Each fills .venv first where it is missing or out of date: the demo
# with the library and what it draws with, everything else with the tools as well.
PYTHON ?= python3
BIN := .venv/bin
export MPLBACKEND = Agg

.PHONY: demo demo-multiprocess survival test quick laws fuzz clients clients-keras coverage lint docs dist clean
.PHONY: compiled compiled-gpu compiled-tpu compiled-test

demo: .venv/.demo
	@echo "Two programs, about two minutes on two cores; the first picture comes after one"
	$(BIN)/python examples/maps.py
	$(BIN)/python examples/digits.py
	@echo "Next: look at the pictures in examples/out/, then train something of your own: docs/start.md (JAX), docs/how-to/keras.md (Keras)"

demo-multiprocess: .venv/.filled
	$(BIN)/python examples/sharded.py
	$(BIN)/python examples/sharded.py --processes 2

survival: .venv/.filled
	$(BIN)/python benchmarks/survival.py kills --count 20
	$(BIN)/python benchmarks/survival.py pair

# Every law, and the linters at the same time; one that fails does not stop the other.
test: .venv/.filled
	$(MAKE) --no-print-directory --jobs 2 --keep-going laws lint

laws: .venv/.filled
	$(BIN)/python -m pytest -n 2 --dist loadfile

# For work in progress: what runs in this process, without Keras, examples and documents.
quick: .venv/.filled
	$(BIN)/python -m pytest -n 2 --dist loadfile --quick

# Random combinations of all options against a simulator: make fuzz SEED=3 COUNT=200
SEED ?= 0
COUNT ?= 100

fuzz: .venv/.filled
	JAX_PLATFORMS=cpu XLA_FLAGS=--xla_backend_optimization_level=0 $(BIN)/python -m tests.fuzz.run --seed $(SEED) --count $(COUNT)

# Other packages' trainings with this library's optimizers, and optax's own tests over its presets (from PyPI's sdist, or from
# a checkout: make clients OPTAX=../optax), in an environment of their own, on the JAX of .venv.
OPTAX ?= $(firstword $(wildcard .clients/optax-*/))

clients: .clients/.filled
	JAX_PLATFORMS=cpu OPTAX=$(abspath $(OPTAX)) .clients/bin/python -m tests.clients.run

# keras-hub, KerasTuner and scikeras, which bring TensorFlow along.
clients-keras: .clients-keras/.filled
	JAX_PLATFORMS=cpu TF_CPP_MIN_LOG_LEVEL=3 .clients-keras/bin/python -m tests.clients.run

.clients-keras/.filled: pyproject.toml | .venv/.filled
	$(PYTHON) -m venv .clients-keras
	$(BIN)/python -m pip freeze | grep -E '^(jax|jaxlib|optax|keras)==' > .clients-keras/same.txt
	.clients-keras/bin/python -m pip install --quiet --editable ".[clients-keras]" --constraint .clients-keras/same.txt
	touch $@

.clients/.filled: pyproject.toml | .venv/.filled
	$(PYTHON) -m venv .clients
	$(BIN)/python -m pip freeze | grep -E '^(jax|jaxlib|optax)==' > .clients/same.txt
	.clients/bin/python -m pip install --quiet --editable ".[clients]" --constraint .clients/same.txt
	.clients/bin/python -m pip download --quiet --no-binary optax --no-deps --dest .clients $$(grep '^optax==' .clients/same.txt)
	tar -xzf .clients/optax-*.tar.gz -C .clients
	touch $@

coverage: .venv/.filled
	$(BIN)/python -m pip install --quiet pytest-cov
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov adamw_jax --cov-report term-missing:skip-covered

lint: .venv/.filled
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.filled
	$(BIN)/mkdocs build --quiet

dist: .venv/.filled
	$(BIN)/python -m pip install --quiet ".[dist]"
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

# Programs for devices that are not there: compilers in environments of their own, of a pinned version, because what XLA
# fuses belongs to a version.
compiled: compiled-gpu compiled-tpu

compiled-gpu: .compiled/gpu/.filled
	.compiled/gpu/bin/python -m benchmarks.compiled h100
	.compiled/gpu/bin/python -m benchmarks.compiled h100 --alike
	.compiled/gpu/bin/python -m benchmarks.compiled_scale h100x8
	.compiled/gpu/bin/python -m benchmarks.compiled_muon h100x8

compiled-tpu: .compiled/tpu/.filled
	.compiled/tpu/bin/python -m benchmarks.compiled v5e
	.compiled/tpu/bin/python -m benchmarks.compiled_host
	.compiled/tpu/bin/python -m benchmarks.compiled_scale v5e:2x4 v5e:8x8 v5e:16x16 v5p:2x2x4 v5p:4x4x4
	.compiled/tpu/bin/python -m benchmarks.compiled_muon v5e:2x4 v5e:8x8

compiled-test: .compiled/gpu/.filled .compiled/tpu/.filled
	.compiled/gpu/bin/python -m pytest -n 0 tests/test_compiled_gpu.py
	.compiled/tpu/bin/python -m pytest -n 0 tests/test_compiled_tpu.py

# Laws under the oldest supported versions, some between, and the newest: an environment each, under .range/.
.PHONY: range
range:
	$(PYTHON) -m benchmarks.range

.compiled/%/.filled: pyproject.toml
	$(PYTHON) -m venv .compiled/$*
	.compiled/$*/bin/python -m pip install --quiet --editable ".[compiled-$*]"
	touch $@

.PRECIOUS: .compiled/%/.filled

.venv/.demo: pyproject.toml
	@echo "Setting up .venv with the library and what the demo draws with: 0.8 GB, a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

.venv/.filled: pyproject.toml
	@echo "Setting up .venv with the library and the tools: a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch .venv/.demo $@

clean:
	rm -rf .venv .clients-keras .compiled .range .jax_cache .mypy_cache .ruff_cache .import_linter_cache build dist site *.egg-info

BENCHMARKS := step_time step_time_bfloat16 compile_time memory scaling quality keras_step decoupling spikes observe_cost directions muon_step transfer averages

.PHONY: bench $(BENCHMARKS:%=bench-%)

bench: $(BENCHMARKS:%=bench-%)

bench-decoupling bench-averages: .venv/.bench

.venv/.bench: .venv/.filled
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	touch $@

bench-step_time_bfloat16: OPTIONS := --trees vit,gpt2 --groups 1 --dtype bfloat16

$(BENCHMARKS:%=bench-%): bench-%: .venv/.filled
	$(BIN)/python -m benchmarks.$(*:_bfloat16=) $(OPTIONS)
