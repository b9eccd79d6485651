#!/usr/bin/env python3
"""The main job on real data: this machine's own package database on three nodes.

Written with plain SQL through the stock sqlite3 shell, an HTTP call and Python's own sqlite3 module; read back from each
node's file. Exits 1 unless all three tables end equal.
"""
import argparse
import csv
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(ROOT, "dist", "starling")
SO = os.path.join(ROOT, "dist", "starling.so")
TABLE = (
    "CREATE TABLE packages(package TEXT NOT NULL, architecture TEXT NOT NULL, version TEXT, section TEXT,"
    " installed_size INTEGER, maintainer TEXT, description TEXT, PRIMARY KEY(package, architecture));"
    "SELECT crsql_as_crr('packages');"
)
DEADLINE_S = 60


def say(text):
    print(text, flush=True)


def fail(text):
    say("FAILED: " + text)
    sys.exit(1)


class Node:
    """One node: its file, its process, and how it was told to run."""

    def __init__(self, name, directory):
        self.name = name
        self.dir = directory
        self.db = os.path.join(directory, name + ".db")
        self.process = None
        self.listen = "127.0.0.1:0"
        self.http = None

    def shell(self, sql):
        """Runs SQL in the stock shell with the extension loaded, as any user would."""
        done = subprocess.run(["sqlite3", "-cmd", ".timeout 20000", "-cmd", ".load '%s'" % SO, self.db],
                              input=sql, text=True, capture_output=True)
        if done.returncode or "Error" in done.stderr:
            fail("sqlite3 on %s: %s" % (self.name, done.stderr.strip()))
        return done.stdout

    def start(self, key, join):
        log = open(os.path.join(self.dir, self.name + ".log"), "ab")
        args = [BIN, "run", "--db", self.db, "--cluster-key", key, "--listen", self.listen, "--http", "127.0.0.1:0"]
        for peer in join:
            args += ["--join", peer]
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        found = re.match(r"ready http=(\S+) listen=(\S+) site_id=(\S+)", line)
        if not found:
            fail("%s did not start: see %s" % (self.name, log.name))
        self.http, self.listen = found.group(1), found.group(2)
        say("  %s %s" % (self.name, line.strip()))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def query(self, sql):
        """Reads the file as a stranger does: no extension, no sidecar."""
        db = sqlite3.connect("file:%s?mode=ro" % self.db.replace("?", "%3f").replace("#", "%23"), uri=True, timeout=20)
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def checksum(self):
        digest = hashlib.sha256()
        for row in self.query("SELECT * FROM packages ORDER BY package, architecture"):
            digest.update(repr(row).encode())
        return digest.hexdigest()[:16]

    def post(self, sql):
        request = urllib.request.Request("http://%s/sql" % self.http, data=sql.encode(),
                                         headers={"Content-Type": "application/sql"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode().strip()


def wait(what, condition):
    """Milliseconds until the condition holds."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > DEADLINE_S:
            fail("after %d s still not: %s" % (DEADLINE_S, what))
        time.sleep(0.002)
    return (time.monotonic() - start) * 1000


def packages():
    """This machine's packages; on a machine without dpkg those in data/packages.csv."""
    status = "/var/lib/dpkg/status"
    if not os.path.exists(status):
        with open(os.path.join(ROOT, "data", "packages.csv"), newline="") as f:
            return [[r["package"], r["architecture"], r["version"], r["section"], r["installed_size"],
                     r["maintainer"], r["description"]] for r in csv.DictReader(f)], "data/packages.csv"
    rows = []
    with open(status, encoding="utf-8", errors="replace") as f:
        for paragraph in f.read().split("\n\n"):
            field = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.M))
            if "Package" in field and "Version" in field:
                rows.append([field["Package"], field.get("Architecture", ""), field["Version"], field.get("Section", ""),
                             field.get("Installed-Size") or "0", field.get("Maintainer", ""),
                             field.get("Description", "")])
    return rows, status


def loadable_python():
    """The first python3 whose sqlite3 module can load extensions."""
    test = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)"
    for name in ["/usr/bin/python3", "python3", "python3.13", "python3.12", "python3.11"]:
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", test], capture_output=True).returncode == 0:
            return path
    return None


def import_packages(node, rows):
    path = os.path.join(node.dir, "packages.csv")
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows(rows)
    node.shell(".mode csv\nBEGIN;\n.import '%s' packages\nCOMMIT;\n" % path)


