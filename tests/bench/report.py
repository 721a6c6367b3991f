# SPDX-License-Identifier: LGPL-2.1-or-later
"""Medians, and how far they are from where they should be."""
KEYS = ("ready_s", "iops", "worst_iops", "p50_us", "p99_us", "max_ms", "guest_mb", "allocated_mb", "wire_mb", "zero_mb", "trim_mb",
        "target_mb", "source_mb", "finish_ms", "cpu_s", "rss_mb", "wire_over", "target_over", "iops_over", "p50_over", "p99_over", "tail",
        "far_iops", "far_over", "debt_ms", "pace_us", "lag_ops", "overflow_mb", "ready_over", "longer_ms", "slow_writes", "alone_p50_us",
        "beside_ms", "longest_at_s", "alone_over", "extents", "before_max_ms", "name_max_ms", "snapshot_ms", "again_mb", "again_over", "resumed_s", "marked_mb", "owed_mb",
        "synced_again_mb", "idle_again_over")

# scenario, figure, what it should be, at most (or at least)
TARGETS = (
    ("sat-d2", "ready_s", 2.0, False), ("sat-d2", "iops_over", 0.60, True),
    ("busy2000-d2", "wire_over", 1.05, False), ("sat", "wire_over", 1.05, False), ("sat-d2", "wire_over", 1.05, False),
    ("synced-qd1-d2", "p50_over", 1.10, False), ("synced-qd1-d2", "p99_over", 1.25, False),
    ("synced-thin-pipe", "far_over", 0.90, True), ("synced-thin-pipe", "tail", 3.0, False), ("synced-thin-pipe", "debt_ms", 1000, False),
    ("sync-2x2", "alone_over", 1.10, False),
    ("busy2000-d2", "finish_ms", 20, False), ("sat-d2", "finish_ms", 20, False), ("synced-qd1-d2", "finish_ms", 30, False),
    ("synced-qd16", "finish_ms", 100, False), ("synced-thin-pipe", "finish_ms", 100, False),
    ("idle-d50", "ready_over", 0.5, False),
    ("cut", "again_over", 0.01, False), ("cut", "resumed_s", 2.0, False),
    ("kill-source", "again_over", 0.02, False), ("power", "idle_again_over", 0.02, False),
    ("marks", "p99_over", 2.0, False), ("marks-apart", "p99_over", 2.0, False),
    ("stopped-lag", "longer_ms", 5, False), ("stopped-sync", "longer_ms", 250, False),
    ("trim", "target_over", 1.02, False),
    *((f"snapshot-1e{n}", "max_ms", 50, False) for n in (2, 3, 4, 5)),
    ("snapshot-qcow2", "max_ms", 200, False),
)


def ratio(over, under):
    return round(over / under, 3) if over is not None and under else None


def divide_row(row, others, base):
    """Figures over figures. `others`: those of the same run."""
    whole = row.get("whole_mb", 0)
    if "allocated_mb" in row and "wire_mb" in row:
        row["wire_over"] = ratio(row["wire_mb"], row["allocated_mb"] + whole)
    row["target_over"] = ratio(row.get("target_mb"), row.get("source_mb"))
    row["tail"] = ratio(row.get("p99_us"), row.get("p50_us"))
    row["far_over"] = ratio(row.get("iops"), row.get("far_iops"))
    plain = next((o for o in others if o["scenario"] == base and o["engine"] == row["engine"]), {})
    for key in ("iops", "p50", "p99"):
        figure = key + ("_us" if key != "iops" else "")
        row[key + "_over"] = ratio(row.get(figure), plain.get(figure))
    if "max_ms" in row and "beside_ms" in row:
        row["longer_ms"] = round(row["max_ms"] - row["beside_ms"], 1)
    if row["engine"] == "sxm" and row["scenario"].startswith("idle"):
        peers = [o["ready_s"] for o in others if o["scenario"] == row["scenario"] and o["engine"] != "sxm" and o.get("ready_s")]
        row["ready_over"] = ratio(row.get("ready_s"), min(peers)) if peers else None


def divide(rows, bases):
    for row in rows:
        divide_row(row, [o for o in rows if o["run"] == row["run"]], bases.get(row["scenario"]))
        for key in [key for key, value in row.items() if value is None and key != "ready_s"]:
            del row[key]


def median_of(rows, scenario, engine, key, median):
    values = [row[key] for row in rows if row["scenario"] == scenario and row["engine"] == engine and row.get(key) is not None]
    return round(median(values), 3) if values else None


def print_medians(rows, names, median):
    print("\nmedians")
    for name in names:
        for engine in dict.fromkeys(row["engine"] for row in rows):
            mine = [row for row in rows if row["scenario"] == name and row["engine"] == engine]
            if not mine:
                continue
            line = {key: median_of(mine, name, engine, key, median) for key in KEYS}
            faults = {"ERRORS": sum("error" in row for row in mine), "NEVER": sum("ready_s" in row and row["ready_s"] is None for row in mine),
                      "DIFFERENT": sum(row.get("same") is False for row in mine)}
            said = [f"{key}={value}" for key, value in line.items() if value is not None] + [f"{k}={v}" for k, v in faults.items() if v]
            print(f"{name:16} {engine:14} {' '.join(said)}")


def print_targets(rows, median):
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    print("\n{:16} {:15} {:>10} {:>9}  {}".format("scenario", "figure", "wanted", "sxm", "peers"))
    for scenario, key, wanted, is_least in TARGETS:
        value = median_of(rows, scenario, "sxm", key, median)
        if not any(row["scenario"] == scenario for row in rows):
            continue
        is_met = value is not None and (value >= wanted if is_least else value <= wanted)
        peers = {e: median_of(rows, scenario, e, key, median) for e in engines if e != "sxm"}
        said = "  ".join(f"{e} {v}" for e, v in peers.items() if v is not None)
        shown = "-" if value is None else value
        print(f"{scenario:16} {key:15} {'>=' if is_least else '<=':>4}{wanted:>6} {shown:>9}  {'' if is_met else 'NOT MET  '}{said}")
