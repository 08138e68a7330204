"""README.md and the guide are true: their Python runs, their commands exist, their tables are the generated ones."""

import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_run(page, monkeypatch, tmp_path):
    from discrepancy import _registry

    monkeypatch.setattr(_registry, "_ADDED", {})
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    module = types.ModuleType("guide_page")  # classes of the examples are pickled, so their module must be importable
    monkeypatch.setitem(sys.modules, "guide_page", module)
    for block in blocks:
        exec(compile(block, page.name, "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_exist_with_their_options(page):
    from discrepancy.cli import build

    text = page.read_text()
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.S) for line in block.splitlines()]
    commands = [line.split("  #")[0] for line in lines if line.startswith(("discrepancy ", "$ discrepancy "))]
    app = build()
    for line in commands:
        tokens = shlex.split(line.removeprefix("$ "))[1:]
        known = subprocess.run(
            [sys.executable, "-m", "discrepancy.cli", tokens[0], "--help"], check=True, capture_output=True, text=True
        ).stdout
        assert tokens[0] in list(app), f"{page.name}: {line}"
        for token in tokens:
            if token.startswith("--"):
                assert token in known, f"{page.name}: {line} has no option {token}"


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:`|^)make ([a-z]+)\b", (ROOT / "README.md").read_text(), re.M))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_table_of_papers_is_the_generated_one():
    printed = subprocess.run(
        [sys.executable, "-m", "discrepancy.cli", "papers", "--markdown"], check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() in (ROOT / "README.md").read_text(), "run `make readme`"


def test_the_swap_table_is_the_committed_one():
    command = [sys.executable, "-m", "discrepancy.cli", "matrix", "--committed", "--markdown"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.strip() in (ROOT / "README.md").read_text(), "run `make readme`"
