#!/usr/bin/env bash
# Tests archives in S3 against a server that speaks S3 (moto), on loopback.
#
#   scripts/lib/s3.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source scripts/lib/tools.sh

venv="$(tools_s3)"
log="$(mktemp)"
"$venv/bin/moto_server" -H 127.0.0.1 -p 0 >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$log"' EXIT
for ((i = 0; i < 300; i++)); do
  url="$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$log" | head -n 1 || true)"
  [[ -n $url ]] && break
  sleep 0.2
done
[[ -n ${url:-} ]] || { echo "s3: the server does not start" >&2; cat "$log" >&2; exit 1; }
curl -fsS -X PUT "$url/test" >/dev/null
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test QUINTO_TEST_S3="$url"
go test -count=1 -run 'S3' -v ./internal/backup ./cmd/command
