#!/bin/sh
# Makes the Debian packages fleet-controller, fleet-agent and fleetctl.
#
#   deploy/debian/make.sh [--binaries FOLDER] [--version VERSION] [--fast] [OUT]
#
# Without --binaries it builds them for release first. OUT is target/debian. --fast compresses little, for tests. Needs dpkg-dev
# and binutils (both come with build-essential). The same sources give the same packages: times are those of the last commit.
set -eu

here=$(CDPATH= cd -P -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -P -- "$here/../.." && pwd)
binaries= version= fast= out=$root/target/debian

fail() {
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        --binaries) binaries=${2:?}; shift 2 ;;
        --version) version=${2:?}; shift 2 ;;
        --fast) fast=-Zgzip\ -z1; shift ;;
        -*) fail "there is no option \"$1\"" "see the head of $0" ;;
        *) out=$1; shift ;;
    esac
done
for program in dpkg-deb dpkg-shlibdeps strip; do
    command -v "$program" >/dev/null 2>&1 || fail "there is no \"$program\"" "apt-get install build-essential"
done
if [ -z "$version" ]; then
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' "$root/Cargo.toml")
fi
if [ -z "$binaries" ]; then
    cargo build --manifest-path "$root/Cargo.toml" --locked --release \
        --bin fleet-controller --bin fleet-agent --bin fleetctl
    binaries=${CARGO_TARGET_DIR:-$root/target}/release
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# put MODE FROM TO: a file of the package.
put() {
    install -D -m "$1" "$2" "$tree/$3"
}

# script NAME: a maintainer script of a service.
script() {
    sed -e "s|@PACKAGE@|$package|g" -e "s|@UNITS@|$units|g" -e "s|@UNIT@|$package.service|g" \
        "$here/$1.in" >"$tree/DEBIAN/$1"
    chmod 755 "$tree/DEBIAN/$1"
}

# begin PACKAGE: its folder, with the program.
begin() {
    package=$1 tree=$work/$1
    install -d -m 755 "$tree/DEBIAN"
    [ -x "$binaries/$package" ] || fail "there is no program $binaries/$package" "build it: cargo build"
    put 755 "$binaries/$package" "usr/bin/$package"
    strip --strip-unneeded "$tree/usr/bin/$package"
    put 644 "$root/LICENSE" "usr/share/doc/$package/copyright"
}

# service DESCRIPTION-OF-ACCOUNT UNIT...: what a daemon brings.
service() {
    account=$1
    shift
    units=$*
    for unit in "$@"; do put 644 "$root/deploy/systemd/$unit" "usr/lib/systemd/system/$unit"; done
    printf 'u %s - "%s" /var/lib/%s /usr/sbin/nologin\n' "$package" "$account" "$package" >"$work/sysusers"
    put 644 "$work/sysusers" "usr/lib/sysusers.d/$package.conf"
    for name in postinst prerm postrm; do script "$name"; done
    (cd "$here/$package" && find . -type f) | while read -r file; do
        file=${file#./}
        put 644 "$here/$package/$file" "$file"
        case $file in etc/*) printf '/%s\n' "$file" >>"$tree/DEBIAN/conffiles" ;; esac
    done
}

# finish DEPENDS LINE TEXT: the control file and the package.
finish() {
    mkdir -p "$work/debian"
    : >"$work/debian/control"
    needs=$(cd "$work" && dpkg-shlibdeps -O "$tree/usr/bin/$package" | sed 's/^shlibs:Depends=//')
    size=$(du -sk --apparent-size "$tree" | cut -f1)
    cat >"$tree/DEBIAN/control" <<CONTROL
Package: $package
Version: $version
Architecture: $arch
Maintainer: Fleet maintainers <maintainers@fleet.invalid>
Installed-Size: $size
Depends: $needs${1:+, $1}
Section: admin
Priority: optional
Description: $2
 $3
CONTROL
    # Unquoted: two words or none.
    # shellcheck disable=SC2086
    dpkg-deb --root-owner-group $fast --build "$tree" "$out/${package}_${version}_$arch.deb"
}

begin fleet-controller
service 'Fleet controller' fleet-controller.service
finish 'systemd (>= 252), init-system-helpers' 'controller of a fleet of firewalls' \
    'Inventory, runs and their record; serves agents and operators over mutual TLS.'

begin fleet-agent
service 'Fleet agent, network half' fleet-agent.service fleet-guard.service
finish 'systemd (>= 252), init-system-helpers, dbus' 'maintenance agent of a firewall' \
    'Carries out signed jobs under the policy of the node'"'"'s owner, and puts back what nobody confirms.'

begin fleetctl
for shell in bash zsh fish; do
    case $shell in
        bash) to=usr/share/bash-completion/completions/fleetctl ;;
        zsh) to=usr/share/zsh/vendor-completions/_fleetctl ;;
        fish) to=usr/share/fish/vendor_completions.d/fleetctl.fish ;;
    esac
    "$binaries/fleetctl" completion "$shell" >"$work/completion"
    put 644 "$work/completion" "$to"
done
finish '' 'command line of a fleet of firewalls' 'Signs and starts work on a fleet, and shows what came of it.'
