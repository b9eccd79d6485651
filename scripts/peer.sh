#!/bin/sh
# Prints the path of a build of cr-sqlite to compare with: the crate klukai-types 0.4.0 carries one for Linux. Nothing of it goes
# into Starling; it is fetched only for `make bench-peer`.
set -eu
crate=klukai-types
version=0.4.0
case $(uname -sm) in
"Linux x86_64") file=crsqlite-linux-x86_64.so sum=06e14e294c05db8c2488d6afc6c0f04010a39c01d9511abb3b5a3650bd952545 ;;
"Linux aarch64") file=crsqlite-linux-aarch64.so sum=edb6b16eec78698f82e910cd096cf94f768ee13ab2839968f68f37552e998aff ;;
*) echo "peer.sh: $crate has no build for $(uname -sm)" >&2 && exit 1 ;;
esac
home=${CARGO_HOME:-$HOME/.cargo}
find_it() {
    for found in "$home"/registry/src/*/"$crate-$version/$file"; do
        [ -f "$found" ] && echo "$found" && return
    done
    return 1
}
# `cargo info` fetches a crate by itself, without what it depends on.
find_it >/dev/null || cargo info --quiet "$crate@$version" >/dev/null
from=$(find_it) || { echo "peer.sh: cargo fetched no $file of $crate $version" >&2 && exit 1; }
to=${CARGO_TARGET_DIR:-target}/peer/crsqlite.so
mkdir -p "$(dirname "$to")"
cp "$from" "$to"
echo "$sum  $to" | sha256sum --check --status || { echo "peer.sh: $from is not the file it was" >&2 && exit 1; }
realpath "$to"
