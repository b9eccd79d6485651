#!/usr/bin/env python3
"""The main job on real data: this machine's own package database on three nodes.

Everything is written by ordinary means: the stock sqlite3 shell, curl, Python's own sqlite3 module. Everything is read
from the nodes' files by a reader that knows nothing of Starling. Exits 1 unless tables and changes end equal everywhere.
"""
import argparse
import csv
import hashlib
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("STARLING_BIN") or os.path.join(ROOT, "dist", "starling")
SO = os.environ.get("STARLING_SO") or os.path.join(ROOT, "dist", "starling.so")
CSV = os.path.join(ROOT, "data", "packages.csv")
DPKG = "/var/lib/dpkg/status"
COLUMNS = ["package", "version", "architecture", "section", "installed_size", "maintainer", "description"]
TABLE = """
CREATE TABLE packages(
  package TEXT NOT NULL, version TEXT, architecture TEXT NOT NULL, section TEXT, installed_size INTEGER,
  maintainer TEXT, description TEXT, PRIMARY KEY(package, architecture));
SELECT crsql_as_crr('packages');
"""
DEADLINE_S = 60
# Flags of the nodes that the user's environment sets would change the demo.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "RUST_LOG" and not k.startswith("STARLING_")}


class Failed(Exception):
    """What went wrong, for the one line that says so."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP end the demo through its clean-up, not where that would lose sight of a process."""

    held = False
    came = None

    @classmethod
    def install(cls):
        for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, cls.handle)

    @classmethod
    def handle(cls, number, _frame):
        cls.came = number
        if not cls.held:
            sys.exit(128 + number)

    @classmethod
    def hold(cls):
        cls.held = True

    @classmethod
    def release(cls):
        cls.held = False
        if cls.came:
            sys.exit(128 + cls.came)


def say(text=""):
    print(text, flush=True)


def wait(what, condition):
    """Waits for a condition; past the deadline the demo has failed."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise Failed("after %d s still not: %s" % (DEADLINE_S, what))
        time.sleep(0.001)


class Watcher(threading.Thread):
    """Reads a node's file as a stranger does, without extension and sidecar, and notes when the table became what.

    `PRAGMA data_version` is asked every millisecond; the table is read only when somebody committed.
    """

    def __init__(self, db):
        super().__init__(daemon=True)
        self.uri = "file:%s?mode=ro" % db.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        self.seen = []  # (when, rows, checksum), oldest first
        self.asked_at = 0.0
        self.trouble = None
        self.ended = threading.Event()

    def run(self):
        try:
            db = sqlite3.connect(self.uri, uri=True, timeout=20, isolation_level=None)
            version = None
            while not self.ended.is_set():
                asked = time.monotonic()
                now = db.execute("PRAGMA data_version").fetchone()[0]
                if now != version:
                    version = now
                    self.look(db)
                self.asked_at = asked
                time.sleep(0.001)
            db.close()
        except sqlite3.Error as error:
            self.trouble = error

    def look(self, db):
        db.execute("BEGIN")
        rows = db.execute("SELECT count(*) FROM packages").fetchone()[0]
        when = time.monotonic()
        digest = hashlib.sha256()
        for row in db.execute("SELECT * FROM packages ORDER BY package, architecture"):
            digest.update(repr(row).encode())
        db.execute("COMMIT")
        checksum = digest.hexdigest()[:16]
        if not self.seen or self.seen[-1][2] != checksum:
            self.seen.append((when, rows, checksum))

    def current(self, after):
        """What the table is, known from a look that began after this moment; else None."""
        if self.trouble:
            raise Failed("reading a node's file: %s" % self.trouble)
        return self.seen[-1] if self.asked_at > after and self.seen else None

    def first_change(self, after):
        return next(when for when, _, _ in self.seen if when > after)

    def first_time(self, checksum, after):
        return next(when for when, _, c in self.seen if c == checksum and when > after)

    def end(self):
        self.ended.set()
        self.join(5)


class Node:
    """One node: its file, its process, and how it was told to run."""

    def __init__(self, name, directory):
        self.name = name
        self.db = os.path.join(directory, name + ".db")
        self.log = os.path.join(directory, name + ".log")
        self.listen = "127.0.0.1:0"
        self.http = None
        self.process = None
        self.watcher = None

    def start(self, key, join):
        args = [BIN, "run", "--db", self.db, "--cluster-key", key, "--listen", self.listen, "--http", "127.0.0.1:0"]
        for peer in join:
            args += ["--join", peer]
        Signals.hold()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                            env=ENVIRONMENT, start_new_session=True)
        Signals.release()
        line = first_line(self.process.stdout)
        found = re.match(r"ready http=(\S+) listen=(\S+) site_id=(\S+)$", line)
        if not found:
            raise Failed("%s did not start: %s" % (self.name, self.last_words()))
        self.http, self.listen = found.group(1), found.group(2)
        say("   %s  %s" % (self.name, line))
        if not self.watcher:
            self.watcher = Watcher(self.db)
            self.watcher.start()

    def last_words(self):
        with open(self.log, errors="replace") as log:
            return (log.read().strip().splitlines() or ["it said nothing"])[-1]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; the exit code, None if it had to be killed."""
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def shell(self, sql):
        """Runs SQL in the stock shell with the extension loaded, as any user would."""
        done = subprocess.run(shell_command(self.db), input=sql, text=True, capture_output=True, timeout=DEADLINE_S)
        if done.returncode or "rror" in done.stderr:
            raise Failed("sqlite3 on %s: %s" % (self.name, done.stderr.strip()))
        return done.stdout

    def curl(self, sql):
        """POST /sql, with curl."""
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "--max-time", "30", "-X", "POST", "-H", "Content-Type: application/sql",
             "-d", sql, "http://%s/sql" % self.http], text=True, capture_output=True)
        if done.returncode:
            raise Failed("curl: %s" % done.stderr.strip())
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise Failed("POST /sql on %s: %s" % (self.name, answer["error"]))
        return answer

    def changes(self):
        """How many changes crsql_changes shows, and a checksum of what all nodes must agree on in them."""
        lines = self.shell('SELECT "table", hex(pk), cid, quote(val), col_version, cl FROM crsql_changes'
                           ' ORDER BY "table", pk, cid;\n')
        return lines.count("\n"), hashlib.sha256(lines.encode()).hexdigest()[:16]


