"""The command line's promises: exit codes, one sentence on standard error, nothing half-written, quick help."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from discrepancy.cli import _COMMANDS, failures, main, run
from discrepancy.cli.output import check_writable, one_stream, write
from discrepancy.comparison.errors import DataError, OptionError

COMMAND = [sys.executable, "-m", "discrepancy.cli"]


def call(*tokens: str, **options: object) -> subprocess.CompletedProcess[str]:
    """One run of the program, as a user's shell would."""
    return subprocess.run([*COMMAND, *tokens], capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, str]:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    one.write_text("x,y\n" + "".join(f"{k},{k % 3}\n" for k in range(40)))
    other.write_text("x,y\n" + "".join(f"{k + 30},{k % 3}\n" for k in range(40)))
    return str(one), str(other)


def code_of(*tokens: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(tokens)
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (failures.UsageError("no such thing"), 2),
        (OptionError("level must be between 0 and 1, got 2"), 2),
        (DataError("a.csv, line 3: two cells where the header has three"), 3),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 3),
        (PermissionError(13, "Permission denied", "out.html"), 3),
        (MemoryError(), 3),
        (ModuleNotFoundError("reading Parquet needs pyarrow: pip install 'discrepancy[io]'"), 3),
        (ArithmeticError("the map returned NaN at step 3"), 4),
        (FloatingPointError("overflow"), 4),
        (RuntimeError("a bug"), 4),
        (KeyboardInterrupt(), 130),
        (SystemExit(2), 2),
        (SystemExit(None), 0),
    ],
)
def test_every_failure_has_its_code_and_one_sentence(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise error

    assert failures.guarded(fail) == code
    said = capsys.readouterr().err
    if not isinstance(error, SystemExit):
        assert said.count("\n") == 1
        assert said.startswith("discrepancy: ")
        assert said.rstrip().endswith((".", "!", "?"))
    assert "Traceback" not in said


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise DataError("first\nsecond   third")

    failures.guarded(fail)
    assert capsys.readouterr().err == "discrepancy: first second third.\n"


def test_a_warning_is_one_line_without_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    def doubtful() -> int:
        warnings.warn("the iteration stopped early\nat step 3", stacklevel=1)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert failures.guarded(doubtful) == 0
    assert capsys.readouterr().err == "discrepancy: warning: the iteration stopped early at step 3.\n"


def test_numerical_errors_of_the_library_are_code_4() -> None:
    from discrepancy import NumericalError

    def fail() -> int:
        raise NumericalError("a normaliser of zero in step 2")

    assert failures.guarded(fail) == 4


@pytest.mark.parametrize(
    "tokens",
    [
        ("cmopare", "a", "b"),
        ("--jsn",),
        ("compare", "a.csv"),
        ("compare", "a.csv", "b.csv", "c.csv"),
        ("compare", "a.csv", "b.csv", "--jsn", "x"),
        ("compare", "a.csv", "b.csv", "--level", "many"),
        ("compare", "a.csv", "b.csv", "--level", "2"),
        ("compare", "a.csv", "b.csv", "--correction", "magic"),
        ("compare", "a.csv", "b.csv", "--kind", "zip"),
        ("compare", "a.csv", "b.csv", "--kind", "zip=postcode"),
        ("compare", "a.csv", "b.csv", "--block", "often"),
        ("compare", "a.csv", "b.csv", "--columns", " , "),
        ("compare", "a.csv", "b.csv", "--json", "-", "--html", "-"),
        ("compare", "-", "-"),
        ("compare", "a.csv", "b.csv", "--config", "nowhere.toml"),
        ("compare", "a.csv", "b.csv", "--seed", "-1"),
        ("compare", "a.csv", "b.csv", "--delta", "-0.1"),
    ],
)
def test_usage_errors(
    tokens: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of(*tokens) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1


def test_a_close_name_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("compar") == 2
    assert "did you mean 'compare'?" in capsys.readouterr().err


def test_missing_files_are_data_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert code_of("compare", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")) == 3
    said = capsys.readouterr().err
    assert "a.csv" in said
    assert said.count("\n") == 1


def test_an_output_folder_that_does_not_exist_is_refused_before_any_work(
    tables: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("compare", "nowhere.csv", "nowhere.csv", "--html", "/no/such/folder/report.html") == 3
    assert "/no/such/folder" in capsys.readouterr().err


def test_a_read_only_folder_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the refusal of the system is imitated where the tests run as root.
    import tempfile

    def refuse(**_: object) -> tuple[int, str]:
        raise PermissionError(13, "Permission denied", "/dev/null/.x")

    folder = tmp_path / "fixed"
    folder.mkdir()
    folder.chmod(0o555)
    if os.geteuid() == 0:
        monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert code_of("compare", "a.csv", "b.csv", "--json", str(folder / "x.json")) == 3
    assert capsys.readouterr().err == f"discrepancy: {folder}: cannot write into this folder (permission denied).\n"


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    write(str(target), "old\n")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(str(target), "new\n")
    assert target.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write(str(tmp_path / "ours"), "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "x.json"))
    assert os.listdir(tmp_path) == []
    with pytest.raises(IsADirectoryError):
        check_writable(str(tmp_path))


def test_two_documents_in_one_place_are_refused() -> None:
    with pytest.raises(failures.UsageError):
        one_stream("a.json", "a.json")
    one_stream("a", "b", "-")


@pytest.mark.parametrize("tokens", [("--help",), ("compare", "--help"), ("--version",), ()])
def test_help_loads_nothing_heavy(tokens: tuple[str, ...]) -> None:
    script = (
        "import sys; from discrepancy.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'jinja2', 'pandas', 'numba', 'narwhals'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script, *tokens], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_is_quick() -> None:
    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        call("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, the best of three: what else runs on the machine is not what is promised.
    assert min(once() for _ in range(3)) < 0.4


def test_every_command_has_a_module_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    for name in _COMMANDS:
        run([name, "--help"])
        assert f"discrepancy {name}" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error() -> None:
    shell = f"set -o pipefail; {sys.executable} -m discrepancy.cli schema | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_control_c_ends_with_130_and_no_partial_file(tables: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    started = subprocess.Popen(
        [*COMMAND, "compare", tables[0], "-", "--html", str(out / "r.html"), "--json", str(out / "r.json")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(3)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=30)
    assert started.returncode == 130
    assert said == "discrepancy: interrupted; nothing was left half-written.\n"
    assert os.listdir(out) == []
