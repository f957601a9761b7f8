#!/usr/bin/env bash
# Runs the fuzz targets of the project for a time each: all of them, or so many,
# chosen by a seed.
#
#   scripts/lib/fuzz.sh 10s [PACKAGES [HOW_MANY SEED]]
#
# A target that fails leaves its input in the package's testdata/fuzz: commit it with
# the fix, and it is a test for ever.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

time_each="${1:?how long for each target, for example 10s}"
packages="${2:-./...}"

# "Fuzz…" lines belong to the package that the next "ok" line names.
# shellcheck disable=SC2086 # packages may be several
listing="$(go test -list '^Fuzz' $packages)" || { printf '%s\n' "$listing"; exit 1; }
targets="$(awk '/^Fuzz/ {names[n++] = $1} /^ok/ {for (i = 0; i < n; i++) print $2, names[i]} !/^Fuzz/ {n = 0}' <<<"$listing")"
if [[ -n ${3:-} ]]; then
  targets="$(while read -r line; do printf '%s %s\n' "$(cksum <<<"${4:-1} $line" | cut -d ' ' -f 1)" "$line"; done <<<"$targets" |
    sort -n | head -n "$3" | cut -d ' ' -f 2-)"
fi
[[ -n $targets ]] || { echo "fuzz: no targets in $packages" >&2; exit 1; }

passed=0
failed=0
while read -r package target; do
  printf 'fuzz %s %s for %s\n' "$package" "$target" "$time_each"
  run() { out="$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time_each" "$package" 2>&1 </dev/null)"; }
  # The tool itself sometimes ends so when the time is over (a worker is late), and leaves no
  # input: then the target has not failed, and is run again.
  if run || { grep -q '^    context deadline exceeded$' <<<"$out" && ! grep -q 'Failing input' <<<"$out" && run; }; then
    passed=$((passed + 1))
    grep -E '^fuzz: elapsed' <<<"$out" | tail -n 1
  else
    failed=$((failed + 1))
    printf '%s\n' "$out"
  fi
done <<<"$targets"
printf 'fuzz: %d passed, %d failed\n' "$passed" "$failed"
[[ $failed -eq 0 ]]