def shell_command(db):
    """The sqlite3 shell with the extension in it."""
    quoted = '"%s"' % SO.replace("\\", "\\\\").replace('"', '\\"')
    return ["sqlite3", "-batch", "-bail", "-init", "/dev/null", "-cmd", ".timeout 20000", "-cmd", ".load " + quoted, db]


def first_line(stream):
    """A line of a process, or what it said before it ended or the deadline passed."""
    said, end = b"", time.monotonic() + DEADLINE_S
    while not said.endswith(b"\n") and time.monotonic() < end:
        if select.select([stream], [], [], 0.1)[0]:
            byte = os.read(stream.fileno(), 1)
            if not byte:
                break
            said += byte
    return said.decode(errors="replace").strip()


def packages(use_csv):
    """(rows, where they are from): this machine's packages; without dpkg those that the repository carries."""
    if use_csv or not os.path.exists(DPKG):
        with open(CSV, newline="", encoding="utf-8") as f:
            return [[row[c] for c in COLUMNS] for row in csv.DictReader(f)], "data/packages.csv"
    rows = []
    with open(DPKG, encoding="utf-8", errors="replace") as f:
        for paragraph in f.read().split("\n\n"):
            field = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.M))
            if "Package" in field and "Version" in field:
                names = ["Package", "Version", "Architecture", "Section", "Installed-Size", "Maintainer", "Description"]
                rows.append([field.get(name, "") for name in names])
    return rows, DPKG


def loadable_python():
    """The first python3 whose sqlite3 module can load extensions."""
    test = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)"
    for name in ["/usr/bin/python3", "python3"] + ["python3.%d" % minor for minor in range(20, 7, -1)]:
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", test], capture_output=True).returncode == 0:
            return path
    return None


