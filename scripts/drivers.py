#!/usr/bin/env python3
"""Runs the examples of docs/examples, one program per language: each loads starling.so with its own driver, writes two
files, makes them take each other's changes, and compares them.

What is missing from Debian is installed when this runs as root, else the one line to run is printed. What PyPI and npm
have goes into target/drivers. A driver that cannot be had is skipped, and the table at the end says why. Exits 1 if a
driver that ran failed, or if fewer than six ran although Debian's packages could be reached.

    drivers.py            all of them
    drivers.py go ruby    these only
"""
import argparse
import concurrent.futures
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = os.path.join(ROOT, "docs", "examples")
TARGET = os.path.abspath(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"))
CACHE = os.path.join(TARGET, "drivers")
SO = os.path.abspath(os.environ.get("STARLING_SO") or os.path.join(ROOT, "dist", "starling.so"))

APSW = "apsw==3.54.1.0"
BETTER_SQLITE3 = "better-sqlite3@12.11.1"
NODE = "22.23.3"

GO_SQLITE = "/usr/share/gocode/src/github.com/mattn/go-sqlite3"
JDBC = "/usr/share/java/sqlite-jdbc.jar"

AT_LEAST = 6
RUN_S = 60
FETCH_S = 120
COMPILE_S = 240
BUILD_S = 900
APT_S = 600

# What both files hold at the end, whatever the language.
EXPECTED = [("m-1", "sick", 9007199254740993, 3.0, b"\x00\xff"), ("m-2", "läuft", 2, 0.1, b"")]


class Skipped(Exception):
    """This machine cannot have the driver; the reason."""


class Failed(Exception):
    """The driver is there and something is wrong; what."""


class Processes:
    """Every command runs in a session of its own, so that it can be ended with all that it started."""

    running = set()

    @classmethod
    def run(cls, command, timeout, **how):
        """(exit code, standard output, standard error); the exit code is None when time ran out."""
        how = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                   errors="replace", start_new_session=True, **how)
        try:
            process = subprocess.Popen(command, **how)
        except OSError as e:
            return 127, "", str(e)
        cls.running.add(process)
        try:
            out, err = process.communicate(timeout=timeout)
            return process.returncode, out, err
        except subprocess.TimeoutExpired:
            cls.end(process)
            return (None, *process.communicate())
        finally:
            cls.running.discard(process)

    @staticmethod
    def end(process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    @classmethod
    def end_all(cls):
        for process in list(cls.running):
            cls.end(process)


def works(*command):
    return Processes.run(command, RUN_S)[0] == 0


# What Debian's packages give: whether it is there, and which packages those are.
DEBIAN = {
    "shell": (lambda: shutil.which("sqlite3"), ["sqlite3"]),
    "venv": (lambda: works(sys.executable, "-c", "import ensurepip"), ["python3-venv"]),
    "c": (lambda: shutil.which("cc") and os.path.exists("/usr/include/sqlite3.h"), ["build-essential", "libsqlite3-dev"]),
    "perl": (lambda: works("perl", "-MDBD::SQLite", "-e", "1"), ["libdbd-sqlite3-perl"]),
    "php": (lambda: works("php", "-r", "exit(class_exists('SQLite3') ? 0 : 1);"), ["php-cli", "php-sqlite3"]),
    "ruby": (lambda: works("ruby", "-rsqlite3", "-e", "1"), ["ruby", "ruby-sqlite3"]),
    "go": (lambda: shutil.which("go") and os.path.exists(GO_SQLITE), ["golang-go", "golang-github-mattn-go-sqlite3-dev"]),
    "java": (lambda: shutil.which("javac") and os.path.exists(JDBC), ["default-jdk-headless", "libxerial-sqlite-jdbc-java"]),
    "tcl": (lambda: works("sh", "-c", "echo 'puts [package require sqlite3]' | tclsh | grep -q ."), ["tcl", "libsqlite3-tcl"]),
}


def needs(name):
    there, packages = DEBIAN[name]
    if not there():
        raise Skipped("not there (Debian: %s)" % " ".join(packages))


def needs_program(program):
    if shutil.which(program) is None:
        raise Skipped("no %s here" % program)


def install(names):
    """Installs what is missing for these, in one call. Returns why that could not be, or None, and whether it is for want
    of a network. Nothing as large as a JDK is installed for the sake of one example: Java runs where there is one."""
    names = [name for name in names if name in DEBIAN and (name != "java" or shutil.which("javac"))]
    missing = [package for name in names for package in DEBIAN[name][1] if not DEBIAN[name][0]()]
    if not missing:
        return None, False
    line = "apt-get install -y --no-install-recommends " + " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "missing: %s. On Debian: sudo sh -c 'apt-get update && %s'" % (" ".join(missing), line), False
    print("drivers: %s" % line, flush=True)
    careful = "-q -o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o DPkg::Lock::Timeout=120"
    code, _, err = Processes.run(["sh", "-c", "apt-get update %s && %s %s" % (careful, line, careful)], APT_S,
                                 env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
    return (None, False) if code == 0 else ("apt-get could not install %s: %s" % (" ".join(missing), gist(err)), True)


def gist(text):
    """One line out of a tool's complaint: the first that speaks of an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"]
    return next((line for line in lines if "error" in line.lower()), lines[-1])[:200]


def fetch(command, timeout=FETCH_S, **how):
    """Gets something from outside, or builds what came from there; where that fails the driver cannot be had."""
    code, out, err = Processes.run(command, timeout, **how)
    if code != 0:
        why = "took longer than %d s" % timeout if code is None else gist(err or out)
        raise Skipped("%s: %s" % (" ".join(command[:3]), why))


def build(command, **how):
    """Compiles one of our own examples; where that fails the example is wrong."""
    code, out, err = Processes.run(command, BUILD_S, **how)
    if code != 0:
        raise Failed("%s: %s" % (" ".join(command), err or out))


def example(*path):
    return os.path.join(EXAMPLES, *path)


# Each of these makes ready one driver and returns (command, what its environment has besides).

def shell():
    needs("shell")
    return ["bash", example("shell", "example.sh")], {}


def loading_python():
    """A Python whose sqlite3 module was built to load extensions, as Debian's is."""
    test = "import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)"
    for candidate in ["python3", "/usr/bin/python3"]:
        if works(candidate, "-c", test):
            return candidate
    raise Skipped("no Python whose sqlite3 module loads extensions (Debian's /usr/bin/python3 does)")


def python():
    return [loading_python(), example("python", "example.py")], {}


def python_apsw():
    venv = os.path.join(CACHE, "python")
    interpreter = os.path.join(venv, "bin", "python")
    installed = "import apsw, sys; sys.exit('apsw==' + apsw.apsw_version() != '%s')" % APSW
    if not works(interpreter, "-c", installed):
        fetch([sys.executable, "-m", "venv", "--clear", venv])
        fetch([interpreter, "-m", "pip", "install", "-q", "--retries", "1", "--timeout", "15", "--only-binary", ":all:", APSW])
    return [interpreter, example("python", "example_apsw.py")], {}


def npm(prefix, *packages):
    needs_program("npm")
    fetch(["npm", "install", "--prefix", prefix, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save",
           "--fetch-retries=0", "--fetch-timeout=20000", *packages])


def node_better_sqlite3():
    """npm's package, compiled here: with SQLite's own assertions, which a wrong call of its interface would trip, and in a
    third of the time that the optimised build takes."""
    needs_program("node")
    abi = Processes.run(["node", "-p", "process.versions.modules"], RUN_S)[1].strip()
    prefix = os.path.join(CACHE, "better-sqlite3-%s" % abi)
    modules = os.path.join(prefix, "node_modules")
    loads = "require(%r)(':memory:')" % os.path.join(modules, "better-sqlite3")
    if not works("node", "-e", loads):
        os.makedirs(prefix, exist_ok=True)
        npm(prefix, BETTER_SQLITE3)
        headers = "/usr/include/node/node_api.h"
        environment = dict(os.environ, npm_config_jobs="max")
        if os.path.exists(headers):
            environment["npm_config_nodedir"] = "/usr"
        fetch(["npm", "--prefix", os.path.join(modules, "better-sqlite3"), "run", "build-debug"], COMPILE_S, env=environment)
    return ["node", example("node", "better-sqlite3.mjs")], {"NODE_PATH": modules}


def node_sqlite():
    """The machine's own Node where it is new enough (22.5), else the one that npm has."""
    command = [example("node", "node-sqlite.mjs")]
    has = ["--no-warnings", "-e", "require('node:sqlite')"]
    if works("node", *has):
        return ["node", "--no-warnings", *command], {}
    architecture = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine())
    if architecture is None:
        raise Skipped("no Node with node:sqlite (22.5 or newer)")
    package = "node-linux-%s" % architecture
    prefix = os.path.join(CACHE, "node-%s" % NODE)
    node = os.path.join(prefix, "node_modules", package, "bin", "node")
    if not works(node, *has):
        os.makedirs(prefix, exist_ok=True)
        npm(prefix, "%s@%s" % (package, NODE))
    return [node, "--no-warnings", *command], {}


def rust():
    needs_program("cargo")
    build(["cargo", "build", "-q", "--locked", "-p", "starling-tests", "--example", "rusqlite"], cwd=ROOT)
    return [os.path.join(TARGET, "debug", "examples", "rusqlite")], {}


def c():
    needs("c")
    program = os.path.join(CACHE, "example-c")
    build(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, example("c", "example.c"), "-lsqlite3"])
    return [program], {}


