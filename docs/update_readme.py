"""Write the generated parts of README.md: the demo's output, the swap table, the peers' table and the papers.   make readme"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(*tokens: str) -> str:
    """What `discrepancy TOKENS` prints."""
    return subprocess.run([sys.executable, "-m", "discrepancy.cli", *tokens], check=True, capture_output=True, text=True).stdout


def filled(text: str, name: str, content: str) -> str:
    """README's text with the part between the markers of `name` replaced."""
    head, _, rest = text.partition(f"<!-- {name} -->\n")
    _, _, tail = rest.partition(f"<!-- /{name} -->")
    return f"{head}<!-- {name} -->\n{content.strip()}\n<!-- /{name} -->{tail}"


def demo() -> str:
    """The demo's output as a code block, with the folder that `make demo` uses."""
    with tempfile.TemporaryDirectory() as folder:
        return f"```\n{command('demo', '--output', folder).replace(folder, 'demo').strip()}\n```"


def main() -> None:
    file = ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    text = filled(text, "papers", command("papers", "--markdown"))
    if (ROOT / "src/discrepancy/recipes/findings/matrix.json").exists():
        text = filled(text, "matrix", command("matrix", "--committed", "--markdown"))
    if "--all" in sys.argv:
        text = filled(text, "demo", demo())
        results = ROOT / "benchmarks" / "results"
        # The last four exist once their benchmarks have run.
        names = ("README.md", "transport_summary.md", "structured_summary.md", "divergences_summary.md", "information_summary.md")
        measured = [results / name for name in names]
        text = filled(text, "compares", "\n".join(file.read_text(encoding="utf-8") for file in measured if file.exists()))
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
