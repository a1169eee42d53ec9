# One way to do each thing. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
# The CPU wheels of torch are much smaller than PyPI's: make TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
PROTOS := $(shell find protos -name '*.proto')
READY := .venv/ready
# Two at a time, file by file: more of them disturb those that measure time.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile

help: ## List what make can do
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

.venv: $(READY) ## Install everything into .venv
define INSTALL
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install $(if $(MAKE_TERMOUT),,--quiet) --disable-pip-version-check \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint constraints.txt --editable '.[$(EXTRAS)]'
endef
$(READY): EXTRAS := up,report,dev
$(READY): pyproject.toml constraints.txt
	$(INSTALL)
	mkdir -p .venv/googleapis/google/rpc
	cp $$($(BIN)/python -c 'import google.rpc; print(google.rpc.__path__[0])')/status.proto .venv/googleapis/google/rpc/
	touch .venv/demo .venv/up $@
# Who wants a first look need not wait for what only developers use.
.venv/demo: EXTRAS := trainer
.venv/up: EXTRAS := up
.venv/demo .venv/up: pyproject.toml constraints.txt
	$(INSTALL)
	touch $@

demo: .venv/demo ## Suggest emoji for a few photographs, or for PHOTO=path
	@$(BIN)/python -m clients.demo $(if $(PHOTO),'$(PHOTO)')

up: .venv/up ## Start everything on this machine; OFFSET=1000 moves all ports by that
	@$(BIN)/python -m clients.cli up $(if $(OFFSET),--port-offset '$(OFFSET)')

down: .venv/up ## End everything that `make up` has started
	@$(BIN)/python -m clients.cli down

loop: $(READY) ## The whole story against the stand-in network, in minutes: posts, model, suggestions
	@$(BIN)/python -m tests.loop

test: $(READY) ## Run the tests that need nothing but Python packages
	$(PYTEST) -m 'not system'

test-system: $(READY) ## Run the tests that need Debian's tools, installing them, or minutes
	which promtool fiu-run chromium buildah debootstrap >/dev/null && fc-list | grep -q 'Noto Color Emoji' || \
		{ apt-get update -qq && apt-get install -yqq --no-install-recommends prometheus fiu-utils chromium \
		fontconfig fonts-noto-color-emoji buildah debootstrap libgl1; }
	$(PYTEST) -m 'system and not alone' --timeout 600
	$(BIN)/pytest -m alone --timeout 600

fuzz: $(READY) ## Look for pictures that break the decoder, for SECONDS (60)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python tests/fuzz_pixels.py -max_total_time=$(or $(SECONDS),60)

drawings: $(READY) ## Fetch drawings of emoji under free licences into data/drawings
	$(BIN)/python -m services.trainer.drawings

bench-starter: $(READY) ## Judge the starter on photographs it never saw; MORE=folder adds to those fetched
	$(BIN)/python -m services.trainer.photos data/photos
	$(BIN)/python -m tests.bench.starter data/photos $(MORE)

bench-spine: $(READY) ## Measure the server against its bare limit, and in overload
	$(BIN)/python -m tests.bench.spine

bench-serving: $(READY) ## Measure the server against its bare limit, Mosec, LitServe and a naive server
	$(BIN)/python -m tests.bench.serving

bench-batching: $(READY) ## Measure how near the gate comes to the best fixed batch
	$(BIN)/python -m tests.bench.batching

bench-decode: $(READY) ## Measure the ways from a file to the model's square; MORE=folder adds photographs
	$(BIN)/python -m services.trainer.photos data/photos
	$(BIN)/python -m tests.bench.decode data/photos $(MORE)

bench-backends: $(READY) ## Measure a forward pass on each backend, and whether it agrees
	$(BIN)/python -m tests.bench.backends

bench-crawl: $(READY) ## Measure what a stored picture costs, beside img2dataset
	$(BIN)/python -m tests.bench.crawl

bench-duplicates: $(READY) ## Judge the finding of near-duplicates on photographs
	$(BIN)/python -m services.trainer.photos data/photos
	$(BIN)/python -m tests.bench.duplicates data/photos

bench-keep: $(READY) ## Measure how many posts a second the rules judge
	$(BIN)/python -m tests.bench.keep

bench-storage: $(READY) ## Redo the article's table: what pictures cost in each form of storage
	$(BIN)/python -m tests.bench.storage

bench-train: $(READY) ## Measure a fine-tune step and a head's epoch beside the obvious step
	$(BIN)/python -m tests.bench.train

