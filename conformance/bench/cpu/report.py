"""The table of a report, as Markdown. Standard library only."""


def number(value, digits=3):
    """To three digits that count, and not fewer than the whole ones."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    whole = len(str(int(abs(value))))
    return f"{value:.{max(0, digits - whole) if abs(value) >= 1 else digits}f}"


def percent(value):
    return "-" if value is None else f"{value * 100:.0f} %"


def ratio(row):
    """Ours, or a peer's, by the best peer's, with its interval."""
    by = row.get("by_best")
    if not by:
        return "best peer" if not row["ours"] else "-"
    interval = f" [{by['low']:.2f}, {by['high']:.2f}]" if by["low"] is not None else ""
    return f"{by['ratio']:.2f}{interval}"


def memory(row):
    if not row["rss_peak_mb"]:
        return "-"
    return f"{row['rss_peak_mb']:.0f} (+{row['rss_peak_mb'] - (row['rss_base_mb'] or 0):.0f})"


def head(report):
    """What was measured on, with and how."""
    machine, build = report["machine"], report["build"]
    loads = [load for cell in report["cells"] for row in cell["rows"] for load in row["load_average"]]
    versions = [f"{name} {text}" if name in ("executorch", "commit") else text for name, text in build.items() if text]
    versions += sorted({f"{row['engine']} {row['version']}" for cell in report["cells"] for row in cell["rows"] if row.get("version")})
    how = f"{report['secs']:g} s each after 5 runs that warm up" if report["secs"] else "a repeat each after one that warms up"
    prefix = f", under `{report['prefix']}`" if report["prefix"] else ""
    return [
        f"Machine: {machine['cpu']} (family {machine['family']}, model {machine['model']}), {machine['cores']} cores"
        f"{', virtual' if machine['virtual'] else ''}, {' '.join(machine['isa'])}; last cache {machine['cache_bytes'] >> 20} MB, memory {machine['memory_mb'] / 1024:.0f} GB.",
        f"Build: {'; '.join(versions)}.",
        f"Runs: {report['begun']}; {report['rounds']} rounds in turns, {how}{prefix}."
        + (f" Load average {min(loads):.1f} to {max(loads):.1f}." if loads else ""),
    ]


def limits(report):
    """By the number of threads, the median over all cells."""
    rows = {}
    for cell in report["cells"]:
        if cell["limits"]:
            rows.setdefault(cell["threads"], []).append(cell["limits"])
    if not rows:
        return []
    lines = ["", "| threads | f32, GFLOP/s | int8, GOP/s | memory read, GB/s |", "| ---: | ---: | ---: | ---: |"]
    for threads, found in sorted(rows.items()):
        middle = lambda key: sorted(limit[key] for limit in found)[len(found) // 2]
        lines.append(f"| {threads} | {middle('f32_gflops'):.0f} ({found[0]['f32_by']}) | {middle('i8_gops'):.0f} ({found[0]['i8_by']}) | {middle('read_gbs'):.1f} |")
    return lines


def cell_rows(cell):
    for row in cell["rows"]:
        title = f"**{row['title']}**" if row["ours"] else row["title"]
        error = "-" if row["error"] is None else f"{row['error']:.0e}" + ("" if row["right"] else ", void")
        yield "| " + " | ".join([
            title, number(row["median_ms"]), number(row["p95_ms"]), percent(row["spread"]), ratio(row), percent(row["of_limit"]),
            number(row["load_ms"]), number(row["first_ms"]), memory(row), number(row["size"] / 1e6), error,
        ]) + " |"


def summary_rows(report):
    """Ours against the best peer, cell by cell."""
    lines = ["| model | threads | ours, ms | best peer, ms | ratio | 95 % interval | verdict |", "| --- | ---: | ---: | ---: | ---: | --- | --- |"]
    for cell in report["cells"]:
        best = next((row for row in cell["rows"] if row["engine"] == cell["best_peer"]), None)
        for row in cell["rows"]:
            by = row.get("by_best")
            if not (row["ours"] and best and by):
                continue
            interval = f"{by['low']:.3f} to {by['high']:.3f}" if by["low"] is not None else "too few rounds"
            verdict = "not told apart" if by["low"] is None or by["low"] <= 1 <= by["high"] else "faster" if by["high"] < 1 else "slower"
            lines.append(f"| {cell['model']}, {row['title']} | {cell['threads']} | {number(row['median_ms'])} | {best['title']} {number(best['median_ms'])} | {by['ratio']:.3f} | {interval} | {verdict} |")
    return lines if len(lines) > 2 else []


def show(report):
    lines = [*head(report), *limits(report)]
    if summary := summary_rows(report):
        lines += ["", *summary]
    for cell in report["cells"]:
        lines += ["", f"### {cell['model']}, {cell['threads']} thread{'s' if cell['threads'] > 1 else ''}", ""]
        if cell["limits"]:
            lines += [f"{cell['operations'] / 1e9:.3g} GFLOP, {cell['weight_bytes'] / 1e6:.3g} MB of float32 weights; least time {number(cell['least_ms'])} ms by {cell['bound']}.", ""]
        lines += ["| engine | median ms | p95 ms | spread | by best peer | of limit | load ms | first ms | RSS peak MB | file MB | error |",
                  "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *cell_rows(cell)]
        lines += [f"\n{name} failed: {why}" for name, why in cell["failures"].items()]
    if report["not_exported"]:
        lines += ["", "Not exported:", "", *(f"- `{path}`: {why.splitlines()[0]}" for path, why in report["not_exported"].items())]
    return "\n".join(lines)
