"""What stands in for free text: its length and the shares of its character classes, as ordered columns of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from discrepancy.comparison.model import Column, ColumnPair, Kind

_SPACE, _DIGIT, _UPPER, _LOWER, _OTHER_LETTER, _SIGN = range(6)
SHARES: dict[str, tuple[int, ...]] = {
    "letters": (_UPPER, _LOWER, _OTHER_LETTER),
    "capitals": (_UPPER,),
    "digits": (_DIGIT,),
    "spaces": (_SPACE,),
    "signs": (_SIGN,),
}


def _class_of(character: str) -> int:
    if character.isspace():
        return _SPACE
    if character.isdigit():
        return _DIGIT
    if character.isupper():
        return _UPPER
    if character.islower():
        return _LOWER
    return _OTHER_LETTER if character.isalpha() else _SIGN


_ASCII = np.array([_class_of(chr(i)) for i in range(128)], dtype=np.intp)


def _measure(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths (n,), counts by class (n, 6), characters beyond ASCII (n,)."""
    n = len(texts)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=n)
    joined = "".join(texts)
    points = np.frombuffer(joined.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    classes = _ASCII[np.minimum(points, 127)]
    beyond = points > 127
    if beyond.any():
        others, place = np.unique(points[beyond], return_inverse=True)
        classes[beyond] = np.array([_class_of(chr(int(c))) for c in others], dtype=np.intp)[place]
    owner = np.repeat(np.arange(n), lengths)
    counts = np.bincount(owner * 6 + classes, minlength=6 * n).reshape(n, 6)
    return lengths, counts, np.bincount(owner[beyond], minlength=n)


def text_statistics(texts: Sequence[str], missing: np.ndarray) -> dict[str, Column]:
    """Length in characters, and the share of letters, capitals, digits, spaces, other signs and characters beyond ASCII.

    NaN where the text is missing. Linear in characters; read in runs of about a million characters.
    """
    names = ["length", *SHARES, "non-ASCII"]
    out = {name: np.empty(len(texts)) for name in names}
    start = 0
    while start < len(texts):
        stop, held = start, 0
        while stop < len(texts) and (held < 1_000_000 or stop == start):
            held += len(texts[stop])
            stop += 1
        lengths, counts, beyond = _measure(texts[start:stop])
        some = np.maximum(lengths, 1)
        out["length"][start:stop] = lengths
        for name, classes in SHARES.items():
            out[name][start:stop] = counts[:, classes].sum(axis=1) / some
        out["non-ASCII"][start:stop] = beyond / some
        start = stop
    return {name: Column(np.where(missing, np.nan, values), missing.copy()) for name, values in out.items()}


def derived_pairs(
    name: str,
    texts: tuple[Sequence[str], Sequence[str]],
    missing: tuple[np.ndarray, np.ndarray],
    taken: set[str],
    note: str | None = None,
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> list[ColumnPair]:
    """The columns that a text column is compared by, each with `source` set to its name.

    `embed` maps texts to rows of a sentence embedding; its leading principal coordinates over both tables follow the
    statistics. A share that is one constant in both tables is dropped. `taken`: names that are in use.
    """
    statistics = [text_statistics(side, gone) for side, gone in zip(texts, missing)]
    pairs = []
    for statistic in statistics[0]:
        one, two = statistics[0][statistic], statistics[1][statistic]
        values = np.concatenate([one.values[~one.missing], two.values[~two.missing]])
        if statistic != "length" and (not len(values) or (values == values[0]).all()):
            continue
        length = statistic == "length"
        pairs.append(
            ColumnPair(
                name=_free(f"{name}: {statistic}", taken),
                kind=Kind.INTEGER if length else Kind.NUMERIC,
                reference=one,
                current=two,
                unit="characters" if length else "share of characters",
                source=name,
                note=note if length else None,
            )
        )
    if embed is not None:
        pairs += _embedded(name, texts, missing, taken, embed)
    return pairs


def _embedded(
    name: str,
    texts: tuple[Sequence[str], Sequence[str]],
    missing: tuple[np.ndarray, np.ndarray],
    taken: set[str],
    embed: Callable[[Sequence[str]], np.ndarray],
    leading: int = 8,
) -> list[ColumnPair]:
    present = [[t for t, gone in zip(side, mask.tolist()) if not gone] for side, mask in zip(texts, missing)]
    if not all(present):
        return []
    rows = [embed(side).astype(np.float64) for side in present]
    pooled = np.concatenate(rows)
    # Axes from the pooled rows only, so that swapping rows between the tables leaves them where they are.
    centred = pooled - pooled.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, : min(leading, pooled.shape[1], max(1, len(pooled) - 1))]
    # The sign of an eigenvector is arbitrary: its largest entry is made positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    pairs = []
    for j in range(axes.shape[1]):
        columns = []
        for side, mask in zip(rows, missing):
            values = np.full(len(mask), np.nan)
            values[~mask] = (side - pooled.mean(axis=0)) @ axes[:, j]
            columns.append(Column(values, mask.copy()))
        label = _free(f"{name}: embedding {j + 1}", taken)
        pairs.append(ColumnPair(label, Kind.NUMERIC, columns[0], columns[1], source=name))
    return pairs


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "'"
    taken.add(name)
    return name