def perl():
    needs("perl")
    return ["perl", example("perl", "example.pl")], {}


def php():
    needs("php")
    return ["php", "-d", "sqlite3.extension_dir=" + os.path.dirname(SO), example("php", "example.php")], {}


def ruby():
    needs("ruby")
    return ["ruby", example("ruby", "example.rb")], {}


def go():
    """Debian's packages, without modules: its go-sqlite3 has no SQLite of its own and uses the system's."""
    needs("go")
    program = os.path.join(CACHE, "example-go")
    environment = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="", GOTOOLCHAIN="local",
                       GOCACHE=os.path.join(CACHE, "go"))
    build(["go", "build", "-tags", "libsqlite3", "-o", program, example("go", "example.go")], env=environment)
    return [program], {}


def java():
    needs("java")
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", JDBC, example("java", "Example.java")], {}


def tcl():
    needs("tcl")
    return ["tclsh", example("tcl", "example.tcl")], {}


# The slow ones first, so that they do not come last.
DRIVERS = [node_better_sqlite3, rust, go, java, node_sqlite, python_apsw, shell, python, c, perl, php, ruby, tcl]


class Result:
    """How it went with one driver."""

    def __init__(self, driver):
        self.name = name_of(driver)
        self.versions, self.skipped, self.failed = ("", ""), None, None
        start = time.monotonic()
        try:
            command, besides = driver()
            with tempfile.TemporaryDirectory(prefix="starling drivers ") as directory:
                self.versions = run_example(self.name, command, besides, directory)
                compare(directory)
        except Skipped as e:
            self.skipped = str(e)
        except Failed as e:
            self.failed = str(e)
        self.seconds = time.monotonic() - start

    def line(self):
        verdict = "skipped: %s" % self.skipped if self.skipped else "FAILED" if self.failed else "ok"
        return "%-20s %-12s %-10s %5.1f s  %s" % (self.name, *self.versions, self.seconds, verdict)


