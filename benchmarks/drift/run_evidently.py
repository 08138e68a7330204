"""evidently's default preset on every pair of a folder; run with a Python that has evidently (it needs pandas < 3).

PEERS/bin/python benchmarks/drift/run_evidently.py FOLDER RESULT.json
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")


def main(folder: Path, result: Path) -> None:
    start = time.perf_counter()
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    rows = []
    for pair in json.loads((folder / "manifest.json").read_text()):
        begin = time.perf_counter()
        tables = [pd.read_parquet(folder / pair[side]) for side in ("current", "reference")]
        found = json.loads(Report([DataDriftPreset()]).run(*tables).json())["metrics"]
        flagged, verdict = [], False
        for metric in found:
            config, value = metric["config"], metric["value"]
            if config["type"].endswith("DriftedColumnsCount"):
                verdict = value["share"] >= config["drift_share"]
                continue
            # A p-value flags when small, a distance when large; the method's name says which it is.
            drifted = value < config["threshold"] if "p_value" in config["method"] else value >= config["threshold"]
            if drifted:
                flagged.append(config["column"])
        rows.append(pair | {"flagged": flagged, "verdict": bool(verdict), "seconds": time.perf_counter() - begin})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result.write_text(json.dumps({"tool": "evidently", "total": time.perf_counter() - start, "peak_mb": peak, "rows": rows}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
