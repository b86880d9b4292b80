#!/usr/bin/env bash
# kms.sh            prints a program that serves AWS KMS in memory (moto), made when missing (310 MB on disk)
# kms.sh run PORT   serves it on 127.0.0.1:PORT until it is stopped
. "$(dirname "$0")/lib.sh"

make_kms() {
  [ -x "$1/bin/moto_server" ] && cmp -s "$here/kms.txt" "$1/.ready" && return
  say "getting moto, which speaks for AWS KMS (90 MB)"
  venv "$1" "$here/kms.txt"
}

locked kms make_kms "$cache/kms"
program=$cache/kms/bin/moto_server
if [ "${1:-}" = run ]; then exec "$program" -H 127.0.0.1 -p "${2:?kms.sh run PORT}"; fi
echo "$program"
