# make: dist/starling and dist/starling.so    make demo: the main job on real data    make test: every test
.PHONY: all setup test demo bench fmt clean
SHELL := /bin/bash
export STARLING_SO := $(CURDIR)/dist/starling.so
export STARLING_BIN := $(CURDIR)/dist/starling

all: setup
	cargo build --release --locked -p starling -p starling-extension
	mkdir -p dist
	cp target/release/starling dist/starling
	cp target/release/libstarling_extension.so dist/starling.so

setup:
	@scripts/setup.sh

test: all
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked
	python3 scripts/tour.py README.md

demo: all
	python3 scripts/demo.py $(if $(KEEP),--keep)

bench: all
	cargo run --release --locked -p starling-tests --bin bench

fmt:
	cargo fmt --all

clean:
	cargo clean
	rm -rf dist
