#!/usr/bin/env bash
# Whether the extension is free of data races: tests/threads/threads.c uses it from many threads in one process, under
# ThreadSanitizer where Rust and the C compiler have it, else under helgrind, else not at all, and it says why. It is built from
# the sources, with the SQLite that the tests embed. Exit code: 0 no race, or skipped; 1 a race, a crash, a hang or a wrong answer.
#
# RUNS=n (1): how often, each time with other choices   SEED=n (1): the first choices
# USE=helgrind: without ThreadSanitizer    PLANTED=1: in a copy of the sources with a race put into crsql_pack_columns; it must fail
set -euo pipefail
cd "$(dirname "$0")/.."
src=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
triple=$(rustc -vV | sed -n 's/^host: //p')
skip() { echo "threads: skipped: $*"; exit 0; }
command -v cc > /dev/null || skip "there is no C compiler"
[[ $triple == *-linux-gnu ]] || skip "it is for Linux, and this is $triple"
if [ -n "${PLANTED:-}" ]; then
  cp -r Cargo.toml Cargo.lock extension sidecar sql tests "$work"
  cd "$work"
  sed -i '/^fn pack_columns/i #[allow(unsafe_code)]' extension/src/functions.rs
  sed -i '/^fn pack_columns/a static mut CALLS: u64 = 0; unsafe { CALLS += 1 };' extension/src/functions.rs
  grep -q 'CALLS += 1' extension/src/functions.rs || { echo "threads: there is no pack_columns to put a race into" >&2; exit 2; }
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$src/target}/threads"
mkdir -p "$CARGO_TARGET_DIR"
sqlite=$(cargo metadata --locked --format-version 1 --filter-platform "$triple" 2> /dev/null | grep -o '[^"]*/libsqlite3-sys-[^"/]*/' | head -n 1 || true)sqlite3
[ -f "$sqlite/sqlite3.c" ] || skip "the sources of SQLite are not in $sqlite"

# The extension in libstarling_extension.so and the program with SQLite in it, both for ThreadSanitizer or not.
build() {
  local object=$CARGO_TARGET_DIR/sqlite$1.o
  [ "$object" -nt "$sqlite/sqlite3.c" ] || cc -O1 -g -fno-omit-frame-pointer $1 -DSQLITE_THREADSAFE=1 -c "$sqlite/sqlite3.c" -o "$object" &
  RUSTFLAGS="$2" cargo build --quiet --locked --target "$triple" -p starling-extension --lib --config 'profile.dev.package."*".opt-level=0' &&
    wait $! && cc -O1 -g -rdynamic -fno-omit-frame-pointer $1 -I"$sqlite" -o "$work/threads" "$src/tests/threads/threads.c" "$object" -lpthread -ldl -lm
}
# Only the access itself is looked at, not what called it.
#   unixOpen: SQLite notices a fork by a variable without a lock, and says so in a comment.
#   sqlite3BtreeIsReadonly: sqlite3_db_readonly reads a flag of a shared cache, with the mutex of its own connection only.
#   faux_sqlite_extension_init2: sqlite-loadable notes the table of routines in a static that nobody reads. entry.rs locks a Mutex
#     around it, but that waits in the standard library, which comes without instrumentation: it looks as if nothing had waited.
cat > "$work/tsan" << 'END'
race_top:unixOpen
race_top:sqlite3BtreeIsReadonly
race_top:faux_sqlite_extension_init2
END
# helgrind knows no atomics and must be told: what SQLite and the program do to themselves (their own atomics among it, so it sees
# nothing of what the extension does in SQLite without a lock), and every atomic access of Rust's.
for top in 'obj:*/threads' 'fun:*atomic_load*' 'fun:*atomic_store*' 'fun:*atomic_swap*' 'fun:*atomic_compare_exchange*' 'fun:*faux_sqlite_extension_init2*'; do
  printf '{\n known\n Helgrind:Race\n %s\n}\n{\n copied\n Helgrind:Race\n fun:mem*\n %s\n}\n' "$top" "$top"
done > "$work/helgrind"

under=() races="ThreadSanitizer"
export RUSTC_BOOTSTRAP=1 TSAN_OPTIONS="exitcode=66 history_size=7 second_deadlock_stack=1 suppressions=$work/tsan"
if [ "${USE:-}" != helgrind ] && echo 'int main(void) { return 0; }' | cc -fsanitize=thread -x c - -o "$work/probe" 2> "$work/why" &&
  "$work/probe" 2>> "$work/why" && build -fsanitize=thread "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer -Cforce-frame-pointers=yes -g"; then
  scale=1
elif command -v valgrind > /dev/null; then
  echo "threads: no ThreadSanitizer: ${USE:-$(head -c 300 "$work/why" 2> /dev/null)}"
  build "" "" || exit 1
  under=(valgrind --tool=helgrind --error-exitcode=66 --num-callers=30 --history-level=approx -q "--suppressions=$work/helgrind")
  races=helgrind scale=4
else
  skip "neither ThreadSanitizer nor valgrind is there (apt-get install -y valgrind)"
fi
for seed in $(seq "${SEED:-1}" $((${SEED:-1} + ${RUNS:-1} - 1))); do
  for run in "first $((3 * seed))" "first $((3 * seed + 1))" "first $((3 * seed + 2))" "apart $seed 120" "shared $((2 * seed)) 120" "shared $((2 * seed + 1)) 120" "own $seed 15"; do
    read -r scenario choices steps <<< "$run"
    rm -rf "$work/files" && mkdir "$work/files"
    code=0
    timeout -k 5 300 "${under[@]}" "$work/threads" "$CARGO_TARGET_DIR/$triple/debug/libstarling_extension.so" "$work/files" \
      "$scenario" "$choices" $((${steps:-0} / scale)) > "$work/out" 2>&1 || code=$?
    grep '^threads: ' "$work/out" || true
    [ $code = 0 ] && continue
    head -n 120 "$work/out" | cut -c 1-220 >&2
    echo "threads: FAILED ($races, $scenario $choices): exit code $code (66 a race, 1 a wrong answer, 124 it hangs)" >&2
    exit 1
  done
done
echo "threads: no race ($races)"
