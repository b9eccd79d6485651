#!/usr/bin/env python3
"""Runs the ```sh blocks of a document, in order, in one shell, and compares what they print with the `#>` lines in them."""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def blocks(path):
    """(first line number, commands, expected lines) of each block."""
    inside, out = None, []
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        line = line.rstrip("\n")
        if inside is None and line == "```sh":
            inside = (number + 1, [], [])
        elif inside is not None and line == "```":
            out.append(inside)
            inside = None
        elif inside is not None:
            (inside[2].append(line[3:]) if line.startswith("#> ") else inside[1].append(line))
    return out


def main():
    path = sys.argv[1]
    found = blocks(path)
    marker = "--- end of block ---"
    script = "".join("%s\necho '%s'\n" % ("\n".join(commands), marker) for _, commands, _ in found)
    dist = os.path.join(ROOT, "dist")
    env = dict(os.environ, PATH=dist + os.pathsep + os.environ["PATH"], STARLING_SO=os.path.join(dist, "starling.so"))
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(["bash", "-c", script], cwd=directory, env=env, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    printed = [part.strip("\n").splitlines() for part in done.stdout.split(marker)]
    failed = 0
    for (number, _, expected), lines in zip(found, printed + [[]] * len(found)):
        if lines != expected:
            failed += 1
            print("%s:%d printed\n  %s\nand not\n  %s" % (path, number, "\n  ".join(lines), "\n  ".join(expected)))
    print("%s: %d blocks ran, %d differ" % (path, len(found), failed))
    sys.exit(1 if failed or not found else 0)


if __name__ == "__main__":
    main()
