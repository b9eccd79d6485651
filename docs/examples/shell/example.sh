#!/usr/bin/env bash
# Two SQLite files that take each other's changes, with nothing but the sqlite3 shell.
#
#     cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so bash /path/to/example.sh
set -euo pipefail
STARLING_SO=$(realpath "$STARLING_SO")

# Each call is a connection of its own: opened, the extension loaded, the SQL run, closed. -init /dev/null keeps a
# ~/.sqliterc out; .load wants a name without surprises, so the file is linked here.
ln -sf "$STARLING_SO" starling.so
sql() {
  local file=$1
  shift
  sqlite3 -batch -bail -init /dev/null "$file" ".load ./starling.so" ".timeout 5000" "$@"
}

check() {
  [ "$2" = "$3" ] || { echo "shell: $1: '$2' is not '$3'" >&2; exit 1; }
}

# What two replicas must agree on: the rows, and every cell's clock.
content() {
  sql "$1" "SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
            UNION ALL
            SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
            ORDER BY 1"
}

same() {
  check "the files differ" "$(content one.db)" "$(content two.db)"
}

version() {
  sql "$1" "SELECT crsql_db_version()"
}

# The portable way, copy_changes FROM TO SINCE: nine columns out of one file, as INSERT statements, into the other.
copy_changes() {
  sql "$1" ".mode insert crsql_changes" \
    "SELECT \"table\", pk, cid, val, col_version, db_version, site_id, cl, seq FROM crsql_changes WHERE db_version > $3" > changes.sql
  sql "$2" "BEGIN IMMEDIATE" ".read changes.sql" "COMMIT"
}

# The fast way, pull TO FROM: whole transactions as blobs, and only those that TO does not have. One transaction reads the
# changesets and the vector that they lead to out of one snapshot.
pull() {
  local have
  have=$(sql "$1" "SELECT quote(starling_vector())")
  sql "$2" "BEGIN" \
    "SELECT 'SELECT starling_merge(' || quote(changeset) || ');' FROM starling_changesets($have, 0)" \
    "SELECT 'SELECT starling_claim(' || quote(starling_answer_vector()) || ');'" "COMMIT" > changesets.sql
  sql "$1" "BEGIN IMMEDIATE" ".read changesets.sql" "COMMIT" > /dev/null
}

for file in one.db two.db; do
  sql "$file" "PRAGMA journal_mode = WAL" \
    "CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)" \
    "SELECT crsql_as_crr('machines')" > /dev/null
done

# Both are written to; then each takes what the other has.
sql one.db "INSERT INTO machines VALUES('m-1', NULL, 9007199254740993, 2.0, x'00ff')"
sql one.db "INSERT INTO machines VALUES('m-2', 'läuft', -1, 0.1, x'')"
sql two.db "INSERT INTO machines VALUES('m-3', 'new', 3, NULL, NULL)"
copy_changes one.db two.db 0
copy_changes two.db one.db 0
same

# From then on only what is newer than the version seen last.
seen=$(version one.db)
sql one.db "UPDATE machines SET load = 3.0 WHERE id = 'm-1'"
copy_changes one.db two.db "$seen"
check "one changed cell is one change" "$(grep -c INSERT changes.sql)" 1
same

# What is rolled back was never there: -bail ends the shell at the failing INSERT, and closing rolls back.
before=$(version one.db; content one.db)
if sql one.db "BEGIN IMMEDIATE" "UPDATE machines SET status = 'lost'" "INSERT INTO machines(id) VALUES('m-1')" "COMMIT" 2> errors; then
  echo "shell: a key was inserted twice" >&2
  exit 1
fi
check "the error" "$(grep -c 'UNIQUE constraint failed: machines.id' errors)" 1
check "a rollback left something" "$(version one.db; content one.db)" "$before"

# Another connection, open all the while, sees what is committed at once.
coproc other { sqlite3 -batch -init /dev/null one.db; }
echo ".load ./starling.so" >&"${other[1]}"
echo "SELECT crsql_db_version();" >&"${other[1]}"
read -r first <&"${other[0]}"
sql one.db "UPDATE machines SET serial = 2 WHERE id = 'm-2'"
echo "SELECT crsql_db_version();" >&"${other[1]}"
read -r second <&"${other[0]}"
check "the commit is not seen" "$second" $((first + 1))
pid=$other_PID
eval "exec ${other[1]}>&-"
wait "$pid"

# A conflict: both write one cell. Both files end with the same value, whoever merges first.
sql one.db "UPDATE machines SET status = 'sick' WHERE id = 'm-1'"
sql two.db "UPDATE machines SET status = 'healthy' WHERE id = 'm-1'"
sql two.db "DELETE FROM machines WHERE id = 'm-3'"
pull one.db two.db
pull two.db one.db
same
echo "ok shell $(sqlite3 --version | cut -d' ' -f1) sqlite $(sql one.db 'SELECT sqlite_version()')"
