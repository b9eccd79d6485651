#!/usr/bin/env bash
# Every test, in the order in which a mistake shows soonest. Each step says how long it took; the first that fails ends
# the run.
#
# The tests run as cargo's dev profile builds them, with overflow checks and debug assertions. What they start or load (the
# cluster tests the binary, the shell and Python the extension) is the release build in dist/: what ships is tested.
set -euo pipefail
cd "$(dirname "$0")/.."
export STARLING_SO="$PWD/dist/starling.so" STARLING_BIN="$PWD/dist/starling"
# A RUST_LOG or STARLING_* of whoever runs this must not change what the nodes do.
unset RUST_LOG STARLING_DB STARLING_CLUSTER_KEY STARLING_LISTEN STARLING_HTTP STARLING_JOIN STARLING_ADVERTISE \
  STARLING_HTTP_HOST STARLING_HTTP_TOKEN_FILE

step() {
  local name=$1 start=$SECONDS
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  if "$@"; then
    printf '== %s: ok, %d s (%d s in all)\n' "$name" $((SECONDS - start)) "$SECONDS"
  else
    local code=$?
    printf '== %s: FAILED (exit code %d) after %d s\n' "$name" "$code" $((SECONDS - start)) >&2
    exit 1
  fi
}

step format cargo fmt --all --check
step lint cargo clippy --workspace --all-targets --locked -- -D warnings
step build make --no-print-directory all
step tests cargo test --workspace --locked --no-fail-fast
step valgrind scripts/valgrind.sh short
step threads scripts/threads.sh
step drivers python3 scripts/drivers.py
step tour python3 scripts/tour.py README.md
step docs python3 scripts/tour.py docs/SQL.md
step demo python3 scripts/demo.py
printf '\n== all of it passed, %d s\n' "$SECONDS"
