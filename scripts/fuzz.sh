#!/usr/bin/env bash
# Coverage-guided fuzzing of one target: scripts/fuzz.sh TARGET [SECONDS]. Stable Rust is enough: the coverage counters are
# LLVM's own pass, and libFuzzer comes as source with its crate.
#
# The corpus grows in target/fuzz/corpus/TARGET, from the seeds in tests/fuzz/seeds/TARGET; a finding is written to
# target/fuzz/findings/. Replay it with STARLING_FUZZ_INPUT=TARGET:FILE cargo test -p starling-tests --test replay one_input
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?usage: scripts/fuzz.sh TARGET [SECONDS]}
seconds=${2:-180}
seeds=tests/fuzz/seeds/$target
[ -d "$seeds" ] || { echo "fuzz: no such target: $target; there are: $(ls tests/fuzz/seeds | tr '\n' ' ')" >&2; exit 2; }

work=$PWD/target/fuzz
mkdir -p "$work/corpus/$target" "$work/findings"
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags reach the targets and what they link, and no build script.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
  cargo build --release --locked --manifest-path tests/fuzz/Cargo.toml --target-dir "$work/build" --target "$host" \
  --bin "$target"
exec nice -n 10 "$work/build/$host/release/$target" "$work/corpus/$target" "$seeds" -max_total_time="$seconds" \
  -artifact_prefix="$work/findings/$target-" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=512 -max_len=16384 \
  -print_final_stats=1 -use_value_profile=1
