#!/usr/bin/env bash
# The walls of the house that the compiler cannot hold.
#
# Reads every source file once and names each violation with file, line, what is wrong and where the rule
# stands. Takes less than two seconds, needs bash, git and awk only. Exit status 1 when a wall is broken.
#
# What counts as test code is left alone where a rule is about the product: everything below a `tests/`
# folder, the module a `#[cfg(test)] mod name;` names, and what follows a `#[cfg(test)] mod name {` (tests
# stand last in a file). Comments are never judged.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

found="$(mktemp)"
trap 'rm -f "$found"' EXIT

# Files of the working tree, also the ones not yet added; outside a git checkout whatever lies there.
list() {
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard -- "$@" | while IFS= read -r -d '' file; do
      [ -e "$file" ] && printf '%s\0' "$file"
    done
  else
    local name args=()
    for name in "$@"; do args+=(-o -name "${name##*/}"); done
    find . -path ./target -prune -o \( -false "${args[@]}" \) -type f -print0 | sed -z 's|^\./||'
  fi
  return 0
}

# ---------------------------------------------------------------------------------------------- Rust sources
# Modules that exist for tests only, as paths without an ending: "agent/executor/src/scenario ".
test_modules="$(list '*.rs' | xargs -0 awk '
  /^[ \t]*#\[cfg\(test\)\]/ { marked = FILENAME; next }
  marked == FILENAME && /^[ \t]*(pub(\([a-z]+\))? +)?mod +[a-z_0-9]+;/ {
    name = $0; sub(/;.*$/, "", name); sub(/^.*mod +/, "", name)
    folder = FILENAME; sub(/(\/(mod|lib|main))?\.rs$/, "", folder)
    printf "%s/%s ", folder, name
  }
  !/^[ \t]*#\[/ { marked = "" }
')"

