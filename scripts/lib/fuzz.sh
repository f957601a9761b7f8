#!/usr/bin/env bash
# Runs the fuzz targets of the project for a time each: all of them, or so many,
# chosen by a seed. The binary of a package is built once for all of its targets.
#
#   scripts/lib/fuzz.sh 10s [PACKAGES [HOW_MANY SEED]]
#
# A target that fails leaves its input in the package's testdata/fuzz: commit it with
# the fix, and it is a test for ever.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

time_each="${1:?how long for each target, for example 10s}"
packages="${2:-./...}"

# "PACKAGE FOLDER TARGET" for each; read from the source, since linking every test to
# ask it takes minutes.
# shellcheck disable=SC2086 # packages may be several
targets="$(go list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}} {{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}} {{.}}{{"\n"}}{{end}}' $packages |
  while read -r package folder file; do
    [[ -n $file ]] && sed -nE "s|^func (Fuzz[A-Za-z0-9_]*)\(.*|$package $folder \1|p" "$folder/$file"
  done | LC_ALL=C sort)"
if [[ -n ${3:-} ]]; then
  targets="$(while read -r line; do printf '%s %s\n' "$(cksum <<<"${4:-1} ${line% *}" | cut -d ' ' -f 1)" "$line"; done <<<"$targets" |
    sort -s -n -k 1,1 | head -n "$3" | cut -d ' ' -f 2-)"
fi
[[ -n $targets ]] || { echo "fuzz: no targets in $packages" >&2; exit 1; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cache="$(go env GOCACHE)/fuzz"
passed=0
failed=0
built=''
while read -r package folder target; do
  if [[ $package != "$built" ]]; then
    start=$SECONDS
    built="$package"
    go test -c -fuzz '^Fuzz' -o "$work/fuzz.test" "$package" </dev/null || { failed=$((failed + 1)); rm -f "$work/fuzz.test"; }
    printf 'fuzz %s built in %d s\n' "$package" $((SECONDS - start))
  fi
  [[ -x $work/fuzz.test ]] || continue
  printf 'fuzz %s %s for %s\n' "$package" "$target" "$time_each"
  run() {
    out="$(cd "$folder" && "$work/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time_each" \
      -test.fuzzcachedir "$cache/$package" -test.timeout 0 2>&1 </dev/null)"
  }
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
