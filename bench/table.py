"""Turns measurements into one table.

  table.py stage LINES                reads stages's lines of JSON
  table.py run LINES NAME COUNT UNIT  reads measure.py's line of JSON
  table.py fresh LINES FILE           reads measure.py's line and, from FILE, freshness's
  table.py floor LINES NAME COUNT UNIT  reads measure.py's line: client and server count
  table.py print LINES TITLE          prints the Markdown table of all lines

CPU is that of sluice and of the embedded broker; Postgres and S3 are shown
beside it, as they are servers that would be somewhere else. What was reaped is
exact and what was sampled may lack a process's last 0.2 s: the larger counts.
"""
import json, sys

QUIET = 0.10  # largest foreign share of the CPU that leaves a figure worth quoting


def line(name, count, unit, cpu, **more):
    return {"name": name, "count": count, "unit": unit, "cpu": cpu, "wall": 0, "sluice": "", "broker": "", "s3": "", "pg": "", "anon": "", "foreign": 0, "note": "", **more}


def measured(r):
    if r["rc"] != 0:
        sys.exit("%s failed with %s: see its log" % (r["name"], r["rc"]))
    return r


def cpu(r, what):
    return r["processes"].get(what, {}).get("cpu_s", 0)


def flow(r, name, count, unit):
    s3 = cpu(r, "sluice embedded-s3")
    broker = cpu(r, "sluice embedded-broker")
    served = r["servers"].get("broker", {})
    sluice = sum(v["cpu_s"] for k, v in r["processes"].items() if k in ("sluice", "sluice run"))
    if not any(k in r["processes"] for k in ("freshness", "psql")):  # else what was reaped holds the load, too
        sluice = max(sluice, r["cpu_rusage_s"] - s3 - broker)
    broker += served.get("cpu_s", 0)  # it ran before
    anon = [r["processes"].get(k, {}).get("peak_anon_mb", 0) for k in ("sluice run", "sluice embedded-broker")]
    return line(name, count, unit, sluice + broker, wall=r["wall_s"], sluice=sluice, broker=broker, s3=s3, pg=r["servers"]["pg"]["cpu_s"],
                anon="%.0f" % anon[0] if served else "%.0f + %.0f" % tuple(anon), foreign=r["foreign_share"])


def stages(text):
    names = {"decode": "a decode only", "parquet": "b decode + Parquet"}
    loads = {"public.orders_wide": "W1", "public.taxi_trips": "W2"}
    for t in text.splitlines():
        r = json.loads(t)
        yield line("%s, %s" % (names[r["stage"]], loads[r["table"]]), r["rows"], "rows", r["cpu_s"], wall=r["wall_s"], sluice=r["cpu_s"],
                   s3=r["s3_cpu_s"], anon="(holds its input)", foreign=r["foreign_share"])


def fresh(r, path):
    with open(path) as f:
        f = json.load(f)
    res = flow(r, "f followed live, W3 at %.0f changes/s" % f["rate"], f["changes"], "changes")
    res["note"] = "commit to visible: p50 %.1f s, p90 %.1f s, p99 %.1f s, most %.1f s, of %d transactions" % (
        *(f[k] / 1000 for k in ("p50_ms", "p90_ms", "p99_ms", "max_ms")), f["transactions"])
    if f["gap_ms"] > 500:
        res["note"] += "; **uneven load**: Postgres stood still for %.1f s" % (f["gap_ms"] / 1000)
    return res


def floor(r, name, count, unit):
    client, server = max(r["cpu_tree_s"], r["cpu_rusage_s"]), r["servers"]["pg"]["cpu_s"]
    return line(name, count, unit, client + server, wall=r["wall_s"], pg=server, foreign=r["foreign_share"], note="client %.2f CPU-s" % client)


def markdown(lines, title):
    def number(x, form):
        return x if isinstance(x, str) else format(x, form)
    out = [title, "", "| line | number | per CPU-s | seconds | CPU-s sluice / broker | S3 / Postgres beside it | anonymous RSS MB, sluice + broker | foreign CPU | |", "|---|--:|--:|--:|--:|--:|--:|--:|---|"]
    for r in lines:
        busy = r["foreign"] > QUIET
        out.append("| %s | %s %s | %s | %.1f | %s / %s | %s / %s | %s | %.0f %% | %s |" % (
            r["name"], format(r["count"], ","), r["unit"], format(int(r["count"] / max(r["cpu"], 0.01)), ","), r["wall"],
            number(r["sluice"], ".1f") or "–", number(r["broker"], ".1f") or "–", number(r["s3"], ".1f") or "–", number(r["pg"], ".1f") or "–",
            r["anon"] or "–", 100 * max(0, r["foreign"]), "; ".join(x for x in ("**not quiet**" if busy else "", r["note"]) if x)))
    by = {r["name"]: r["count"] / max(r["cpu"], 0.01) for r in lines}
    ratios = ["%s %.2f" % (w, by["c topic → table, " + w] / by["b decode + Parquet, " + w]) for w in ("W1", "W2")
              if "c topic → table, " + w in by and "b decode + Parquet, " + w in by]
    if ratios:
        out += ["", "(c) to (b), broker included: " + ", ".join(ratios) + "."]
    return "\n".join(out) + "\n"


def main(kind, path, *rest):
    if kind == "print":
        with open(path) as f:
            print(markdown([json.loads(t) for t in f], rest[0]), end="")
        return
    text = sys.stdin.read()
    if not text.strip():
        sys.exit("no measurement: %s %s" % (kind, " ".join(rest)))
    if kind == "stage":
        lines = list(stages(text))
    elif kind == "fresh":
        lines = [fresh(measured(json.loads(text)), rest[0])]
    else:
        lines = [{"run": flow, "floor": floor}[kind](measured(json.loads(text)), rest[0], int(rest[1]), rest[2])]
    with open(path, "a") as f:
        for r in lines:
            f.write(json.dumps(r, ensure_ascii=False) + "\n")
            print("%-42s %9d %-7s %9.0f per CPU-s   foreign CPU %3.0f %%   %s" % (r["name"], r["count"], r["unit"], r["count"] / max(r["cpu"], 0.01), 100 * max(0, r["foreign"]), r["note"]))


main(*sys.argv[1:])
