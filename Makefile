# Every target a newcomer needs; `make help` lists them.
PYTHON ?= python3
# Test processes side by side, each with servers of its own; 0 is none but pytest itself.
WORKERS ?= 2
RUN := .venv/.installed-run
DEV := .venv/.installed-dev

.DEFAULT_GOAL := help
.PHONY: pictures help run test check bench tools docs dashboards lock clean format

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(RUN): requirements/run.txt requirements/install.py
	@$(PYTHON) requirements/install.py run

$(DEV): requirements/dev.txt requirements/install.py
	@$(PYTHON) requirements/install.py dev

run: $(RUN) ## Start ATP with real embedded PostgreSQL, Valkey and a small LLM; prints a key and a curl line
	@exec .venv/bin/python -m service dev

test: $(DEV) tools ## Run the whole suite against real servers
	@.venv/bin/python -m tests.observability.prepare
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

check: $(DEV) ## Lint, format check and types (no server is started)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(DEV) ## Rewrite the code in the house format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: $(DEV) ## Print the table of ratios against bare Starlette and the peers (minutes)
	.venv/bin/python -m bench

pictures: $(DEV) tools ## Draw the dashboards of docs/dashboards.md anew, from a run of their proof (needs npm, chromium)
	ATP_PICTURES=$(CURDIR)/.tools/pictures.json ATP_PICTURES_ROUNDS=120 .venv/bin/python -m pytest tests/observability/test_proof.py --timeout 600
	.venv/bin/python -m tests.observability.preview --dashboards observability/grafana/dashboards --data .tools/pictures.json --out docs/img/dashboards

tools: ## Install the tools that no wheel carries (apt, when root or sudo allows)
	@requirements/tools.sh

docs: $(RUN) ## Write the pages that are made from the code
	.venv/bin/python -m service.setting_page
	.venv/bin/python -m service.metric_page

dashboards: $(DEV) ## Write the dashboards of Grafana that are made from Python
	.venv/bin/python -m observability.grafana.builder

lock: ## Renew the locked requirements from pyproject.toml (needs uv)
	uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --extra embedded pyproject.toml -o requirements/run.txt
	uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 -c requirements/run.txt pyproject.toml -o requirements/image.txt
	echo hatchling | uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 -c requirements/run.txt - -o requirements/build.txt
	uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 --extra embedded --extra dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	echo bugsink==2.6.1 | uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11 - -o requirements/bugsink.txt

clean: ## Remove .venv, caches and bench leftovers; keeps .atp (your data and keys)
	rm -rf .venv .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
