#!/usr/bin/env bash
# Runs a sample of the tests that a seed chooses: one in SHARE of the tests of each
# package of the first list, and all tests of one in SHARE of the packages of the
# second. What is left out is the turn of other commits.
#
#   scripts/lib/sample.sh SEED SHARE "PACKAGES" "PACKAGES" FLAGS OF go test...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[[ $# -ge 4 ]] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
seed="$1" share="$2" tested="$3" rotated="$4"
shift 4

# chosen prints one in share of its input lines, at least one.
chosen() {
  local lines
  lines="$(while read -r line; do printf '%s %s\n' "$(cksum <<<"$seed $line" | cut -d ' ' -f 1)" "$line"; done | sort -n | cut -d ' ' -f 2-)"
  head -n "$((($(wc -l <<<"$lines") + share - 1) / share))" <<<"$lines"
}

# names prints the tests of a package, with its own name in front.
names() {
  go list -f '{{$p := .}}{{range .TestGoFiles}}{{$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p.Dir}}/{{.}}{{"\n"}}{{end}}' "$1" |
    while read -r file; do [[ -z $file ]] || sed -nE "s#^func ((Test|Fuzz|Example)[A-Za-z0-9_]*)\(.*#$1 \1#p" "$file"; done |
    grep -v ' TestMain$' | LC_ALL=C sort
}

run=()
packages=()
for package in $tested; do
  mapfile -t -O "${#run[@]}" run < <(names "$package" | chosen)
  packages+=("$package")
done
if [[ -n $rotated ]]; then
  for package in $(tr ' ' '\n' <<<"$rotated" | chosen); do
    mapfile -t -O "${#run[@]}" run < <(names "$package")
    packages+=("$package")
  done
fi
printf 'seed %s: %d tests of %d packages\n' "$seed" "${#run[@]}" "${#packages[@]}"
# One expression for all: a name that another package has too runs there as well.
exec go test -run "^($(printf '%s\n' "${run[@]##* }" | LC_ALL=C sort -u | paste -sd '|'))\$" "$@" "${packages[@]}"
