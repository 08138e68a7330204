"""A profile as one file: tensors in the safetensors format, everything else as JSON in its header. Nothing is unpickled."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from discrepancy.comparison.errors import DataError
from discrepancy.comparison.joint.features import FACTORS, FREQUENCIES, Features
from discrepancy.comparison.joint.scores import RankMap
from discrepancy.comparison.model import Kind
from discrepancy.comparison.profile.frozen_map import Axis, FrozenMap
from discrepancy.comparison.profile.levels import LevelCounts
from discrepancy.comparison.profile.ordered import OrderedCounts
from discrepancy.comparison.profile.profile import ColumnProfile, Profile
from discrepancy.comparison.profile.sketches import INSTALL, restored
from discrepancy.comparison.profile.unit_sums import UnitSums

FORMAT, VERSION = "discrepancy profile", 1
_KEY = "discrepancy"
SUFFIX = ".profile"
_AGAIN = "make the profile again"
_ARRAYS = ("knots", "mass", "short", "error", "blur")
_NUMBERS = ("below", "above", "missing", "mean", "square")


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise DataError(f"a profile needs the packages datasketches and safetensors: {INSTALL}") from None
    return safetensors


def is_profile(source: Any) -> bool:
    """Whether a source is a profile: an object, a path that ends in .profile, or a file that begins as one does."""
    if isinstance(source, Profile):
        return True
    if not isinstance(source, str | os.PathLike) or os.fspath(source) == "-":
        return False
    path = Path(os.fspath(source)).expanduser()  # type: ignore[arg-type]
    if not path.is_file():
        return path.suffix == SUFFIX and not any(c in str(path) for c in "*?[") and not path.is_dir()
    if path.suffix == SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head[8:9] == b"{" and FORMAT.encode() in head


def to_bytes(profile: Profile) -> bytes:
    """The file's content."""
    tensors: dict[str, np.ndarray] = {}
    columns = []
    for i, column in enumerate(profile.columns):
        record: dict[str, Any] = {
            "name": column.name, "kind": column.kind.value, "unit": column.unit, "natures": column.natures,
            "truths": column.truths, "codes": column.codes, "source": column.source, "note": column.note,
            "serial": column.serial, "moves": column.moves,
        }  # fmt: skip
        counts = column.counts
        tensors[f"{i}.sketch"] = np.frombuffer(counts.sketch, dtype=np.uint8)
        if isinstance(counts, OrderedCounts):
            record["ordered"] = {key: _number(getattr(counts, key)) for key in _NUMBERS} | {"complete": counts.complete}
            for key in _ARRAYS:
                if key in ("error", "blur") and not getattr(counts, key).any():
                    continue
                tensors[f"{i}.{key}"] = getattr(counts, key)
        else:
            record["levels"] = {"names": counts.names, "other": counts.other, "missing": counts.missing, "error": counts.error}
            tensors[f"{i}.counts"] = counts.counts
        columns.append(record)
    axes = None
    if profile.joint is not None:
        axes = []
        features = profile.joint.map.features
        tensors |= {
            "joint.sums": profile.joint.sums,
            "joint.sizes": profile.joint.sizes,
            "joint.frequencies": features.frequencies,
        }
        for i, axis in enumerate(profile.joint.map.axes):
            record = {"name": axis.name, "scale": axis.scale, "levels": axis.levels, "rare": axis.rare, "missing": axis.missing}
            if axis.ranks is not None:
                record["ranks"] = [axis.ranks.below, axis.ranks.above, axis.ranks.spread]
                tensors |= {f"axis.{i}.knots": axis.ranks.knots, f"axis.{i}.scores": axis.ranks.scores}
            axes.append(record)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": profile.name, "rows": profile.rows, "seed": profile.seed, "parts": profile.parts, "left_out": profile.left_out,
        "notes": profile.notes, "columns": columns, "axes": axes,
        "median": None if profile.joint is None else profile.joint.map.features.median,
    }  # fmt: skip
    # One key: the format keeps several in no fixed order, and the same profile is to be the same file.
    header = {_KEY: json.dumps(content, ensure_ascii=True, allow_nan=False)}
    contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    return _safetensors().numpy.save(contiguous, header)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # moments of numbers near the end of the range


def write_whole(path: Any, data: bytes) -> None:
    """Write a file whole or not at all: beside, then renamed."""
    target = Path(path)
    handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def load_profile(path: Any) -> Profile:
    """The profile in a file that `save` or `discrepancy profile` wrote.

    Raises DataError, in one sentence, for a file that is missing, no profile, damaged, or of a later version. The content is
    numbers and text: nothing in it is run.
    """
    if isinstance(path, Profile):
        return path
    name = Path(os.fspath(path)).name
    safetensors = _safetensors()
    try:
        data = Path(os.fspath(path)).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"the profile {os.fspath(path)} cannot be read: {(error.strerror or str(error)).lower()}") from None
    content = _header(data, name)
    if content.get("format") != FORMAT:
        raise DataError(f"{name} is not a profile: make one with discrepancy profile DATA -o {name}")
    if content.get("version") != VERSION:
        raise DataError(
            f"{name} is a profile of version {content.get('version')}, and this program reads version {VERSION}: "
            f"{_AGAIN}, or update the program"
        )
    try:
        tensors = safetensors.numpy.load(data)
        return _built(content, tensors)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception:  # whatever is wrong inside, the remedy is the same
        raise DataError(f"the profile {name} is cut off or damaged: copy it again, or {_AGAIN}") from None


