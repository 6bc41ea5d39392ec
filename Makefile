# make demo    everything from nothing: set up, make an image, run, diff, commit, save
# make test    everything from nothing: set up, make check, then the whole test suite
# make check   lint, types, the C core with warnings as errors, the C tests under sanitizers
# make proof   faults on purpose: crashes, errors, power cuts, damage, hostile input, fuzzing; under 30 minutes, as root;
#              PROOF="--scale 0.1 crash damage" takes a tenth of the time, and these suites alone
# make bench   the parts (pytest-benchmark); python -m bench.compare measures against other tools
# make clean   what the above made
#
# Debian packages are installed only where they are missing, and only as root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_BUILD := gcc libc6-dev make
APT_DEMO := $(APT_BUILD) mmdebstrap busybox-static musl-tools
APT_TEST := $(APT_DEMO) acl attr erofs-utils libarchive-tools runc skopeo umoci docker-registry uidmap xz-utils \
            apache2-utils openssl e2fsprogs iproute2
HEADERS := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')

.PHONY: demo test proof check lint types native-check bench clean apt-demo apt-test

demo: apt-demo $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: apt-test $(VENV)/installed check
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not proof" $(PYTEST)

proof: apt-test $(VENV)/installed
	@sh .ci/apt.sh clang libclang-rt-14-dev
	$(BIN)/python tests/proof $(PROOF)

check: $(VENV)/installed lint types native-check

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/mypy

native-check:
	$(MAKE) -s -C csrc check

bench: apt-demo $(VENV)/installed
	$(BIN)/python -m pytest -q bench $(PYTEST)

# The stamp depends on all that the extension is made from; an editable install follows the Python files by itself.
$(VENV)/installed: pyproject.toml setup.py $(wildcard csrc/*.c csrc/*.h csrc/*.py csrc/supervisor/*)
	@test -e "$(HEADERS)" || sh .ci/apt.sh python3-dev python3-venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,check,fuzz,plots]'
	$(BIN)/python -m compileall -q src
	touch $@

apt-demo:
	@sh .ci/apt.sh $(APT_DEMO)

apt-test:
	@sh .ci/apt.sh $(APT_TEST)

clean:
	rm -rf $(VENV) build src/*.egg-info src/layerfs/_native*.so src/layerfs/_native.c
	$(MAKE) -s -C csrc clean
