"""Two SQLite files that take each other's changes, with apsw (pip install apsw), which brings its own SQLite.

    cd "$(mktemp -d)" && STARLING_SO=/path/to/starling.so python3 /path/to/example_apsw.py
"""
import os
import sys

import apsw

TABLE = "CREATE TABLE machines(id TEXT NOT NULL PRIMARY KEY, status TEXT, serial INTEGER, load REAL, photo BLOB)"

# What two replicas must agree on: the rows, and every cell's clock.
CONTENT = """
    SELECT 'row ' || quote(id) || quote(status) || quote(serial) || quote(load) || quote(photo) FROM machines
    UNION ALL
    SELECT 'cell ' || quote(pk) || cid || quote(val) || ' ' || col_version || ' ' || cl FROM crsql_changes
    ORDER BY 1"""

COLUMNS = '"table", pk, cid, val, col_version, db_version, site_id, cl, seq'


def connect(path):
    db = apsw.Connection(path)
    db.set_busy_timeout(5000)
    db.enable_load_extension(True)
    db.load_extension(os.path.abspath(os.environ["STARLING_SO"]))
    db.enable_load_extension(False)
    db.pragma("journal_mode", "wal")
    # `with db` begins a transaction; IMMEDIATE takes the write lock at once instead of failing at the first write.
    db.transaction_mode = "IMMEDIATE"
    return db


def value(db, sql, *parameters):
    return db.execute(sql, parameters).get


def version(db):
    return value(db, "SELECT crsql_db_version()")


def copy_changes(source, target, since):
    """The portable way: nine columns out of one file, nine values into the other. Returns how many."""
    changes = source.execute(f"SELECT {COLUMNS} FROM crsql_changes WHERE db_version > ?", (since,)).fetchall()
    with target:
        target.executemany("INSERT INTO crsql_changes VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", changes)
    return len(changes)


def pull(target, source):
    """The fast way: whole transactions as blobs, and only those that the target does not have."""
    have = value(target, "SELECT starling_vector()")
    source.execute("BEGIN")  # one snapshot for the changesets and for the vector that they lead to
    changesets = source.execute("SELECT changeset FROM starling_changesets(?, 0)", (have,)).fetchall()
    leads_to = value(source, "SELECT starling_answer_vector()")
    source.execute("COMMIT")
    with target:
        for (changeset,) in changesets:
            value(target, "SELECT starling_merge(?)", changeset)
        value(target, "SELECT starling_claim(?)", leads_to)


def check(what, condition):
    if not condition:
        sys.exit(f"apsw: {what}")


def main():
    one, two = connect("one.db"), connect("two.db")
    for db in (one, two):
        db.execute(TABLE)
        value(db, "SELECT crsql_as_crr('machines')")

    # Both are written to; then each takes what the other has.
    insert = "INSERT INTO machines VALUES(?, ?, ?, ?, ?)"
    one.execute(insert, ("m-1", None, 9007199254740993, 2.0, b"\x00\xff"))
    one.execute(insert, ("m-2", "läuft", -1, 0.1, b""))
    two.execute(insert, ("m-3", "new", 3, None, None))
    copy_changes(one, two, 0)
    copy_changes(two, one, 0)
    check("the files differ", one.execute(CONTENT).fetchall() == two.execute(CONTENT).fetchall())

    # From then on only what is newer than the version seen last.
    seen = version(one)
    one.execute("UPDATE machines SET load = 3.0 WHERE id = 'm-1'")
    check("one changed cell is one change", copy_changes(one, two, seen) == 1)
    check("the files differ", one.execute(CONTENT).fetchall() == two.execute(CONTENT).fetchall())

    # What is rolled back was never there: `with` rolls back when its block is left by an exception.
    before = (version(one), one.execute(CONTENT).fetchall())
    try:
        with one:
            one.execute("UPDATE machines SET status = 'lost'")
            one.execute("INSERT INTO machines(id) VALUES('m-1')")
        check("a key was inserted twice", False)
    except apsw.ConstraintError:
        pass
    check("a rollback left something", before == (version(one), one.execute(CONTENT).fetchall()))

    # Another connection sees what is committed, at once.
    other = connect("one.db")
    one.execute("UPDATE machines SET serial = 2 WHERE id = 'm-2'")
    check("the commit is not seen", version(other) == version(one) == before[0] + 1)
    other.close()

    # A conflict: both write one cell. Both files end with the same value, whoever merges first.
    one.execute("UPDATE machines SET status = 'sick' WHERE id = 'm-1'")
    two.execute("UPDATE machines SET status = 'healthy' WHERE id = 'm-1'")
    two.execute("DELETE FROM machines WHERE id = 'm-3'")
    pull(one, two)
    pull(two, one)
    check("the files differ", one.execute(CONTENT).fetchall() == two.execute(CONTENT).fetchall())

    # Closing needs no call before it.
    one.close()
    two.close()
    print("ok python-apsw %s sqlite %s" % (apsw.apsw_version(), apsw.sqlite_lib_version()))


main()