def _header(data: bytes, name: str) -> dict[str, Any]:
    """Our record in the header of a safetensors file, which is eight bytes of length, then JSON; {} where there is none."""
    length = int.from_bytes(data[:8], "little") if len(data) >= 8 else 0
    if data[8:9] != b"{" or length < 2:
        raise DataError(f"{name} is not a profile: make one with discrepancy profile DATA -o {name}")
    try:
        if length > len(data) - 8:
            raise ValueError
        found = json.loads(json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(_KEY, "{}"))
    except (ValueError, AttributeError, TypeError):
        raise DataError(f"the profile {name} is cut off or damaged: copy it again, or {_AGAIN}") from None
    return found if isinstance(found, dict) else {}


def _need(holds: bool) -> None:
    if not holds:
        raise ValueError("inconsistent profile")


def _built(content: dict[str, Any], tensors: dict[str, np.ndarray]) -> Profile:
    columns = tuple(_column(record, i, tensors) for i, record in enumerate(content["columns"]))
    rows = int(content["rows"])
    _need(bool(columns) and all(round(column.counts.rows) == rows for column in columns))
    joint = None
    if content["axes"] is not None:
        axes = tuple(_axis(record, i, tensors) for i, record in enumerate(content["axes"]))
        frequencies, sums, sizes = (tensors[f"joint.{key}"] for key in ("frequencies", "sums", "sizes"))
        width = len(FACTORS) * FREQUENCIES
        _need(frequencies.shape == (sum(axis.width for axis in axes), width) and frequencies.dtype == np.float32)
        _need(sums.shape == (len(sizes), 2 * width) and bool((sizes > 0).all() and np.isfinite(sums).all()))
        joint = UnitSums(FrozenMap(axes, Features(frequencies, float(content["median"]))), sums, sizes)
    return Profile(
        str(content["name"]), rows, columns, joint, int(content["seed"]), int(content["parts"]),
        {str(k): str(v) for k, v in content["left_out"].items()}, tuple(map(str, content["notes"])),
    )  # fmt: skip


def _column(record: dict[str, Any], i: int, tensors: dict[str, np.ndarray]) -> ColumnProfile:
    sketch = tensors[f"{i}.sketch"].tobytes()
    counts: OrderedCounts | LevelCounts
    if "ordered" in record:
        knots, mass = tensors[f"{i}.knots"], tensors[f"{i}.mass"]
        zeros = np.zeros(len(knots))
        arrays = [tensors.get(f"{i}.{key}", zeros) for key in _ARRAYS]
        _need(all(a.shape == knots.shape and a.dtype == np.float64 and np.isfinite(a).all() for a in arrays))
        _need(bool((np.diff(knots) > 0).all() and (mass >= 0).all() and all((a >= 0).all() for a in arrays[2:])))
        numbers = {key: math.inf if record["ordered"][key] is None else float(record["ordered"][key]) for key in _NUMBERS}
        if sketch:
            restored("quantiles", sketch)
        counts = OrderedCounts(*arrays, complete=bool(record["ordered"]["complete"]), sketch=sketch, **numbers)
    else:
        levels = record["levels"]
        counted = tensors[f"{i}.counts"]
        names = tuple(map(str, levels["names"]))
        _need(counted.shape == (len(names),) and bool((counted >= 0).all()) and len(set(names)) == len(names))
        if sketch:
            restored("items", sketch)
        counts = LevelCounts(names, counted, float(levels["other"]), float(levels["missing"]), float(levels["error"]), sketch)
    truths = record["truths"]
    return ColumnProfile(
        str(record["name"]), Kind(record["kind"]), str(record["unit"]), counts, tuple(map(str, record["natures"])),
        None if truths is None else (str(truths[0]), str(truths[1])), bool(record["codes"]), record["source"], record["note"],
        (float(record["serial"][0]), int(record["serial"][1])), bool(record["moves"]),
    )  # fmt: skip


def _axis(record: dict[str, Any], i: int, tensors: dict[str, np.ndarray]) -> Axis:
    ranks = None
    if "ranks" in record:
        knots, scores = tensors[f"axis.{i}.knots"], tensors[f"axis.{i}.scores"]
        _need(knots.shape == scores.shape and bool((np.diff(knots) > 0).all()))
        ranks = RankMap(knots, scores, *map(float, record["ranks"]))
    levels = tuple(map(str, record["levels"]))
    return Axis(str(record["name"]), float(record["scale"]), ranks, levels, bool(record["rare"]), bool(record["missing"]))