def program(node):
    """A Python program that writes to a node's file while the sidecar runs."""
    python = loadable_python()
    if not python:
        say("  no python3 here whose sqlite3 module can load extensions: skipped")
        return
    code = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], timeout=20)\n"
        "db.enable_load_extension(True)\n"
        "db.load_extension(sys.argv[2])\n"
        "with db:\n"
        "    db.execute(\"INSERT INTO packages VALUES('from-python', 'all', '1.0', 'demo', 1, 'you', 'written by Python')\")\n"
        "    db.execute(\"UPDATE packages SET section = 'python/' || section WHERE package LIKE 'python3%'\")\n"
    )
    subprocess.run([python, "-c", code, node.db, SO], check=True)


def equal(nodes):
    return len({n.checksum() for n in nodes}) == 1


def run(directory, nodes):
    a, b, c = nodes
    key = os.path.join(directory, "cluster.key")
    subprocess.run([BIN, "cluster", "create", "--out", key], check=True, stderr=subprocess.DEVNULL)
    rows, source = packages()
    say("1. three nodes; the table is made on each with the stock sqlite3 shell and .load")
    for node in nodes:
        node.shell(TABLE)
    a.start(key, [])
    b.start(key, [a.listen])
    c.start(key, [a.listen])
    timings = []

    def spread(what, condition, targets):
        timings.append((what, {n.name: wait("%s on %s" % (what, n.name), lambda n=n: condition(n)) for n in targets}))

    say("2. %d packages of %s imported into A with the sqlite3 shell" % (len(rows), source))
    import_packages(a, rows)
    count = a.query("SELECT count(*) FROM packages")[0][0]
    spread("import of %d rows" % count, lambda n: n.query("SELECT count(*) FROM packages")[0][0] == count, [b, c])

    say("3. B (by POST /sql) and C (by the shell) update the same rows at once")
    writer = subprocess.Popen(["sqlite3", "-cmd", ".timeout 20000", "-cmd", ".load '%s'" % SO, c.db,
                               "UPDATE packages SET section = 'from-c', installed_size = installed_size + 2"
                               " WHERE package LIKE 'lib%'"], stdout=subprocess.DEVNULL)
    say("   " + b.post("UPDATE packages SET section = 'from-b', description = upper(description) WHERE package LIKE 'lib%'"))
    if writer.wait():
        fail("the update on C failed")
    spread("conflicting updates", lambda n: equal(nodes), nodes)

    say("4. kill -9 C; A and B go on; C is started again")
    c.kill()
    a.shell("UPDATE packages SET version = version || '+a' WHERE package LIKE 'p%';")
    b.post("DELETE FROM packages WHERE package LIKE 'z%'")
    b.post("INSERT INTO packages VALUES('born-while-c-was-dead', 'all', '1', 'demo', 1, 'you', 'hello')")
    c.start(key, [a.listen, b.listen])
    spread("what C missed", lambda n: equal(nodes), [c])

    say("5. a Python program writes to B's file with the standard sqlite3 module")
    program(b)
    spread("Python's writes", lambda n: n.checksum() == b.checksum(), [a, c])
    return timings, key


def table(nodes, timings):
    say("\n%-28s %s" % ("milliseconds until", "  ".join("%8s" % n.name for n in nodes)))
    for what, times in timings:
        say("%-28s %s" % (what, "  ".join("%8.1f" % times[n.name] if n.name in times else "%8s" % "-" for n in nodes)))
    say("\n%-6s %8s %9s  %s" % ("node", "rows", "changes", "checksum of the table"))
    sums = set()
    for n in nodes:
        changes = n.shell("SELECT count(*) FROM crsql_changes;").strip()
        sums.add(n.checksum())
        say("%-6s %8d %9s  %s" % (n.name, n.query("SELECT count(*) FROM packages")[0][0], changes, n.checksum()))
    if len(sums) != 1:
        fail("the tables differ")
    say("\nall equal")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the nodes running")
    keep = parser.parse_args().keep
    directory = tempfile.mkdtemp(prefix="starling demo ")
    nodes = [Node(name, directory) for name in "ABC"]
    try:
        timings, key = run(directory, nodes)
        table(nodes, timings)
        if keep:
            say("\nleft running in '%s':" % directory)
            for n in nodes:
                say("  %s: pid %d, sqlite3 -cmd \".load '%s'\" '%s'" % (n.name, n.process.pid, SO, n.db))
                say("     curl -X POST -H 'Content-Type: application/sql' -d 'SELECT count(*) FROM packages' http://%s/sql" % n.http)
                say("     '%s' status --db '%s'" % (BIN, n.db))
            say("stop them with: kill %s" % " ".join(str(n.process.pid) for n in nodes))
    finally:
        if not keep or sys.exc_info()[0]:
            for n in nodes:
                if n.process and n.process.poll() is None:
                    n.process.terminate()
            for n in nodes:
                if n.process:
                    try:
                        n.process.wait(10)
                    except subprocess.TimeoutExpired:
                        n.process.kill()
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
