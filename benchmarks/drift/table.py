"""The table of all tools' results, and the JSON that is committed.   python benchmarks/drift/table.py RESULT.json ..."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path


def summarise(record: dict) -> dict:
    """Rates and medians of one tool."""
    rows, out = record["rows"], {"peak_mb": round(record["peak_mb"])}
    for group in ("null_300", "null_2400"):
        chosen = [r for r in rows if r["group"] == group]
        out[f"{group}: any column flagged"] = statistics.fmean(bool(r["flagged"]) for r in chosen)
        out[f"{group}: data set verdict"] = statistics.fmean(r["verdict"] for r in chosen)
    planted = [r for r in rows if r["group"] == "planted"]
    for name in planted[0]["planted"]:
        out[f"planted {name} found"] = statistics.fmean(name in r["flagged"] for r in planted)
    out["planted: any other column flagged"] = statistics.fmean(bool(set(r["flagged"]) - set(r["planted"])) for r in planted)
    out["planted: data set verdict"] = statistics.fmean(r["verdict"] for r in planted)
    out["seconds a pair, 2,400 + 2,400 rows (median)"] = statistics.median(r["seconds"] for r in planted)
    for r in rows:
        if r["group"].startswith("real_"):
            out[f"{r['group']}: columns flagged"] = len(r["flagged"])
            out[f"{r['group']}: data set verdict"] = r["verdict"]
            out[f"{r['group']}: seconds"] = r["seconds"]
    return out


def main(files: list[Path]) -> None:
    summaries = {(record := json.loads(file.read_text()))["tool"]: summarise(record) for file in files}
    lines = list(next(iter(summaries.values())))
    print("| |" + "|".join(summaries) + "|\n|---|" + "---|" * len(summaries))
    for line in lines:
        cells = [f"{v:.3g}" if isinstance(v := s[line], float) else str(v) for s in summaries.values()]
        print(f"| {line} |" + "|".join(cells) + "|")
    out = Path(__file__).parents[1] / "results" / "drift.json"
    out.write_text(json.dumps(summaries, indent=1) + "\n")


if __name__ == "__main__":
    main([Path(f) for f in sys.argv[1:]])
