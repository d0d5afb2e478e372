# The gates that people and CI share. Sourced by .ci/check.sh and .ci/run; does nothing by itself.
#
# Every gate runs, also after one has failed, so that one look shows everything; `failed` holds their names.
# Clippy and the tests share one target folder.

failed=()

# gate NAME COMMAND…: runs it, says how long it took, remembers a failure.
gate() {
  local name="$1" started="$SECONDS"
  shift
  echo "=== $name"
  if "$@"; then
    echo "=== $name: ok ($((SECONDS - started)) s)"
  else
    echo "=== $name: FAILED ($((SECONDS - started)) s): $*"
    failed+=("$name")
  fi
}

# Licences, bans and sources are checked offline. The advisory check needs a list from the network; without
# it that check is left out, loudly, and does not fail the build.
deny() {
  cargo deny --offline --all-features check bans licenses sources || return 1
  if cargo deny fetch db; then
    cargo deny --offline --all-features check advisories
  else
    echo "!!! cargo deny: the list of advisories could not be fetched; advisories were NOT checked"
  fi
}

# What only tests need is behind features that their builds alone turn on: dev-dependencies, and the crate of the tests.
released() {
  local found
  found="$(cargo tree --locked --workspace --exclude fleet-tests --edges features,no-dev --prefix none \
    | grep -E 'feature "(crash-points|unchecked-tls|scaled-timers)"')" || return 0
  printf 'a build without tests turns on:\n%s\n' "$found"
  return 1
}

fast_gates() {
  gate "structure" bash .ci/structure.sh
  gate "released features" released
  gate "format" cargo fmt --all --check
  gate "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
  if cargo deny --version >/dev/null 2>&1; then
    gate "deny" deny
  else
    echo "!!! cargo deny is not installed: licences, bans and advisories (deny.toml) were NOT checked"
  fi
}

# With private items: the documentation is for those who work here, and links to private items are right then,
# and doc comments of the command line are its help text, in which <NAME> is no HTML.
docs_gate() {
  RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links -A rustdoc::invalid-html-tags" gate "docs" cargo doc --workspace --no-deps --document-private-items --locked --quiet
}

# Says what failed; true when nothing did.
gates_passed() {
  if [ "${#failed[@]}" -gt 0 ]; then
    echo "=== gates that failed: ${failed[*]}"
    return 1
  fi
  echo "=== all gates passed"
}