def name_of(driver):
    return driver.__name__.replace("_", "-")


def run_example(name, command, besides, directory):
    """Runs it where the two files shall be; returns the versions that it prints."""
    environment = dict(os.environ, STARLING_SO=SO, **besides)
    code, out, err = Processes.run(command, RUN_S, cwd=directory, env=environment)
    words = out.split()
    if code is None:
        raise Failed("did not end within %d s\n%s%s" % (RUN_S, out, err))
    if code != 0 or len(words) != 5 or words[:2] != ["ok", name] or words[3] != "sqlite":
        raise Failed("exit code %d\n%s%s" % (code, out, err))
    if err.strip():
        raise Failed("it complains:\n%s" % err)
    return words[2], words[4]


def compare(directory):
    """Looks at the two files with a reader that knows nothing of Starling."""
    for name in ["one.db", "two.db"]:
        path = os.path.join(directory, name)
        if not os.path.exists(path):
            raise Failed("%s was not made" % name)
        # SQLite removes it when the last connection closes: one that could not close leaves it.
        if os.path.exists(path + "-wal"):
            raise Failed("%s-wal is still there: a connection was not closed" % name)
        db = sqlite3.connect(path)
        try:
            rows = db.execute("SELECT id, status, serial, load, photo FROM machines ORDER BY id").fetchall()
            health = db.execute("PRAGMA integrity_check").fetchone()[0]
        finally:
            db.close()
        if rows != EXPECTED or health != "ok":
            raise Failed("%s holds %r and not %r (integrity: %s)" % (name, rows, EXPECTED, health))


def chosen(names):
    unknown = set(names) - {name_of(driver) for driver in DRIVERS}
    if unknown:
        sys.exit("drivers: there is no %s; there are %s" % (", ".join(sorted(unknown)), ", ".join(map(name_of, DRIVERS))))
    return [driver for driver in DRIVERS if not names or name_of(driver) in names]


def run_all(drivers):
    """The results, each told as soon as it is there. Two at a time: most of this is compilers."""
    results = []
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as pool:
        try:
            for done in concurrent.futures.as_completed([pool.submit(Result, driver) for driver in drivers]):
                result = done.result()
                results.append(result)
                print("drivers: %s" % result.line(), flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            Processes.end_all()
            raise
    return sorted(results, key=lambda result: result.name)


def report(results, obstacle, at_least):
    """Prints what went wrong, and the table. Returns the exit code."""
    failed = [result for result in results if result.failed]
    ran = [result for result in results if not result.skipped]
    for result in failed:
        print("\n%s: %s" % (result.name, result.failed.rstrip()))
    print("\n%-20s %-12s %-10s %7s" % ("driver", "version", "sqlite", "time"))
    for result in results:
        print(result.line())
    if obstacle:
        print("drivers: %s" % obstacle)
    print("drivers: %d ok, %d failed, %d skipped" % (len(ran) - len(failed), len(failed), len(results) - len(ran)))
    if len(ran) < at_least:
        print("drivers: at least %d must run" % at_least)
    return 1 if failed or len(ran) < at_least else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver", nargs="*", help="run these only")
    names = parser.parse_args().driver
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    drivers = chosen(names)
    if not os.path.exists(SO):
        sys.exit("drivers: there is no %s; make builds it, STARLING_SO may name another" % SO)
    os.makedirs(CACHE, exist_ok=True)
    obstacle, offline = install([name_of(driver) for driver in drivers] + (["venv"] if python_apsw in drivers else []))
    return report(run_all(drivers), obstacle, 1 if names or offline else AT_LEAST)


if __name__ == "__main__":
    sys.exit(main())
