# make         dist/starling and dist/starling.so
# make test    every test                  make demo    the main job on real data (KEEP=1 leaves it running)
# make test-drivers   one program per language and driver
# make bench   figures beside plain SQLite
# make bench-peer   the same work with cr-sqlite, which it fetches
# make test-peer    random programs on cr-sqlite and on Starling, compared
# make fuzz TARGET=sql SECONDS=180   looks for inputs that break something (docs/TESTING.md)
# make valgrind   the extension in the stock shell under memcheck
# make threads    the extension used by many threads under ThreadSanitizer (helgrind where there is none)
# make setup   what is needed from Debian  make fmt     formats the sources     make clean
.PHONY: all setup test test-drivers test-peer demo bench bench-peer fuzz valgrind threads fmt clean
export STARLING_SO := $(CURDIR)/dist/starling.so
export STARLING_BIN := $(CURDIR)/dist/starling
TARGET := $(or $(CARGO_TARGET_DIR),target)

all: setup
	cargo build --release --locked -p starling -p starling-extension
	mkdir -p dist
	install -m 755 "$(TARGET)/release/starling" dist/starling
	install -m 755 "$(TARGET)/release/libstarling_extension.so" dist/starling.so

setup:
	@scripts/setup.sh

test: setup
	@scripts/test.sh

test-drivers: all
	@python3 scripts/drivers.py

demo: all
	@python3 scripts/demo.py $(if $(filter-out 0 no,$(KEEP)),--keep)

bench: all
	cargo run --release --locked -p starling-tests --bin bench

bench-peer: all
	CRSQLITE_SO="$$(scripts/peer.sh)" STARLING_BENCH_ONLY=peer cargo run --release --locked -p starling-tests --bin bench

test-peer: all
	@/usr/bin/python3 scripts/peer.py "$$(scripts/peer.sh)" dist/starling.so 500

fuzz:
	@scripts/fuzz.sh "$(TARGET)" "$(or $(SECONDS),180)"

valgrind: all
	@scripts/valgrind.sh

threads:
	@scripts/threads.sh

fmt:
	cargo fmt --all

clean:
	cargo clean
	rm -rf dist
