#!/usr/bin/env bash
# judges.sh   prints a Python with DuckDB, its Iceberg extensions and PyIceberg (420 MB), made when missing
. "$(dirname "$0")/lib.sh"

make_judges() {
  [ -x "$1/bin/python" ] && cmp -s "$here/judges.txt" "$1/.ready" && return
  say "getting DuckDB and PyIceberg (150 MB)"
  venv "$1" "$here/judges.txt"
}

locked judges make_judges "$cache/judges"
echo "$cache/judges/bin/python"