bench-glyphs: $(READY) drawings ## Train on drawn emoji with each vendor left out in turn
	$(BIN)/python -m tests.bench.glyphs

bench-photos: $(READY) ## Fine-tuning beside a linear probe on photographs; MORE=folder adds to those fetched
	$(BIN)/python -m services.trainer.photos data/photos
	$(BIN)/python -m tests.bench.photos data/photos $(MORE)

bench-imbalance: $(READY) ## What logit adjustment and balanced sampling gain on a long tail
	$(BIN)/python -m services.trainer.photos data/photos
	$(BIN)/python -m tests.bench.imbalance data/photos $(MORE)

bench-page: $(READY) ## Measure how long people wait for the first suggestion, in a real browser
	$(BIN)/python -m tests.bench.page

prove-crash: $(READY) ## Kill crawls 200 times, and compare what they find with an undisturbed one
	$(BIN)/python -m tests.prove.crash

prove-scale: $(READY) ## Take the article's million posts through frontier and rules, in simulated time
	$(BIN)/python -m tests.prove.scale

prove-resume: $(READY) ## Kill trainings 100 times, and compare what they learn with an undisturbed one
	$(BIN)/python -m tests.prove.resume

prove-swap: $(READY) ## Swap models 50 times under load, half of them broken
	$(BIN)/python -m tests.prove.swap

prove-scaling: $(READY) prometheus ## Drive a fleet of real servers by the autoscaler's algorithm; ARGS=--help
	$(BIN)/python -m tests.prove.scaling $(ARGS)

prove-rollout: $(READY) ## Restart a fleet 50 times under load: no call fails
	$(BIN)/python -m tests.prove.rollout

prove-soak: $(READY) ## Half an hour of every kind of call: does memory grow? SAVE=1 records it
	$(BIN)/python -m tests.prove.soak $(if $(SAVE),--save)

prove-atlas: $(READY) ## Find meanings that were planted in posts, and none elsewhere; SAVE=1 records it
	$(BIN)/python -m services.trainer.photos data/photos
	$(BIN)/python -m tests.prove.atlas $(if $(SAVE),--save)

prove-images: $(READY) ## Build all images from Debian and PyPI alone, and run them; SAVE=1 records it
	which buildah debootstrap >/dev/null || { apt-get update -qq && apt-get install -yqq --no-install-recommends buildah debootstrap; }
	$(BIN)/python -m tests.prove.images $(if $(SAVE),--save)

images: ## Build the images that k8s/base runs; k8s/images.sh lists what can be said
	@k8s/images.sh build

images-push: ## Push them, by their version, to REGISTRY=…
	@k8s/images.sh push

# Debian's, with promtool.
prometheus:
	@which promtool prometheus >/dev/null || { apt-get update -qq && apt-get install -yqq --no-install-recommends prometheus; }

k8s-check: $(READY) prometheus ## Render and validate the manifests, and test rules, dashboards and scripts
	$(BIN)/pytest tests/k8s --timeout 600

k8s-smoke: ## On your cluster: apply the cpu overlay, wait, suggest an emoji; REGISTRY=… has its images
	@REGISTRY='$(REGISTRY)' k8s/smoke.sh

pictures: $(READY) ## Take the pictures of the documents from the running programs
	$(BIN)/python -m tests.pictures

lint: $(READY) ## Check contract, style and types
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos
	test ! -e protos/emojinet.v1.binpb || $(BIN)/buf breaking protos --against protos/emojinet.v1.binpb --exclude-imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

protos: $(READY) ## Regenerate the committed Python stubs beside the .proto files
	$(BIN)/python -m grpc_tools.protoc -Iprotos -I.venv/googleapis --python_out=protos --pyi_out=protos \
		--grpc_python_out=protos $(PROTOS)

protos-release: $(READY) ## Make today's contract the one that lint compares with
	$(BIN)/buf build protos --output protos/emojinet.v1.binpb

clean: ## End and remove everything that make has made, data included
	test ! -x $(BIN)/emojinet || $(BIN)/emojinet down
	rm -rf .venv data .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help .venv demo up down loop test test-system fuzz drawings bench-starter bench-spine bench-serving \
	bench-decode bench-backends bench-crawl \
	bench-duplicates bench-keep bench-storage bench-train bench-glyphs bench-photos bench-imbalance bench-page \
	prove-crash prove-scale prove-resume prove-swap prove-soak prove-scaling prove-rollout prove-images prove-atlas prometheus \
	images images-push k8s-check k8s-smoke pictures lint protos protos-release clean
