# Shared settings and helpers of the lab: real Debian nodes on one machine, for stories. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail

# ---- settings (environment) -------------------------------------------------
: "${FLEET_LAB_DIR:=/tmp/fleet-lab}"        # everything the lab keeps lives here
: "${FLEET_LAB_NAME:=flt}"                  # prefix of namespaces and cgroups (<= 8 characters)
: "${FLEET_LAB_NET:=10.77.0}"               # first three octets of the lab's own /24
: "${FLEET_LAB_SUITE:=bookworm}"            # Debian release of the nodes
: "${FLEET_LAB_CGROUP:=hybrid}"             # hybrid (memory limits work) | unified (layout of a stock Debian 12)
: "${FLEET_LAB_SYSCTL:=net}"                # net: only /proc/sys/net is writable in a node | all
: "${FLEET_LAB_EXTRA:=}"                     # packages added to the base, comma separated

LAB_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_CACHE=$FLEET_LAB_DIR/cache
LAB_NODES=$FLEET_LAB_DIR/nodes
LAB_BASE=${FLEET_LAB_BASE:-$LAB_CACHE/base}    # FLEET_LAB_BASE: share one base between several labs
LAB_SW=$FLEET_LAB_NAME-sw                   # the namespace that holds the bridge
LAB_GW=$FLEET_LAB_NET.1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

say()  { printf 'lab: %s\n' "$*" >&2; }
die()  { printf 'lab: error: %s\n' "$*" >&2; exit 1; }
need_root() { [ "$(id -u)" = 0 ] || die "run as root"; }
need_outside() {                             # mounts made inside a controller namespace would not be seen outside
  [ -z "$(command -v ip > /dev/null && ip netns identify $$ 2> /dev/null)" ] || die "run this outside of the lab's network namespaces"
}

# need_pkgs PKG...: install the Debian packages that are missing (apt-get update once, only then)
need_pkgs() {
  local p missing=()
  for p in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return 0
  say "installing on this host: ${missing[*]}"
  mkdir -p "$FLEET_LAB_DIR"
  { apt-get update && apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}"; } \
    > "$FLEET_LAB_DIR/host-install.log" 2>&1 \
    || { tail -20 "$FLEET_LAB_DIR/host-install.log" >&2; die "could not install: ${missing[*]}"; }
}

# ---- names and addresses ----------------------------------------------------
valid_name() { [[ $1 =~ ^(n|ctl)[1-9][0-9]?$ ]] || die "no such host name: '$1' (n1..n99, ctl1..ctl9)"; }
ns_of()  { printf '%s-%s' "$FLEET_LAB_NAME" "$1"; }
ip_of() {                                    # ctl1 -> .2 ... ctl8 -> .9, n1 -> .11 ... n99 -> .109
  case $1 in ctl*) echo "$FLEET_LAB_NET.$((1 + ${1#ctl}))";; n*) echo "$FLEET_LAB_NET.$((10 + ${1#n}))";; esac
}
port_of() { printf 'p-%s' "$1"; }            # the switch-side end of a host's cable
ns_exists() { [ -e "/run/netns/$1" ]; }
node_dir() { printf '%s/%s' "$LAB_NODES" "$1"; }

# ---- processes: only ours, by recorded pid, checked before every signal -----
# our_pid PIDFILE MARK: print the pid if it is alive and its command line holds MARK
our_pid() {
  local pid; pid=$(cat "$1" 2>/dev/null || true)
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2" && echo "$pid"
}
stop_pid() {                                 # PIDFILE MARK [SIGNAL]
  local pid i; pid=$(our_pid "$1" "$2") || { rm -f "$1"; return 0; }
  kill "-${3:-TERM}" "$pid" 2>/dev/null || true
  for i in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  if pid=$(our_pid "$1" "$2"); then kill -KILL "$pid" 2>/dev/null || true; fi
  rm -f "$1"
}
# leader NODE: pid (on this host) of the node's own systemd, its PID 1
leader() {
  local sup child; sup=$(our_pid "$(node_dir "$1")/nspawn.pid" "--machine=$FLEET_LAB_NAME-$1 ") || return 1
  for child in $(cat "/proc/$sup/task/$sup/children" 2>/dev/null); do
    # the payload runs in a pid namespace of its own, and is number 1 there
    if grep -qE '^NSpid:.*[[:space:]]1$' "/proc/$child/status" 2>/dev/null \
       && [ "$(readlink "/proc/$child/ns/pid")" != "$(readlink /proc/self/ns/pid)" ]; then echo "$child"; return 0; fi
  done
  return 1
}
in_node() {                                  # in_node NODE CMD...: run CMD inside the node (all its namespaces)
  local node=$1 pid; shift
  pid=$(leader "$node") || die "$node is not running"
  nsenter --target "$pid" --all --wdns=/ -- /usr/bin/env -i \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    TERM="${TERM:-dumb}" DEBIAN_FRONTEND=noninteractive "$@"
}

# ---- cgroups ----------------------------------------------------------------
# cgroup_dirs LEAF: one directory per mounted hierarchy, below the cgroup this shell is in
cgroup_dirs() {
  local id ctrls path mnt
  while IFS=: read -r id ctrls path; do
    if [ -z "$ctrls" ]; then
      mnt=$(awk '$3=="cgroup2"{print $2; exit}' /proc/self/mounts)
    else
      mnt=$(awk -v c="$ctrls" '$3=="cgroup"{n=split($4,o,","); k=split(c,w,","); for(i=1;i<=n;i++) if(o[i]==w[1]){print $2; exit}}' /proc/self/mounts)
    fi
    [ -n "$mnt" ] || continue
    case ,$ctrls, in *,memory,*|*,pids,*|*,cpu,*|*,cpuacct,*|,name=systemd,|,,) ;; *) continue;; esac
    # a cgroup that already belongs to the lab must not nest a second one below itself
    path=${path%%/"fleet-lab-$FLEET_LAB_NAME"*}
    printf '%s\n' "$mnt${path%/}/fleet-lab-$FLEET_LAB_NAME${1:+/$1}"
  done < /proc/self/cgroup
}
rm_cgroup() {                                # remove a cgroup directory and the empty ones below it
  local i
  for i in $(seq 30); do                     # processes that were just killed take a moment to leave
    [ -d "$1" ] || return 0
    find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    [ -d "$1" ] || return 0
    sleep 0.1
  done
  say "still in use: $1"
}
# kill_leftovers [NODE]: end what is still in the lab's (the node's) own cgroup: a node whose supervisor was killed
kill_leftovers() {
  local cg pid
  while IFS= read -r cg; do
    [ -d "$cg" ] || continue
    while IFS= read -r pid; do
      [ "$pid" = 0 ] || [ "$pid" = $$ ] || kill -KILL "$pid" 2> /dev/null || true
    done < <(find "$cg" -name cgroup.procs -exec cat {} + 2> /dev/null | sort -un)
  done < <(cgroup_dirs "${1:-}")
}
