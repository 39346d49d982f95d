# One word for everything that CI checks besides the tests: make check
.PHONY: check format test
check:
	ruff format --check .
	ruff check .
	mypy
	lint-imports
format:
	ruff format .
	ruff check --fix .
test:
	pytest