class Demo:
    """Three nodes, what is done to them, and how long each step took to be everywhere."""

    def __init__(self, directory, use_csv):
        self.directory = directory
        self.key = os.path.join(directory, "cluster.key")
        self.nodes = [Node(name, directory) for name in "ABC"]
        self.rows, self.source = packages(use_csv)
        self.timings = []

    def everywhere(self, what, began, since):
        """Waits until all tables are equal, and notes for each node when it had what all have in the end.

        `since` tells the moment from which it counts, once all is known.
        """
        done = time.monotonic()

        def equal():
            states = [node.watcher.current(done) for node in self.nodes]
            return all(states) and len({checksum for _, _, checksum in states}) == 1

        wait("%s: equal tables on A, B and C" % what, equal)
        final = self.nodes[0].watcher.seen[-1][2]
        start = since()
        times = [max(0.0, node.watcher.first_time(final, began) - start) * 1000 for node in self.nodes]
        self.timings.append((what, times))
        say("   everywhere after %.0f ms" % max(times))

    def run(self):
        self.start()
        self.bulk_import()
        self.conflict()
        self.crash()
        self.program()

    def start(self):
        say("1. Three nodes. The table is made on each with the stock sqlite3 shell and .load")
        made = subprocess.run([BIN, "cluster", "create", "--out", self.key], capture_output=True, text=True)
        if made.returncode:
            raise Failed(made.stderr.strip())
        a, b, c = self.nodes
        for node in self.nodes:
            node.shell(TABLE)
        a.start(self.key, [])
        b.start(self.key, [a.listen])
        c.start(self.key, [a.listen])

    def bulk_import(self):
        say("\n2. The %d packages of %s are imported into A's file with the sqlite3 shell"
            % (len(self.rows), self.source))
        a = self.nodes[0]
        path = os.path.join(self.directory, "packages.csv")
        with open(path, "w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows(self.rows)
        began = time.monotonic()
        a.shell('BEGIN;\n.import --csv "%s" packages\nCOMMIT;\n' % path)
        self.everywhere("import into A", began, lambda: a.watcher.first_change(began))
        if a.watcher.seen[-1][1] != len(self.rows):
            raise Failed("%d rows of %d are there" % (a.watcher.seen[-1][1], len(self.rows)))

    def conflict(self):
        """C's transaction is open while B commits, so neither knows of the other: a conflict in every row."""
        victim = min(row[0] for row in self.rows if row[0].startswith("lib"))
        say("\n3. B and C change the same rows, neither knowing of the other: B deletes %s and changes" % victim)
        say("   section and description of all other lib*, C changes section and size of all of them")
        _, b, c = self.nodes
        began = time.monotonic()
        writer = subprocess.Popen(shell_command(c.db), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        try:
            writer.stdin.write(b"BEGIN IMMEDIATE; UPDATE packages SET section = 'by C', installed_size = 1"
                               b" WHERE package LIKE 'lib%'; SELECT 'written';\n")
            writer.stdin.flush()
            if first_line(writer.stdout) != "written":
                raise Failed("the update on C: %s" % writer.communicate()[1].decode())
            answer = b.curl("DELETE FROM packages WHERE package = '%s'; UPDATE packages SET section = 'by B',"
                            " description = upper(description) WHERE package LIKE 'lib%%'" % victim)
            say("   curl to B: %s" % json.dumps(answer))
            _, errors = writer.communicate(b"COMMIT;\n", timeout=DEADLINE_S)
        finally:
            writer.kill()
            writer.wait()
        if writer.returncode or errors:
            raise Failed("the update on C: %s" % errors.decode())
        self.everywhere("conflict of B and C", began,
                        lambda: max(b.watcher.first_change(began), c.watcher.first_change(began)))
        merged = c.shell("SELECT count(*), section, max(description = upper(description)), max(installed_size)"
                         " FROM packages WHERE package LIKE 'lib%%' GROUP BY section;"
                         "SELECT count(*) FROM packages WHERE package = '%s';" % victim).split()
        if len(merged) != 3:
            raise Failed("not all rows were merged alike: %s" % merged)
        count, winner = merged[0].split("|")[0], " ".join(merged[:2]).split("|")[1]
        say("   merged cell by cell, alike on all nodes: %s rows have the section '%s', B's descriptions and C's sizes;"
            % (count, winner))
        say("   %s is %s" % (victim, "deleted" if merged[2] == "0" else "there"))

    def crash(self):
        say("\n4. kill -9 of C's sidecar. A and B go on, and so does a program on C's own file. Then C starts again")
        a, b, c = self.nodes
        c.kill()
        a.shell("UPDATE packages SET version = version || '+a' WHERE package LIKE 'p%';")
        b.curl("DELETE FROM packages WHERE package LIKE 'z%'")
        b.curl("INSERT INTO packages VALUES('born-while-c-was-dead', '1', 'all', 'demo', 1, 'you', 'by B')")
        c.shell("INSERT INTO packages VALUES('written-while-dead', '1', 'all', 'demo', 1, 'you', 'by C');")
        began = time.monotonic()
        c.start(self.key, [a.listen, b.listen])
        self.everywhere("kill -9 of C, from its start on", 0.0, lambda: began)

    def program(self):
        say("\n5. A Python program writes to B's file with the standard sqlite3 module")
        python, b = loadable_python(), self.nodes[1]
        if not python:
            say("   skipped: there is no python3 here whose sqlite3 module can load extensions")
            return
        began = time.monotonic()
        done = subprocess.run([python, "-c", PROGRAM, b.db, SO], capture_output=True, text=True)
        if done.returncode:
            raise Failed("the Python program: %s" % done.stderr.strip())
        say("   %s: %s" % (python, done.stdout.strip()))
        self.everywhere("Python on B", began, lambda: b.watcher.first_change(began))

    def table(self):
        """The figures, and whether all is equal."""
        def line(name, cells):
            say(("   %-36s" % name) + "".join("%18s" % cell for cell in cells))

        say("\n6. In the end")
        line("", ["A", "B", "C"])
        for what, times in self.timings:
            line("ms: " + what, ["%.1f" % ms for ms in times])
        states = [node.watcher.seen[-1] for node in self.nodes]
        changes = [node.changes() for node in self.nodes]
        line("rows", [rows for _, rows, _ in states])
        line("changes in crsql_changes", [count for count, _ in changes])
        line("checksum of the table", [checksum for _, _, checksum in states])
        line("checksum of the changes", [checksum for _, checksum in changes])
        if len({checksum for _, _, checksum in states}) != 1:
            raise Failed("the tables differ")
        if len({checksum for _, checksum in changes}) != 1:
            raise Failed("the tables are equal, but their changes differ")
        say("   all equal")

    def how_to_poke(self):
        say("\nThe nodes are left running in '%s'. For example:" % self.directory)
        for node in self.nodes:
            say("  %s  '%s' status --db '%s'" % (node.name, BIN, node.db))
            say("     sqlite3 -cmd \".load '%s'\" '%s'" % (SO, node.db))
            say("     curl -X POST -H 'Content-Type: application/sql' -d 'SELECT count(*) FROM packages' http://%s/sql"
                % node.http)
        pids = " ".join(str(node.process.pid) for node in self.nodes)
        say("To end it: kill %s; sleep 1; rm -r '%s'" % (pids, self.directory))

    def end(self):
        """Ends whatever runs; the exit codes of the nodes."""
        for node in self.nodes:
            if node.watcher:
                node.watcher.end()
        running = [node for node in self.nodes if node.process and node.process.poll() is None]
        for node in running:
            node.process.terminate()
        return {node.name: node.stop() for node in running}


PROGRAM = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
db.enable_load_extension(True)
db.load_extension(sys.argv[2])
with db:
    db.execute("INSERT INTO packages VALUES('from-python', '1.0', 'all', 'demo', 1, 'you', 'by Python')")
    changed = db.execute("UPDATE packages SET section = 'python/' || section WHERE package LIKE 'python3%'").rowcount
db.close()
print("1 row inserted, %d updated" % changed)
"""


def tools():
    """What must be there before anything is begun."""
    for tool in ["sqlite3", "curl"]:
        if not shutil.which(tool):
            raise Failed("%s is not there; scripts/setup.sh names what is needed" % tool)
    for built in [BIN, SO]:
        if not os.path.exists(built):
            raise Failed("%s is not there; run make first" % built)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the nodes running")
    parser.add_argument("--csv", action="store_true", help="use data/packages.csv even where there is dpkg")
    args = parser.parse_args()
    Signals.hold()
    Signals.install()
    directory = tempfile.mkdtemp(prefix="starling demo ")
    demo, keep, codes = Demo(directory, args.csv), False, {}
    try:
        Signals.release()
        tools()
        demo.run()
        demo.table()
        keep = args.keep
    except Failed as error:
        say("FAILED: %s" % error)
        return 1
    finally:
        Signals.hold()
        if keep:
            demo.how_to_poke()
        else:
            codes = demo.end()
            shutil.rmtree(directory, ignore_errors=True)
    if any(code != 0 for code in codes.values()):
        say("FAILED: the nodes were told to stop and ended with %s" % codes)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
