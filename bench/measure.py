"""Runs one command and accounts for its CPU and memory, and for servers beside it.

  measure.py --name load --watch pg=PID -- CMD ARGS...

CPU: /proc/PID/stat every 0.2 s for the whole process tree, by program; the
processes of sluice are told apart by their command (sluice run, sluice
embedded-broker …). A process that ends counts with its last sample; the exact
total of what was reaped is printed beside it as cpu_rusage_s. A watched server
counts with its children, living and reaped. Memory: the high-water mark of each
process, of its anonymous pages too, and the peak of the tree's sum. Foreign CPU
is what the machine did beside all this: a figure with more than a few per cent
of it is not worth quoting.

The command ends by itself, or with --until 'CMD' when CMD exits 0, or with
--settle 'CMD' S when what CMD prints has not changed for S seconds; time and
CPU are then those of the last change. A timeline goes to OUT.NAME.timeline.csv.
"""
import argparse, json, os, resource, signal, subprocess, sys, time

TCK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def stat(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            s = f.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    r = s.rindex(b")")
    f = s[r + 2:].split()
    return {"comm": s[s.index(b"(") + 1:r].decode(errors="replace"), "ppid": int(f[1]), "u": (int(f[11]) + int(f[12])) / TCK,
            "c": (int(f[13]) + int(f[14])) / TCK, "rss": int(f[21]) * PAGE, "start": int(f[19])}


def name(pid, comm):
    """sluice run, sluice embedded-broker, …; for others the program."""
    if comm != "sluice":
        return comm
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            args = f.read().split(b"\0")
        return "sluice " + args[1].decode() if len(args) > 1 else comm
    except (FileNotFoundError, ProcessLookupError):
        return comm


def anonymous(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("RssAnon"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def hwm(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def io(pid):
    try:
        with open(f"/proc/{pid}/io") as f:
            d = dict(line.split(": ") for line in f.read().splitlines())
        return int(d["wchar"])
    except OSError:
        return 0


def snapshot():
    out = {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            s = stat(p)
            if s:
                out[int(p)] = s
    return out


def tree(procs, root):
    kids = {}
    for p, s in procs.items():
        kids.setdefault(s["ppid"], []).append(p)
    todo, res = [root], []
    while todo:
        p = todo.pop()
        if p in procs:
            res.append(p)
        todo += kids.get(p, [])
    return res


def busy():
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:]]
    return (v[0] + v[1] + v[2] + v[5] + v[6]) / TCK, (v[7] / TCK if len(v) > 7 else 0)


def server_total(procs, pid):
    t, rss = 0.0, 0
    for p in tree(procs, pid):
        t += procs[p]["u"] + procs[p]["c"]
        rss += procs[p]["rss"]
    return t, rss


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--name", default="run")
    ap.add_argument("--out")
    ap.add_argument("--watch", action="append", default=[])
    ap.add_argument("--until")
    ap.add_argument("--settle", nargs=2, metavar=("CMD", "SECS"))
    ap.add_argument("--limit", type=float, default=3600)
    ap.add_argument("--log")
    ap.add_argument("cmd", nargs=argparse.REMAINDER)
    a = ap.parse_args()
    cmd = a.cmd[1:] if a.cmd and a.cmd[0] == "--" else a.cmd
    watch = {w.split("=")[0]: int(w.split("=")[1]) for w in a.watch}
    log = open(a.log, "wb") if a.log else None
    load0 = os.getloadavg()
    procs = snapshot()
    w0 = {k: server_total(procs, p)[0] for k, p in watch.items()}
    b0, st0 = busy()
    t0, wall0 = time.time(), time.monotonic()
    child = subprocess.Popen(cmd, stdout=log or sys.stderr, stderr=subprocess.STDOUT if log else None)
    seen, line, peak_sum, wpeak = {}, [], 0, {k: 0 for k in watch}
    last_poll, token, changed, poll = 0.0, None, None, None
    why = "exit"
    mark = None

    def sample():
        nonlocal peak_sum
        procs = snapshot()
        s = 0
        for p in tree(procs, child.pid):
            key = (p, procs[p]["start"])
            d = seen.setdefault(key, {"comm": procs[p]["comm"], "cpu": 0, "hwm": 0, "anon": 0, "wchar": 0})
            label = name(p, procs[p]["comm"])
            if label != "sluice":  # a process that is just ending has no arguments any more
                d["comm"] = label
            d["anon"] = max(d["anon"], anonymous(p))
            d["cpu"] = max(d["cpu"], procs[p]["u"])
            d["hwm"] = max(d["hwm"], hwm(p))
            d["wchar"] = max(d["wchar"], io(p))
            s += procs[p]["rss"]
        peak_sum = max(peak_sum, s)
        row = {"t": time.monotonic() - wall0, "tree_cpu": sum(d["cpu"] for d in seen.values()), "tree_rss": s}
        for k, p in watch.items():
            c, r = server_total(procs, p)
            row[k] = c - w0[k]
            wpeak[k] = max(wpeak[k], r)
        row["busy"] = busy()[0] - b0
        line.append(row)
        return row

    next_t = wall0
    while True:
        row = sample()
        if child.poll() is not None:
            break
        now = time.monotonic()
        if now - wall0 > a.limit:
            why = "limit"
        elif (a.until or a.settle) and now - last_poll >= 1:
            last_poll = now
            r = subprocess.run(a.until or a.settle[0], shell=True, capture_output=True, text=True)
            if a.until and r.returncode == 0:
                why, mark = "until", row
            if a.settle:
                tok = r.stdout.strip()
                if tok and tok != token:
                    token, changed, mark = tok, now, row
                elif changed and now - changed >= float(a.settle[1]):
                    why = "settled"
        if why != "exit":
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            break
        next_t += 0.2
        time.sleep(max(0.01, next_t - time.monotonic()))
    end = mark or {**line[-1], "t": time.monotonic() - wall0}
    ru = resource.getrusage(resource.RUSAGE_CHILDREN)
    procs = snapshot()
    groups = {}
    for (p, _), d in seen.items():
        g = groups.setdefault(d["comm"], {"n": 0, "cpu_s": 0, "peak_rss_mb": 0, "peak_anon_mb": 0, "written_mb": 0})
        g["n"] += 1
        g["cpu_s"] += d["cpu"]
        g["peak_rss_mb"] = max(g["peak_rss_mb"], d["hwm"] / 1e6)
        g["peak_anon_mb"] = max(g["peak_anon_mb"], d["anon"] / 1e6)
        g["written_mb"] += d["wchar"] / 1e6
    if not mark:
        for k, p in watch.items():
            end[k] = server_total(procs, p)[0] - w0[k]
        end["busy"] = busy()[0] - b0
    ours = end["tree_cpu"] + sum(end[k] for k in watch)
    res = {"name": a.name, "ended": why, "rc": child.returncode, "started_unix": round(t0, 3), "wall_s": round(end["t"], 2),
           "cpu_tree_s": round(end["tree_cpu"], 2), "cpu_rusage_s": round(ru.ru_utime + ru.ru_stime, 2),
           "processes": {k: {m: round(v, 2) for m, v in g.items()} for k, g in sorted(groups.items())},
           "peak_rss_tree_mb": round(peak_sum / 1e6, 1),
           "servers": {k: {"cpu_s": round(end[k], 2), "peak_rss_mb": round(wpeak[k] / 1e6, 1)} for k in watch},
           "foreign_cpu_s": round(end["busy"] - ours, 2), "foreign_share": round((end["busy"] - ours) / max(end["busy"], 0.01), 3),
           "steal_s": round(busy()[1] - st0, 2),
           "load_before": [round(x, 2) for x in load0], "load_after": [round(x, 2) for x in os.getloadavg()], "cores": os.cpu_count()}
    text = json.dumps(res)
    print(text)
    if a.out:
        with open(a.out, "a") as f:
            f.write(text + "\n")
        with open(a.out + f".{a.name}.timeline.csv", "w") as f:
            cols = ["t", "tree_cpu", "tree_rss", *watch, "busy"]
            f.write(",".join(cols) + "\n")
            for r in line:
                f.write(",".join(f"{r[c]:.3f}" if c != "tree_rss" else str(r[c]) for c in cols) + "\n")
    return 0 if (why != "exit" or child.returncode == 0) else child.returncode


sys.exit(main())
