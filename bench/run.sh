#!/usr/bin/env bash
# run.sh   what a row costs on this machine: the stages alone, then the whole flow
#   ROWS=200000 rows of W1, twice as many of W2; CHANGES=100000 changes of W3
# The results are printed and appended to .cache/bench/results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${ROWS:-200000} changes=${CHANGES:-100000}
out=$PWD/.cache/bench
sluice=$PWD/bin/sluice
rm -rf "$out/work"
mkdir -p "$out/work"
export SHOP_DB_URL
SHOP_DB_URL=$(deploy/dev/postgres.sh start "$out/work/postgres")
trap 'deploy/dev/postgres.sh stop "$out/work/postgres"' EXIT
pg=$(head -n 1 "$out/work/postgres/data/postmaster.pid")

# configure NAME TABLE KEY: the flow of one table into one upserted table
configure() {
  mkdir -p "$out/work/$1"
  cat >"$out/work/$1/sluice.yaml" <<END
name: $1
dir: data
kafka: { embedded: true }
sources:
  db:
    postgres: { url: "\${env:SHOP_DB_URL}", tables: [public.$2], slot: bench_$1 }
sinks:
  lake:
    iceberg:
      catalog: { sql: "sqlite:data/catalog.db" }
      warehouse: s3://lake/$1
      s3: { embedded: true }
      commit: { every: 10s, bytes: 64MiB }
    streams:
      - { from: db.public.$2, table: bench.$2, mode: upsert, sort_by: [$3] }
END
}

# flow NAME ROWS CONFIG: one run until everything has arrived
flow() {
  python3 bench/measure.py --name "$1" --watch "pg=$pg" --out "$out/results.jsonl" --log "$out/work/$1.log" -- \
    "$sluice" run -c "$out/work/$3/sluice.yaml" --until-caught-up | python3 -c '
import json, sys
r = json.load(sys.stdin)
if r["rc"] != 0:
    sys.exit("%s failed, see its log: rc %s" % (r["name"], r["rc"]))
rows, p = int(sys.argv[1]), r["processes"]
ours = sum(v["cpu_s"] for k, v in p.items() if k != "sluice embedded-s3")
run = p.get("sluice run", {})
print("%-22s %9d rows  %6.1f s  %6.1f CPU-s  %8d rows/CPU-s  anonymous RSS %4.0f MB  foreign CPU %2.0f %%" % (
    r["name"], rows, r["wall_s"], ours, rows / max(ours, 0.01), run.get("peak_anon_mb", 0), 100 * r["foreign_share"]))
print("   " + ", ".join("%s %.1f" % (k, v["cpu_s"]) for k, v in sorted(p.items())) + ", postgres %.1f CPU-s" % r["servers"]["pg"]["cpu_s"])
' "$2"
}

uname -srm
grep -m 1 'model name' /proc/cpuinfo || true
date -u +%Y-%m-%d
echo "stages alone (W1 and W2 in columns, one core)"
go test -run '^$' -bench . -benchtime 1s ./record ./lake | grep -E '^(Benchmark|ok)' || true

bench/load.sh "$SHOP_DB_URL" tables
echo "whole flow: Postgres → Kafka → table, broker included, S3 apart"
bench/load.sh "$SHOP_DB_URL" wide "$rows"
configure w1 orders_wide id
flow "W1 full load" "$rows" w1
bench/load.sh "$SHOP_DB_URL" taxi $((2 * rows))
configure w2 taxi_trips trip_id
flow "W2 full load" $((2 * rows)) w2
bench/load.sh "$SHOP_DB_URL" mix "$changes" | tail -n 1
flow "W3 upserts" "$changes" w1
