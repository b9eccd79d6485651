#!/usr/bin/env python3
"""Random programs on cr-sqlite and on Starling side by side: after every step the tables and crsql_changes must be the same (of
one database in all nine columns, their order, and the version; of several without db_version and seq)

    peer.py CRSQLITE_SO STARLING_SO [programs [first seed]]

Left out is what docs/LIMITS.md ("Other than cr-sqlite") says is different: REPLACE, key updates, updates that change nothing, statements
that fail within a transaction, cells of a later lifetime that meet a live row. `make test-peer` fetches the one and builds the other.
"""
import random
import sqlite3
import sys

TABLES = [
    ("one", "CREATE TABLE one(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT, c INTEGER)", ["id"], ["a", "b", "c"]),
    ("two", "CREATE TABLE two(k INTEGER NOT NULL, l TEXT NOT NULL, v, PRIMARY KEY(k, l))", ["k", "l"], ["v"]),
    ("txt", "CREATE TABLE txt(k TEXT PRIMARY KEY NOT NULL, v BLOB, w DEFAULT 5)", ["k"], ["v", "w"]),
    ("blb", "CREATE TABLE blb(k BLOB PRIMARY KEY NOT NULL, v, w TEXT NOT NULL DEFAULT 'd') WITHOUT ROWID", ["k"], ["v", "w"]),
    ("keys", "CREATE TABLE keys(k INTEGER NOT NULL, l INTEGER NOT NULL, PRIMARY KEY(k, l))", ["k", "l"], []),
]
NINE = '"table", pk, cid, val, col_version, db_version, site_id, cl, seq'
STEPS = 60


class Different(Exception):
    """The two do not agree."""


