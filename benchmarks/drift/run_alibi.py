"""alibi-detect's tabular detector (KS and chi-squared, Bonferroni) on every pair of a folder.

    PEERS/bin/python benchmarks/drift/run_alibi.py FOLDER RESULT.json

It has no missing values and wants numbers: levels become codes, missing cells a level of their own or the median.
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
    import numpy as np
    import pandas as pd
    from alibi_detect.cd import TabularDrift

    rows = []
    for pair in json.loads((folder / "manifest.json").read_text()):
        begin = time.perf_counter()
        reference, current = (pd.read_parquet(folder / pair[side]) for side in ("reference", "current"))
        both = pd.concat([reference, current], ignore_index=True)
        levels, columns = {}, list(both.columns)
        for k, name in enumerate(columns):
            if both[name].dtype.kind not in "fi":
                both[name], names = pd.factorize(both[name].astype(str).fillna("missing"))
                levels[k] = len(names)
            else:
                both[name] = both[name].fillna(both[name].median())
        values = both.to_numpy(np.float32)
        n = len(reference)
        detector = TabularDrift(values[:n], p_val=0.05, correction="bonferroni", categories_per_feature=levels)
        found = detector.predict(values[n:])["data"]
        flagged = [columns[k] for k in np.flatnonzero(np.asarray(found["p_val"]) < found["threshold"])]
        rows.append(pair | {"flagged": flagged, "verdict": bool(found["is_drift"]), "seconds": time.perf_counter() - begin})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result.write_text(json.dumps({"tool": "alibi-detect", "total": time.perf_counter() - start, "peak_mb": peak, "rows": rows}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
