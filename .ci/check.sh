#!/usr/bin/env bash
# The one command before a commit: every gate that CI has, the documentation, and the tests.
#
#   .ci/check.sh            gates, docs, tests
#   .ci/check.sh --fast     gates and docs only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=.ci/gates.sh
. .ci/gates.sh

fast_gates
docs_gate
passed=0
gates_passed || passed=1
if [ "${1:-}" = "--fast" ]; then
  exit "$passed"
fi
bash tests/run.sh || passed=$?
exit "$passed"
