# Sourced by the scripts beside it: the cache, the messages, the lock.
# Progress goes to standard error, results (paths, addresses) to standard output.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
cache=${SLUICE_DEV_CACHE:-$repo/.cache/dev}

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 3; }

# need COMMAND INSTALL-COMMAND: one line when a tool is missing.
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing: $2"; }

need_python() {
  need python3 "apt-get install -y python3 python3-venv"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is older than 3.11: apt-get install -y python3 python3-venv"
  python3 -c 'import venv, ensurepip' 2>/dev/null || die "python3 has no venv: apt-get install -y python3-venv"
}

need_java() {
  need java "apt-get install -y openjdk-17-jre-headless"
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ] || die "java ${version:-?} is older than 17: apt-get install -y openjdk-17-jre-headless"
}

# locked NAME COMMAND...: runs COMMAND while no other process of this name does.
locked() {
  local lock="$cache/$1.lock" owner
  shift
  mkdir -p "$cache"
  until mkdir "$lock" 2>/dev/null; do
    owner=$(cat "$lock/pid" 2>/dev/null || true)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -rf "$lock"; else sleep 0.2; fi
  done
  echo $$ >"$lock/pid"
  # shellcheck disable=SC2064 # the path of now is meant
  trap "rm -rf '$lock'" EXIT
  "$@"
  rm -rf "$lock"
  trap - EXIT
}

# venv DIR REQUIREMENTS: a private Python with exactly these packages, nothing of the system's.
venv() {
  local dir=$1 wanted=$2
  if [ -x "$dir/bin/python" ] && cmp -s "$wanted" "$dir/.ready"; then return; fi
  need_python
  rm -rf "$dir"
  python3 -m venv "$dir"
  PIP_REQUIRE_VIRTUALENV=1 PIP_DISABLE_PIP_VERSION_CHECK=1 "$dir/bin/python" -m pip install --quiet --only-binary=:all: -r "$wanted" >&2
  cp "$wanted" "$dir/.ready"
}

sha256() { if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1; }

# free_ports N: N different free ports of 127.0.0.1.
free_ports() {
  python3 - "$1" <<'PY'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PY
}
