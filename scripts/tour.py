#!/usr/bin/env python3
"""Runs the ```sh and ```sql blocks of a document, in order, in one shell, and compares what they print with their `#>` lines.

A ```sql block is a session of the sqlite3 shell that has the extension loaded. Its first line names the file, `-- a.db`;
without one, the database is in memory. What the session says on standard error is compared too, as refusals are the point there.

In an expected line `…` stands for any text, where something differs from run to run, and how many blanks there are does
not matter. Standard error of sh blocks is not compared; it is shown where a block fails. A port of 127.0.0.1 that the document names
and somebody else uses is replaced by a free one, and the run says so. Relative links must lead to something.
"""
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEADLINE_S = 120
MARK = "--- end of block ---"


class Block:
    """One block: its first line's number, its language, its commands, and what they must print."""

    def __init__(self, number, language):
        self.number = number
        self.language = language
        self.commands = []
        self.expected = []

    def add(self, line):
        if line.startswith("#>"):
            self.expected.append(line[3:])
        else:
            self.commands.append(line)

    def script(self):
        text = "\n".join(self.commands)
        if self.language == "sh":
            return text
        named = re.match(r"-- (\S+\.db)\n", text)
        file = named.group(1) if named else ":memory:"
        return "sqlite3 -init /dev/null %s -cmd '.load ./starling.so' 2>&1 <<'END OF SQL'\n%s\nEND OF SQL" % (file, text)

    def printed_as_expected(self, lines):
        if len(lines) != len(self.expected):
            return False
        patterns = [".*".join(re.escape(part) for part in tidy(line).split("…")) for line in self.expected]
        return all(re.fullmatch(pattern, tidy(line)) for pattern, line in zip(patterns, lines))


def tidy(line):
    return " ".join(line.split())


def blocks(text):
    block, out = None, []
    for number, line in enumerate(text.splitlines(), 1):
        if block is None and line in ["```sh", "```sql"]:
            block = Block(number + 1, line[3:])
        elif block is not None and line == "```":
            out.append(block)
            block = None
        elif block is not None:
            block.add(line)
    return out


def is_free(port):
    """Whether both a TCP and a UDP socket can have the port."""
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]:
        with socket.socket(socket.AF_INET, kind) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_port():
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if is_free(port):
            return port


def with_free_ports(text):
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", text))):
        if not is_free(int(port)):
            other = str(free_port())
            print("port %s is in use here; taking %s" % (port, other))
            text = re.sub(r"127\.0\.0\.1:%s\b" % port, "127.0.0.1:" + other, text)
    return text


def workplace(directory):
    """What the document says to make: a directory with links to the binary and the extension, the first in the PATH."""
    work = os.path.join(directory, "tour")
    os.mkdir(work)
    for variable, name in [("STARLING_BIN", "starling"), ("STARLING_SO", "starling.so")]:
        built = os.environ.get(variable) or os.path.join(ROOT, "dist", name)
        os.symlink(os.path.abspath(built), os.path.join(work, name))
    return work


def environment(work):
    """Stock settings: what the user's own would change must not change what is printed."""
    kept = {k: v for k, v in os.environ.items() if k in ["LANG", "LC_ALL", "TMPDIR"]}
    return dict(kept, HOME=work, PATH=work + os.pathsep + os.environ["PATH"])


def run(script):
    """(standard output, standard error); whatever the script leaves running is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="starling tour ") as directory:
        work, paths = workplace(directory), [os.path.join(directory, name) for name in ["out", "err"]]
        with open(paths[0], "wb") as out, open(paths[1], "wb") as err:
            shell = subprocess.Popen(["bash", "-c", script], cwd=work, env=environment(work), stdout=out, stderr=err,
                                     stdin=subprocess.DEVNULL, start_new_session=True)
            try:
                shell.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                print("the blocks did not end within %d s" % DEADLINE_S)
            finally:
                end_session(shell)
        return [read(path, errors="replace") for path in paths]


def read(path, **how):
    with open(path, encoding="utf-8", **how) as f:
        return f.read()


def end_session(shell):
    try:
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    shell.wait()


def dead_links(path, text):
    here = os.path.dirname(os.path.abspath(path))
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    return [link for link in links if "://" not in link and not os.path.exists(os.path.join(here, link))]


def compare(path, found, out, err):
    """How many blocks printed something else than they should; says what."""
    printed = [part.strip("\n").splitlines() for part in out.split(MARK)]
    stderr = [part.strip("\n") for part in err.split(MARK)]
    failed = 0
    for i, block in enumerate(found):
        lines = printed[i] if i < len(printed) else []
        if i + 1 < len(printed) and block.printed_as_expected(lines):
            continue
        failed += 1
        ended = "" if i + 1 < len(printed) else " and did not come to its end"
        print("%s:%d printed%s\n  %s" % (path, block.number, ended, "\n  ".join(lines)))
        print("and not\n  %s" % "\n  ".join(block.expected))
        print("on standard error\n  %s" % (stderr[i] if i < len(stderr) else "").replace("\n", "\n  "))
        if ended:
            break
    return failed


def main():
    path = sys.argv[1]
    text = with_free_ports(read(path))
    found = blocks(text)
    script = "".join("%s\necho '%s'\necho '%s' >&2\n" % (b.script(), MARK, MARK) for b in found)
    out, err = run(script)
    failed = compare(path, found, out, err)
    dead = dead_links(path, text)
    for link in dead:
        print("%s: %s leads nowhere" % (path, link))
    print("%s: %d blocks ran, %d differ; %d dead links" % (path, len(found), failed, len(dead)))
    return 1 if failed or dead or not found else 0


if __name__ == "__main__":
    sys.exit(main())
