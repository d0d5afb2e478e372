#!/bin/sh
# Installs what the tests need and runs all of them; ends with the runner's own summary and its exit code.
# Arguments go to the runner, such as the name of a test. Runs from any folder; CARGO_TARGET_DIR is honoured.
#
# For Debian 12, Ubuntu and alike with Rust installed (https://rustup.rs). `cargo nextest` is used where it is
# installed; `cargo test` does as well.
set -eu

root=$(CDPATH= cd -P -- "$(dirname -- "$0")/.." && pwd)

fail() {
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        fail "\"$*\" has to be run as root, and there is no sudo" "run it as root, then this again"
    fi
}

# need PROGRAM PACKAGE...: notes the packages where the program is missing.
missing=
need() {
    program=$1
    shift
    command -v "$program" >/dev/null 2>&1 || missing="$missing $*"
}

command -v cargo >/dev/null 2>&1 || PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"
command -v cargo >/dev/null 2>&1 || fail "there is no \"cargo\"" "install Rust: https://rustup.rs"
need cc gcc libc6-dev           # crates with a little C in them, such as ring
need python3 python3-minimal    # the check of a node's Python scripts is tested with the real parser
need awk mawk                   # the stand-in of a firewall's command line, as it is run on a node
# What is no user's program lies there.
PATH=$PATH:/usr/sbin:/sbin
need logrotate logrotate        # judges the files of rotation
need grub-editenv grub-common    # writes what a machine boots next
need nft nftables               # judges and loads rule sets, in a network of the test's own
need pg_ctlcluster postgresql   # a server of the test's own, as an ordinary user
need dpkg-deb dpkg              # packages are tested with the real dpkg and apt, on a root of their own
need gpg gpg gpg-agent gpgconf  # their archives are signed
need gpg-agent gpg-agent        # it only recommends it

if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 ||
        fail "something is missing, and there is no apt-get to install it" "install what your system calls:$missing"
    echo "installing$missing" >&2
    as_root apt-get update -q >&2
    # Names of packages hold no blanks, so that splitting is what is wanted.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
fi

# In the checkout, because that is where rustup and cargo look for their settings.
case ${CARGO_TARGET_DIR:-/} in /*) ;; *) CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR && export CARGO_TARGET_DIR ;; esac
cd -- "$root"

if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --locked "$@"
fi
exec cargo test --workspace --locked "$@"
