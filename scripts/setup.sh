#!/usr/bin/env bash
# What building and testing needs from Debian. Installs it as root; else prints the one line to run. Does nothing, and
# needs no network, where all of it is there.
set -euo pipefail
missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need cc build-essential
need sqlite3 sqlite3
need python3 python3
need curl curl
if ! command -v cargo >/dev/null 2>&1; then
  echo "setup: Rust is not there: install rustup (Debian: apt-get install rustup; rustup default stable), then run this again" >&2
  exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0
line="apt-get update && apt-get install -y ${missing[*]}"
if [ "$(id -u)" = 0 ]; then
  echo "setup: $line"
  apt-get update -q && apt-get install -y -q "${missing[@]}"
else
  echo "setup: these are missing: ${missing[*]}. Run: sudo sh -c '$line'" >&2
  exit 1
fi
