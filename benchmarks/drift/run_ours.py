"""Our verdicts on every pair of a folder.   python benchmarks/drift/run_ours.py FOLDER RESULT.json"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def main(folder: Path, result: Path) -> None:
    start = time.perf_counter()
    from discrepancy import compare

    rows = []
    for pair in json.loads((folder / "manifest.json").read_text()):
        begin = time.perf_counter()
        report = compare(folder / pair["reference"], folder / pair["current"]).to_dict()
        flagged = [c["name"] for c in report["columns"] if c["drift"]]
        rows.append(pair | {"flagged": flagged, "verdict": report["drift"], "seconds": time.perf_counter() - begin})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result.write_text(json.dumps({"tool": "discrepancy", "total": time.perf_counter() - start, "peak_mb": peak, "rows": rows}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
