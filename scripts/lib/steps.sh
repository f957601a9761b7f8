#!/usr/bin/env bash
# Runs make targets one after another, says how long each took and sums up. A step
# that fails does not stop the others: one run shows all that is wrong.
#
#   scripts/lib/steps.sh lint vet unit
#
# The last line has the counts; the exit code is 1 if a step failed, 130 after Ctrl-C.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

[[ $# -gt 0 ]] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

limit=1200 # seconds; only said, since machines differ
lines=()
passed=0
failed=0
begun=$SECONDS
trap 'exit 130' INT TERM

for step in "$@"; do
  printf '\n=== %s\n' "$step"
  start=$SECONDS
  if "${MAKE:-make}" --no-print-directory "$step"; then
    result=passed
    passed=$((passed + 1))
  else
    result=FAILED
    failed=$((failed + 1))
  fi
  line="$(printf '%-20s %-7s %5d s' "$step" "$result" $((SECONDS - start)))"
  printf -- '--- %s\n' "$line"
  lines+=("$line")
done

printf '\n=== summary\n'
printf '%s\n' "${lines[@]}"
all=$((SECONDS - begun))
[[ $all -le $limit ]] || printf 'longer than the %d s that all steps may take together: docs/architecture.md has the shares\n' "$limit"
printf '%d steps in %d s: %d passed, %d failed\n' $# "$all" "$passed" "$failed"
[[ $failed -eq 0 ]]