class Pair:
    """The same replicas twice, and what is done to both."""

    def __init__(self, libraries, names):
        self.sides = [{name: self.connect(so) for name in names} for so in libraries]
        self.sites = [{s[n].execute("SELECT crsql_site_id()").fetchone()[0]: n for n in names} for s in self.sides]
        self.log = []

    @staticmethod
    def connect(so):
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.enable_load_extension(True)
        db.execute("SELECT load_extension(?, 'sqlite3_crsqlite_init')", (so,))
        return db

    def same(self, what, results):
        if results[0] != results[1]:
            raise Different(f"{what}\n  cr-sqlite: {results[0]}\n  Starling:  {results[1]}")

    def run(self, name, sql):
        self.log.append(f"{name}: {sql}")

        def one(db):
            try:
                return db.execute(sql).fetchall() and "rows"
            except sqlite3.Error:
                return "an error"

        self.same("the outcome", [one(side[name]) for side in self.sides])

    def changes(self, side, name, where=""):
        sites = self.sites[self.sides.index(side)]
        rows = side[name].execute(f"SELECT {NINE} FROM crsql_changes {where}").fetchall()
        return [r[:6] + (sites.get(r[6], r[6]),) + r[7:] for r in rows]

    def sync(self, source, target, since, twice):
        self.log.append(f"{target} takes from {source} what came after {since}" + (", twice" if twice else ""))
        for side in self.sides:
            rows = side[source].execute(f"SELECT {NINE} FROM crsql_changes WHERE db_version > ?", (since,)).fetchall()
            side[target].execute("BEGIN")
            for row in rows * (2 if twice else 1):
                side[target].execute(f"INSERT INTO crsql_changes({NINE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            side[target].execute("COMMIT")

    def compare(self, name, tables):
        for table, _, keys, _ in tables:
            sql = f"SELECT * FROM {table} ORDER BY {', '.join(keys)}"
            self.same(f"{name}: {table}", [side[name].execute(sql).fetchall() for side in self.sides])
        both = [self.changes(side, name) for side in self.sides]
        if len(self.sides[0]) > 1:
            # The build of cr-sqlite that crates.io has is Fly's: there a merged change keeps its origin's db_version, in 0.16
            # (and here) it gets one of the database that it came into.
            both = [sorted(rows, key=str) for rows in ([r[:5] + r[6:8] for r in rows] for rows in both)]
        self.same(f"{name}: crsql_changes", both)
        sql = "SELECT crsql_rows_impacted()" + (", crsql_db_version()" if len(self.sides[0]) == 1 else "")
        self.same(f"{name}: versions", [side[name].execute(sql).fetchall() for side in self.sides])


class Program:
    """One program, drawn from a seed."""

    def __init__(self, libraries, seed):
        self.r = random.Random(seed)
        self.names = ["A", "B", "C"][: self.r.choice([1, 2, 2, 3])]
        self.tables = self.r.sample(TABLES, self.r.randint(1, 3))
        self.pair = Pair(libraries, self.names)
        self.open, self.count = set(), 0

    def key(self, table, column):
        kinds = {"txt": ["'a'", "'b'", "''"], "blb": ["x''", "x'00'", "x'0102'"]}
        if table == "two" and column == "l":
            return self.r.choice(["'x'", "'y'", "''"])
        return self.r.choice(kinds.get(table, ["-1", "0", "1", "2", "300"]))

    def value(self, column):
        # Never the same twice, so that an update always changes something.
        self.count += 1
        n = self.count
        if column == "c":
            return str(n)
        return self.r.choice([f"'v{n}'"] if column == "w" or column == "b" else [str(n), f"'v{n}'", f"x'{n:06x}'", f"{n}.5"])

    def step(self):
        r, pair = self.r, self.pair
        name = r.choice(self.names)
        table, _, keys, columns = r.choice(self.tables)
        at = [self.key(table, k) for k in keys]
        where = " AND ".join(f"{k} = {v}" for k, v in zip(keys, at))
        draw = r.random()
        if draw < 0.35:
            some = [c for c in columns if r.random() < 0.8]
            values = ", ".join(at + [self.value(c) for c in some])
            pair.run(name, f"INSERT OR IGNORE INTO {table}({', '.join(keys + some)}) VALUES({values})")
        elif draw < 0.6 and columns:
            sets = ", ".join(f"{c} = {self.value(c)}" for c in r.sample(columns, r.randint(1, len(columns))))
            pair.run(name, f"UPDATE {table} SET {sets}" + (f" WHERE {where}" if r.random() < 0.8 else ""))
        elif draw < 0.7:
            pair.run(name, f"DELETE FROM {table}" + (f" WHERE {where}" if r.random() < 0.8 else ""))
        elif draw < 0.82:
            end = r.choice(["COMMIT", "COMMIT", "ROLLBACK"])
            pair.run(name, end if name in self.open else "BEGIN")
            self.open ^= {name}
        else:
            source, target = r.choice(self.names), r.choice(self.names)
            if source != target and not {source, target} & self.open:
                # From the beginning: of a later lifetime's cells all arrive together then.
                pair.sync(source, target, 0, r.random() < 0.3)
                pair.compare(target, self.tables)
        pair.compare(name, self.tables)

    def run(self):
        for name in self.names:
            for table, ddl, _, _ in self.tables:
                self.pair.run(name, ddl)
                self.pair.run(name, f"SELECT crsql_as_crr('{table}')")
        for _ in range(STEPS):
            self.step()
        for side in self.pair.sides:
            for db in side.values():
                db.execute("SELECT crsql_finalize()")
                db.close()


def main():
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        sys.exit("peer.py: the sqlite3 of this Python loads no extensions; Debian's /usr/bin/python3 does")
    libraries, numbers = sys.argv[1:3], [int(n) for n in sys.argv[3:5]]
    programs, first = (numbers + [200, 1][len(numbers) :])[:2]
    for seed in range(first, first + programs):
        program = Program(libraries, seed)
        try:
            program.run()
        except Different as difference:
            print("\n".join(program.pair.log), file=sys.stderr)
            sys.exit(f"peer.py: seed {seed}: {difference}")
    print(f"peer.py: {programs} programs of {STEPS} steps: cr-sqlite and Starling agree after each")


if __name__ == "__main__":
    main()
