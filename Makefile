.PHONY: all test clean
all:
	cargo build --release
	mkdir -p dist && cp target/release/starling dist/starling && cp target/release/libstarling_extension.so dist/starling.so
test:
	cargo fmt --all --check
	cargo test --workspace
clean:
	cargo clean && rm -rf dist
