"""`discrepancy profile`: a data set summed up in a small file that compares and merges in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from discrepancy.cli.failures import UsageError
from discrepancy.cli.output import check_writable, emit, write

if TYPE_CHECKING:
    from discrepancy.comparison.profile import Profile


def profile(
    *data: str,
    output: Annotated[Path, Parameter(alias="-o")],
    like: Path | None = None,
    columns: Annotated[list[str] | None, Parameter(negative="")] = None,
    kind: Annotated[list[str] | None, Parameter(negative="")] = None,
    seed: int = 0,
    memory: float = 1.0,
    quiet: Annotated[bool, Parameter(alias="-q", negative="", show_default=False)] = False,
) -> int:
    """Sum up a data set in a small file that `compare` takes in its place, or merge such files.

    `discrepancy profile DATA -o ref.profile` reads the data twice, in little memory. `discrepancy profile merge A.profile
    B.profile -o AB.profile` (or without the word merge) is the profile of the rows of both. A profile holds no row of the
    data, but it does hold level names and the smallest and largest values.

    Parameters
    ----------
    data
        A csv, tsv, json lines, npy, npz, Parquet or Arrow file (or .gz of one), a folder, a quoted glob, or - for standard
        input; or two profiles and more, to merge.
    output
        The file to write, by custom with the ending .profile.
    like
        Take kinds, cells and the joint map from this profile, so that the two compare and merge without interpolation
        and have a joint test.
    columns
        Profile these columns only: names separated by commas.
    kind
        Override a detected kind, as name=kind; can be repeated.
    seed
        Seed of all random numbers (0).
    memory
        GiB that the program may hold (1.0).
    quiet
        Say nothing but errors.
    """
    target = str(output)
    if target == "-":
        raise UsageError("a profile is a binary file: name one with -o, for example -o ref.profile")
    check_writable(target)
    sources = list(data)
    asked = len(sources) > 1 and sources[0] == "merge" and not Path("merge").exists()
    if asked:
        sources = sources[1:]
    if not sources:
        raise UsageError("profile takes a data set: discrepancy profile DATA -o ref.profile")

    from discrepancy.comparison.profile import is_profile, load_profile, merge
    from discrepancy.comparison.profile.store import to_bytes

    if asked or all(is_profile(source) for source in sources):
        if like is not None or columns is not None or kind is not None:
            raise UsageError("merging takes profiles as they are: --like, --columns and --kind go with making one")
        if len(sources) < 2:
            raise UsageError(f"{sources[0]} is a profile already: name two or more to merge, or a data set")
        made = merge([load_profile(source) for source in sources], output.stem)
    else:
        made = _made(sources, like, columns, kind, seed, memory)
    write(target, to_bytes(made))
    if not quiet:
        emit(
            f"Wrote {target}: {made.rows:,} rows, {len(made.columns)} columns. Use it with: discrepancy compare {target} CURRENT"
        )
        for note in made.notes:
            emit(f"Note: {note}")
    return 0


def _made(
    sources: list[str], like: Path | None, columns: list[str] | None, kind: list[str] | None, seed: int, memory: float
) -> Profile:
    from discrepancy.cli.compare import column_names, kinds_by_name
    from discrepancy.comparison.errors import OptionError
    from discrepancy.comparison.model import Options
    from discrepancy.comparison.profile import load_profile, profile

    if len(sources) > 1:
        raise UsageError(
            f"profile takes one data set, got {len(sources)}: name a folder or a quoted glob, or merge profiles of the parts"
        )
    if like is not None and kind is not None:
        raise UsageError("--like fixes the kinds: leave out --kind")
    try:
        # The same checks and messages as those of compare.
        options = Options(columns=column_names(columns), kinds=kinds_by_name(kind) or {}, seed=seed, memory=memory)  # type: ignore[arg-type]
    except OptionError as error:
        raise UsageError(str(error)) from None
    return profile(
        sources[0],
        like=None if like is None else load_profile(like),
        columns=options.columns,
        kinds=options.kinds,
        seed=options.seed,
        memory=options.memory,
    )
