#!/bin/sh
# Builds the fleet and runs the main job: controller and six agents on this machine, all of it real but the
# machines themselves. Arguments go to `fleetctl dev`, such as --once or --nodes 4 (see fleetctl dev --help).
#
# For Debian 12, Ubuntu and alike with Rust installed (https://rustup.rs). It asks apt-get for a C compiler and for gpg
# where none is there, and changes nothing else on the machine. Runs from any folder.
set -eu

root=$(CDPATH= cd -P -- "$(dirname -- "$0")/../.." && pwd)

fail() {
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 1
}

# as_root COMMAND...: by itself for root, through sudo for others.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "\"$*\" has to be run as root, and there is no sudo" "run it as root, then this again"
    fi
}

# need PROGRAM PACKAGE...: installs the packages where the program is missing.
need() {
    program=$1
    shift
    command -v "$program" >/dev/null 2>&1 && return 0
    command -v apt-get >/dev/null 2>&1 ||
        fail "there is no \"$program\", and no apt-get to install it" "install what your system calls: $*"
    echo "installing $* (there is no \"$program\")" >&2
    as_root apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
    command -v "$program" >/dev/null 2>&1 || fail "there is still no \"$program\"" "install it by hand: $*"
}

# A shell that was open while Rust was installed does not know it yet.
command -v cargo >/dev/null 2>&1 || PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"
command -v cargo >/dev/null 2>&1 || fail "there is no \"cargo\"" "install Rust: https://rustup.rs"
need cc gcc libc6-dev
# The nodes' archive of packages is signed. On other systems than Debian and its like the fleet does without packages.
if command -v dpkg >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
    need gpg gpg gpg-agent gpgconf
    need gpg-agent gpg-agent
fi

# Relative to where we were called, for cargo and for us.
target=${CARGO_TARGET_DIR:-$root/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac

# In the checkout, because that is where rustup and cargo look for their settings; fleetctl itself is started
# where we were called, because its arguments may be paths.
(
    cd -- "$root"
    CARGO_TARGET_DIR=$target cargo build --locked \
        -p fleetctl -p fleet-controller -p fleet-agent \
        --bin fleetctl --bin fleet-controller --bin fleet-agent >&2
)
exec "$target/debug/fleetctl" dev "$@"
