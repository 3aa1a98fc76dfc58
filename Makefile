# The two commands: `make demo` and `make test`. Each does all its set-up in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODELS := model_repository/.generated
RECORDS ?= results/study
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Arrays are small here: more threads only wait for each other, by spinning on the cores that the lanes need.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
# Else every process of the tests compiles anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-unit lint serve models study bench bench-overhead bench-engine-process bench-load bench-decision bench-policies bench-machines bench-gpu bench-fleet gpu-check clean
.DEFAULT_GOAL := help

help:
	@echo "make demo                  the same Poisson load with the scheduler off, then on (about 2 minutes)"
	@echo "make demo-fleet            one load on three emulated GPUs behind Envoy, by least request, then by the router (3 minutes)"
	@echo "make test                  all tests, on a real tritonserver too"
	@echo "make test-unit             the tests that need nothing but Python (seconds)"
	@echo "make chaos                 every kind of fault under load, into docs/reports/chaos.md (a quarter of an hour)"
	@echo "make lint                  ruff and mypy --strict"
	@echo "make docs                  the documentation as a site, every link checked, into build/site"
	@echo "make fuzz TARGET=T SECONDS=60  one of tests/fuzz/targets under coverage, with atheris"
	@echo "make malformed             10,000 broken requests and 2,000 broken models beside good traffic on a real server (a quarter of an hour)"
	@echo "make serve                 serve model_repository/ on 127.0.0.1:8000 (HTTP) and :8001 (gRPC)"
	@echo "make models                generate model_repository/*/1/model.onnx"
	@echo "make study                 the paper's evaluation on this machine, into docs/reports/study.md (half an hour to an hour)"
	@echo "make bench                 stock Triton, other schedulers and this one on a real server, into docs/reports/bench.md (an hour)"
	@echo "make bench-closed-loop     a high class beside a closed loop of a low one, on real servers, into docs/reports/closed-loop.md (half an hour)"
	@echo "make bench-overhead        what this backend costs beside a blocking Python backend"
	@echo "make bench-engine-process  what an engine process costs beside engines in their models' own processes"
	@echo "make bench-load            what the check of batching costs a model's first load"
	@echo "make bench-decision        what one decision of the scheduler costs"
	@echo "make bench-route           what Envoy and the router add to a request"
	@echo "make bench-policies        rivals and ablations in virtual time, on what make study recorded (RECORDS=results/bench: make bench), into docs/reports/policies.md"
	@echo "make bench-machines        slowdowns on types of machines that are new, predicted from others, into docs/reports/machines.md (minutes)"
	@echo "make bench-gpu             rivals on an emulated GPU, over draws of its constants in virtual time and on a real server, into docs/reports/gpu-emulated.md (three quarters of an hour; goes on when run again)"
	@echo "make bench-fleet           routers of 100 emulated devices in virtual time, over 20 seeds, into docs/reports/fleet.md (over an hour of one core; goes on when run again)"
	@echo "make soak                  a real server under mixed load for MINUTES=60: memory, what is left behind, counts; into results/soak"
	@echo "make gpu-check             everything that needs a GPU, on one, into docs/reports/gpu.md (nine minutes; goes on when run again)"

$(READY): pyproject.toml requirements-server.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11, or name another one with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install python3.11-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[bench,client,dev,route]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-server.txt
	@touch $@

$(MODELS): $(READY) $(wildcard zoo/*.py)
	$(BIN)/python -m zoo --scale small --repository model_repository
	@touch $@

models: $(MODELS)

demo: $(MODELS)
	$(BIN)/python -m benchmarks.demo

.PHONY: demo-fleet
demo-fleet: $(READY)
	$(BIN)/python -m benchmarks.demo_fleet

# What holds answers to times runs by itself, after the rest, which shares two cores.
test: lint $(MODELS)
	$(BIN)/python -m pytest -m 'not alone and not slow' --numprocesses 3 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m 'alone and not slow'

test-unit: $(READY)
	$(BIN)/python -m pytest tests/unit benchmarks/tests/unit --numprocesses 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(VENV)/.fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@touch $@

SECONDS ?= 60
.PHONY: fuzz
fuzz: $(VENV)/.fuzz
	@test -n "$(TARGET)" || { echo "name a target: make fuzz TARGET=... SECONDS=60, of: $(notdir $(wildcard tests/fuzz/corpus/*))" >&2; exit 2; }
	$(BIN)/python -m tests.fuzz $(TARGET) --seconds $(SECONDS)

.PHONY: malformed
malformed: $(READY)
	$(BIN)/python -m tests.server.malformed

.PHONY: docs
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve: $(MODELS)
	$(BIN)/isochrone serve --model-repository model_repository

study: $(MODELS)
	$(BIN)/python -m benchmarks.study

bench: $(MODELS)
	$(BIN)/python -m benchmarks.compare

.PHONY: bench-closed-loop
bench-closed-loop: $(MODELS)
	$(BIN)/python -m benchmarks.closed_loop

bench-overhead: $(MODELS)
	$(BIN)/python -m benchmarks.overhead

bench-engine-process: $(READY)
	$(BIN)/python -m benchmarks.engine_process

bench-load: $(MODELS)
	$(BIN)/python -m benchmarks.trial

bench-decision: $(READY)
	$(BIN)/python -m benchmarks.decision

.PHONY: chaos
chaos: $(READY)
	$(BIN)/python -m tests.chaos --faults 100 --minutes 15 --markdown docs/reports/chaos.md

.PHONY: bench-route
bench-route: $(READY)
	$(BIN)/python -m benchmarks.route_cost

bench-policies: $(READY)
	$(BIN)/python -m benchmarks.policies --records $(RECORDS) --out docs/reports/policies.md

bench-machines: $(READY)
	$(BIN)/python -m benchmarks.machines --out docs/reports/machines.md

bench-gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu_emulated

bench-fleet: $(READY)
	$(BIN)/python -m benchmarks.fleet

MINUTES ?= 60
.PHONY: soak
soak: $(READY)
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

gpu-check: $(READY)
	$(BIN)/python -m benchmarks.gpu_check

clean:
	rm -rf $(VENV) $(MODELS) model_repository/*/1/model.onnx build *.egg-info
