#!/usr/bin/env bash
# The shipped extension in the stock sqlite3 shell under valgrind's memcheck: the golden scripts, in memory and in a file in WAL
# mode. Any invalid access, any use of uninitialised memory, and any block that is definitely lost is a failure.
#
# `valgrind.sh short`, a part of `make test`, checks the exchange of changesets and one script, where there is a valgrind.
# STARLING_SO names the extension (dist/starling.so).
set -euo pipefail
cd "$(dirname "$0")/.."
so=${STARLING_SO:-$PWD/dist/starling.so}
[ -f "$so" ] || { echo "valgrind: $so is missing: make" >&2; exit 1; }
if [ "${1:-}" = short ] && ! command -v valgrind > /dev/null; then
  echo "valgrind: skipped: it is not installed (apt-get install -y valgrind)"
  exit 0
fi
command -v valgrind > /dev/null || { echo "valgrind: missing: apt-get install -y valgrind" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One script into one database, under valgrind.
check() {
  local script=$1 database=$2 name
  name="${3:-$(basename "$script" .sql)} in $(basename "$database")"
  if ! valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --track-origins=yes \
    --num-callers=30 sqlite3 -batch -bail -cmd ".load '$so'" "$database" < "$script" > "$work/out" 2> "$work/err"; then
    echo "valgrind: $name: FAILED" >&2
    cat "$work/err" >&2
    exit 1
  fi
  echo "valgrind: $name: ok"
}

# The same database twice: the second time it is opened as it was left.
twice() {
  local script=$1
  { echo "PRAGMA journal_mode = wal;"; cat "$script"; } > "$work/first.sql"
  check "$work/first.sql" "$work/file.db" "$(basename "$script" .sql)"
  printf 'SELECT count(*) FROM crsql_changes;\nSELECT length(changeset) FROM starling_changesets(NULL, NULL);\nSELECT starling_prune(100);\n' \
    > "$work/second.sql"
  check "$work/second.sql" "$work/file.db" "the same, opened again,"
  rm -f "$work"/file.db*
}

# Changesets from one file into another, then a part that is cut short.
exchange() {
  local table="CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b); SELECT crsql_as_crr('t');"
  cat > "$work/from.sql" << END
$table
INSERT INTO t VALUES('k', 1, 'x'), ('l', 2, 'y'); UPDATE t SET a = 7; DELETE FROM t WHERE id = 'l';
INSERT INTO crsql_changes VALUES('t', crsql_pack_columns('n'), 'a', 1, 1, 9, x'aa', 1, 0);
SELECT writefile('$work/part_' || row_number() OVER (), changeset) FROM starling_changesets(NULL, NULL);
SELECT writefile('$work/vector', starling_answer_vector());
END
  cat > "$work/to.sql" << END
$table
BEGIN IMMEDIATE;
SELECT starling_merge(readfile('$work/part_1')), starling_merge(readfile('$work/part_2')), starling_merge(readfile('$work/part_3'));
SELECT starling_claim(readfile('$work/vector')), starling_check(readfile('$work/vector'));
COMMIT;
SELECT * FROM t; SELECT * FROM crsql_changes;
END
  check "$work/from.sql" "$work/from.db"
  check "$work/to.sql" "$work/to.db"
  echo "SELECT starling_merge(substr(readfile('$work/part_1'), 1, 60));" > "$work/cut.sql"
  # It must fail, and only as SQL.
  valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite sqlite3 -batch -bail \
    -cmd ".load '$so'" "$work/to.db" < "$work/cut.sql" > "$work/out" 2> "$work/err" && { echo "valgrind: a cut part was taken" >&2; exit 1; }
  grep -q "starling_merge" "$work/err" && ! grep -q "^==" "$work/err" || { cat "$work/err" >&2; exit 1; }
  echo "valgrind: a part that is cut short: ok"
}

exchange
if [ "${1:-}" = short ]; then
  twice tests/golden/01_capture.sql
  exit 0
fi
for script in tests/golden/*.sql; do
  check "$script" :memory:
done
for script in tests/golden/0[1-5]*.sql tests/golden/11*.sql; do
  twice "$script"
done
echo "valgrind: no errors, nothing definitely lost"
