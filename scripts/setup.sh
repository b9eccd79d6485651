#!/usr/bin/env bash
# What building and testing needs. Debian's packages are installed when this runs as root, else the one line to run is
# printed. Where all of it is there nothing is done, and no network is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }

debian() {
  need cc build-essential
  need sqlite3 sqlite3
  need python3 python3
  need curl curl
  [ ${#missing[@]} -eq 0 ] && return
  local install="apt-get install -y ${missing[*]}"
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: missing: ${missing[*]}. On Debian: sudo sh -c 'apt-get update && $install'" >&2
    exit 1
  fi
  echo "setup: $install"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q "${missing[@]}"
}

# Debian's own Rust may be older than the one that the workspace names.
rust() {
  local needed have
  needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: Rust is missing. Install Rust $needed or newer: https://rustup.rs" >&2
    exit 1
  fi
  have=$(rustc --version | cut -d' ' -f2)
  if [ "$(printf '%s\n' "$needed" "$have" | sort -V | head -1)" != "$needed" ]; then
    echo "setup: Rust $have is too old, $needed is needed: rustup update stable, or https://rustup.rs" >&2
    exit 1
  fi
}

debian
rust