list '*.rs' | xargs -0 awk -v test_modules="$test_modules" '
  # Portable awk: Debian has mawk, which knows neither \b nor intervals.
  function word(text, re) { return text ~ ("(^|[^A-Za-z0-9_])(" re ")([^A-Za-z0-9_]|$)") }
  function below(prefix) { return index(FILENAME, prefix) == 1 }
  function report(what, rule) { printf "%s:%d: %s\n    rule: %s\n", FILENAME, FNR, what, rule }

  function close_file() {
    if (previous == "") return
    if (lines > 600)
      printf "%s:%d: %d lines; a file has at most 600\n    rule: CONTRIBUTING.md, \"Files\"\n", previous, lines, lines
    if (!header)
      printf "%s:1: no header; a file opens with //! and says what it is for, what it must never do, who may call it\n    rule: CONTRIBUTING.md, \"Files\"\n", previous
  }

  BEGIN {
    count = split(test_modules, listed, " ")
    for (i = 1; i <= count; i++) test_module[listed[i]] = 1
  }

  FNR == 1 {
    close_file()
    previous = FILENAME; lines = 0; header = 0; seen_text = 0
    test_file = FILENAME ~ /(^|\/)tests\//
    for (name in test_module)
      if (FILENAME == name ".rs" || below(name "/")) test_file = 1
    map_file = (FILENAME ~ /(^|\/)(mod|lib)\.rs$/) && !test_file
    in_tests = 0; after_cfg_test = 0; in_macro = 0; last_line = ""

    wire_may = below("proto/") || below("controller/src/edge/") || below("agent/src/core/") \
      || FILENAME == "agent/executor/src/socket.rs" || FILENAME == "agent/executor/src/service.rs" \
      || below("agent/executor/src/dispatcher/") \
      || below("cli/src/client/") || below("cli/src/error/")
    tonic_may = below("proto/") || below("controller/src/edge/") || below("agent/src/core/") \
      || below("cli/src/client/") || below("cli/src/error/")
    clock_may = FILENAME == "controller/src/clock.rs" || FILENAME == "cli/src/clock.rs" \
      || FILENAME == "agent/src/clock.rs" || FILENAME == "agent/executor/src/host/clock.rs"
    tls_may = below("certs/") || below("controller/src/edge/") || below("agent/src/core/")
  }

  { lines++ }
  !seen_text && $0 !~ /^[ \t]*$/ { seen_text = 1; if ($0 ~ /^\/\/!/ || $0 ~ /^#!\[doc/) header = 1 }

  # An allow says why: reason = "…", a comment on the line, or a comment right above.
  /^[ \t]*#!?\[allow\(/ && !test_file && !in_tests {
    if ($0 !~ /reason *=/ && $0 !~ /\/\// && last_line !~ /^[ \t]*\/\//)
      report("an allow without its reason", "CONTRIBUTING.md, \"Code\"")
  }
  { last_line = $0 }

  # Comments are not code.
  /^[ \t]*\/\// { next }
  { code = $0; sub(/[ \t]\/\/[ \/!].*$/, "", code) }

  # Every file, tests too.
  code ~ /#\[ *ignore/ { report("an ignored test; repair it or delete it", "CONTRIBUTING.md, \"Tests\"") }
  code ~ /"\/(work|root|home)\// { report("a path of one machine", "CONTRIBUTING.md, \"Code\"") }
  code ~ /(^|[^A-Za-z0-9_:])sled::/ && !below("controller/store/") {
    report("sled is named outside the store crate", "docs/adr/0001, security-and-delivery 4.8") }

  code ~ /^[ \t]*#\[cfg\(.*test.*\)\]/ { after_cfg_test = 1; next }
  after_cfg_test && code ~ /^[ \t]*(pub(\([a-z]+\))? +)?mod +[a-z_0-9]+ *\{/ { in_tests = 1 }
  { after_cfg_test = 0 }
  test_file || in_tests { next }

  # The wire stops at the border.
  (code ~ /(^|[^A-Za-z0-9_])pb::/ || code ~ /fleet_proto::pb/ || code ~ /use fleet_proto::\{[^}]*pb/) && !wire_may {
    report("a generated type inside the house; convert at the border", "docs/adr/0001, \"Where the wire stops\"") }
  code ~ /(^|[^A-Za-z0-9_])tonic::/ && !tonic_may && FILENAME !~ /build\.rs$/ {
    report("tonic away from the wire; errors know nothing about gRPC", "docs/adr/0001, \"Where the wire stops\"") }
  word(code, "rustls|tokio_rustls") && code ~ /rustls::/ && !tls_may {
    report("rustls outside certs, the edge and the core", "docs/adr/0001, \"Who may name what\"") }

  # The clock has its files.
  code ~ /SystemTime::now|Utc::now|Local::now|Zoned::now|Timestamp::now|OffsetDateTime::now/ && !clock_may {
    report("reads the wall clock; take the time as an argument", "clippy.toml, CONTRIBUTING.md, \"Code\"") }

  # The text of a key has one home: the file of the aggregate that lies under it.
  below("controller/src/") && !below("controller/src/repo/") {
    if (code ~ /(^|[^A-Za-z0-9_])(Key|LogName)::new\(/)
      report("makes a key; ask the file of its aggregate in repo/ for it", "docs/adr/0001, \"Who may name what\"")
    if (code ~ /format!\(.*(nodes|tokens|operators|documents|runs|jobs|holds|reports|backups|answers)::[A-Z_]+/)
      report("puts a key together; ask the file of its aggregate in repo/ for it", "docs/adr/0001, \"Who may name what\"")
  }

  # Data goes one way in the controller.
  below("controller/src/service/") && code ~ /crate::(runner|edge|scheduler)(::|;|$)/ {
    report("a service reaches up to edge, runner or scheduler", "docs/architecture.md, \"Arrows\"") }
  below("controller/src/scheduler/") && code ~ /crate::(runner|edge)(::|;|$)/ {
    report("the scheduler reaches the runner or the edge", "docs/architecture.md, \"Arrows\"") }
  below("controller/src/service/") && code ~ /crate::fleet::(sessions|wave_signer)/ {
    report("a service touches the streams; only the edge and the runner do", "docs/architecture.md, \"Arrows\"") }
  below("controller/src/runner/") && code ~ /crate::(service|edge|scheduler)(::|;|$)/ {
    report("the runner reaches a service or the edge", "docs/architecture.md, \"Arrows\"") }
  below("controller/src/fleet/") && code ~ /crate::(service|edge|runner|scheduler)(::|;|$)/ {
    report("the fleet reaches up", "docs/architecture.md, \"Arrows\"") }
  below("controller/src/repo/") && code ~ /crate::(service|edge|runner|fleet|scheduler)(::|;|$)/ {
    report("a repository reaches up", "docs/architecture.md, \"Arrows\"") }

  # The engine and the types decide; they do nothing else.
  # seal.rs makes signing keys, the one draw of chance among the types; its callers decide when.
  (below("controller/rollout/src/") || below("controller/advisories/src/") || below("controller/schedule/src/") || below("proto/types/src/") || below("proto/calendar/src/")) && FILENAME != "proto/types/src/seal.rs" \
    && code ~ /std::(fs|net|process|thread)(::|;)|(^|[^A-Za-z0-9_])(tracing|tokio|tonic)::|Instant::now|SystemRandom/ {
    report("pure code does I/O, waits, logs or draws", "docs/adr/0001, \"Pure crates\"") }

  # The executor has no network: one file looks whether a local port answers, for health checks.
  below("agent/executor/src/") && code ~ /TcpStream|TcpListener|UdpSocket|tokio::net::(Tcp|Udp)|ToSocketAddrs/ \
    && FILENAME != "agent/executor/src/host/proc_system.rs" {
    report("the executor opens a network connection", "docs/adr/0001, \"Who may name what\"") }

  # In the core only the socket of the executor is known.
  below("agent/src/core/") && code ~ /fleet_executor::/ && code !~ /fleet_executor::socket/ {
    report("the core knows more of the executor than its socket", "docs/adr/0001, \"Who may name what\"") }

  # Outside programs run by argument vector.
  code ~ /"(\/bin\/|\/usr\/bin\/)?(ba|da)?sh"/ && code ~ /Command|Process::|Program|argv/ {
    report("runs a shell; programs run by argument vector", "CONTRIBUTING.md, \"Code\"") }

  # Maps hold no logic.
  map_file && code ~ /^[ \t]*macro_rules!/ { in_macro = 1 }
  map_file && in_macro && code ~ /^\}/ { in_macro = 0 }
  map_file && !in_macro && code ~ /^[ \t]*(pub(\([a-z:]+\))? +)?(async +|const +|unsafe +)*fn +[a-z_0-9]+/ {
    report("a function in a map; mod.rs and lib.rs hold docs, mod and use lines", "CONTRIBUTING.md, \"Files\"") }

  END { close_file() }
' >>"$found"

# ------------------------------------------------------------------------------------- Cargo.toml: the arrows
list '*Cargo.toml' | xargs -0 awk '
  # May use, dev-dependencies included. Where things live: docs/architecture.md.
  BEGIN {
    may["proto/types"] = " fleet-no-schema "
    may["proto/types/no-schema"] = " "
    may["proto/documents"] = " fleet-types fleet-calendar "
    may["proto/calendar"] = " fleet-types "
    may["proto"] = " fleet-types "
    may["certs"] = " fleet-types fleet-certs "
    may["controller/store"] = " "
    may["controller/rollout"] = " fleet-types "
    may["controller/advisories"] = " fleet-types "
    may["controller/schedule"] = " fleet-types fleet-calendar fleet-documents "
    may["controller"] = " fleet-types fleet-documents fleet-calendar fleet-proto fleet-certs fleet-store fleet-rollout fleet-advisories fleet-schedule "
    may["agent/executor"] = " fleet-types fleet-calendar fleet-proto "
    may["agent"] = " fleet-types fleet-executor fleet-certs fleet-proto "
    may["cli"] = " fleet-types fleet-calendar fleet-certs fleet-proto fleet-documents fleet-advisories "
    # Outside crates that have one home.
    home["sled"] = " controller/store "
    home["rustls"] = " certs tests "
    home["tokio-rustls"] = " certs controller tests "
    home["tonic"] = " proto controller agent cli tests "
    home["rcgen"] = " certs tests "
    home["croner"] = " proto/calendar "
    home["sysinfo"] = " agent/executor "
    # Pure or nearly so: these never get a runtime.
    pure["proto/types"] = pure["proto/documents"] = pure["proto/calendar"] = pure["controller/rollout"] = pure["controller/advisories"] = pure["controller/schedule"] = 1
  }
  FNR == 1 { folder = FILENAME; sub(/\/?Cargo\.toml$/, "", folder); section = "" }
  folder == "" { next }
  /^\[/ { section = $0; next }
  section ~ /dependencies/ && /^[a-z0-9_-]+/ {
    name = $0; sub(/[ .=].*$/, "", name)
    if ((name ~ /^fleet-/ || name == "fleetctl") && (folder in may) && index(may[folder], " " name " ") == 0)
      printf "%s:%d: %s must not use %s\n    rule: docs/architecture.md, \"Crates\"\n", FILENAME, FNR, folder, name
    if ((name ~ /^fleet-/ || name == "fleetctl") && !(folder in may) && folder != "tests")
      printf "%s:%d: crate %s has no row in .ci/structure.sh\n    rule: docs/architecture.md, \"Crates\"\n", FILENAME, FNR, folder
    if ((name in home) && index(home[name], " " folder " ") == 0)
      printf "%s:%d: %s must not use %s; its home is%s\n    rule: docs/adr/0001, \"Who may name what\"\n", FILENAME, FNR, folder, name, home[name]
    if ((folder in pure) && name ~ /^(tokio|tokio-.*|tonic.*|prost.*|hyper.*|tracing.*|rustix)$/)
      printf "%s:%d: %s is pure and must not use %s\n    rule: docs/adr/0001, \"Pure crates\"\n", FILENAME, FNR, folder, name
    if ($0 !~ /workspace *= *true/)
      printf "%s:%d: %s has a version of its own; the table in the root Cargo.toml has them all\n    rule: CONTRIBUTING.md, \"Dependencies\"\n", FILENAME, FNR, name
  }
' >>"$found"

# ------------------------------------------------------------------------------ other texts: no machine paths
list '*.md' '*.toml' '*.sh' '*.proto' '.ci/run' | { xargs -0 grep -nE '(^|[^A-Za-z0-9_.])/(work|root|home)/[a-z]' /dev/null || true; } \
  | { grep -v '^.ci/structure.sh:' || true; } \
  | sed 's|$|\n    rule: a path of one machine; CONTRIBUTING.md, "Code"|' >>"$found"

# --------------------------------------------------- documents that name tests and files: they must be there
# Names of tests stand in backticks in docs/coverage.md, names of files in docs/architecture.md.
if [ -f docs/coverage.md ] && [ -f docs/architecture.md ]; then
  {
    list '*.rs' | xargs -0 grep -ohE '(^|[^A-Za-z0-9_])fn +[a-z_0-9]+' | awk '{ print "fn", $NF }'
    list '*.rs' '*.toml' '*.proto' '*.md' '*.sh' '*.txt' | tr '\0' '\n' | awk '{ print "file", $0 }'
    grep -noE '`[a-z0-9]+(_[a-z0-9]+)(_[a-z0-9]+)+`' docs/coverage.md | tr -d '\140' | awk -F: '{ print "test", $1, $2 }'
    grep -noE '`[A-Za-z0-9_/.-]+[.](rs|toml|proto|md|sh|txt)`' docs/architecture.md | tr -d '\140' | awk -F: '{ print "path", $1, $2 }'
  } | awk '
    $1 == "fn" { has[$2] = 1 }
    $1 == "file" {
      count = split($2, part, "/"); tail = ""
      for (i = count; i >= 1; i--) { tail = (tail == "" ? part[i] : part[i] "/" tail); there[tail] = 1 }
    }
    $1 == "test" && !has[$3] {
      printf "docs/coverage.md:%d: names the test %s, which does not exist\n    rule: CONTRIBUTING.md, \"Tests\"\n", $2, $3 }
    $1 == "path" && !there[$3] {
      printf "docs/architecture.md:%d: names the file %s, which does not exist\n    rule: CONTRIBUTING.md, \"Walls\"\n", $2, $3 }
  ' >>"$found"
fi

count="$(grep -c '^    rule: ' "$found" || true)"
if [ "$count" -gt 0 ]; then
  cat "$found"
  echo "structure: $count violation(s)"
  exit 1
fi
echo "structure: ok ($(list '*.rs' | tr -dc '\0' | wc -c) Rust files)"
