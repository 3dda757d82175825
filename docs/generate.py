"""Write the generated tables of README.md and of the pages: python docs/generate.py

A page names a table between two lines, `<!-- generated: NAME -->` and `<!-- end -->`; what lies between them is written anew. Tables of
models, parts and options come from the code, tables of figures from benchmarks/measured/ and from the heads of configs/.
With --check nothing is written: stale pages are named, and the exit code is 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs import layouts  # noqa: E402
from docs import tables_of_contrast as of_contrast  # noqa: E402
from docs import tables_of_models as of_models  # noqa: E402
from docs import tables_of_options as of_options  # noqa: E402
from docs import tables_of_results as of_results  # noqa: E402
from docs.marked import table  # noqa: E402

MARKED = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {
    "README results": of_results.readme_results,
    "README models": of_models.readme_models,
    "models": of_models.models,
    "configurations": of_models.configurations,
    "differences": of_models.differences,
    "encoders": of_models.listed("encoder"),
    "views": of_models.listed("view"),
    "objectives": of_models.listed("objective"),
    "losses": of_models.listed("loss"),
    "metrics": of_models.listed("metric"),
    "results on Beauty": lambda: of_results.results("beauty"),
    "first seeds on Beauty": lambda: of_results.results("beauty", few=True),
    "results on LastFM": lambda: of_results.results("lastfm"),
    "results on Sports": lambda: of_results.results("sports"),
    "benchmarks": of_results.all_benchmarks,
    "contrast by data": of_contrast.contrast_by_data,
    "when contrast helps": of_contrast.when_contrast_helps,
    "other results on Beauty": lambda: of_results.other_results("Beauty"),
    "other results on ml-1m": lambda: of_results.other_results("ml-1m"),
    "results on ml-100k": lambda: of_results.results("ml-100k"),
    "shared options": of_options.shared_options,
    "recipe options": of_options.recipe_options,
    "component options": of_options.component_options,
    "layouts": lambda: table("file | first line (→ is a tab) | what seqcl says", layouts.rows()),
}
"""The names that may stand behind `generated:`."""


def fresh(text: str) -> str:
    """A page with its tables written anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", text)


def pages(root: Path = ROOT) -> list[Path]:
    """The files that may hold generated tables."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def stale(root: Path = ROOT) -> dict[Path, str]:
    """The pages that differ from what is generated, with what they should hold."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages(root)}
    return {page: fresh(text) for page, text in texts.items() if fresh(text) != text}


def main() -> int:
    found = stale()
    checking = "--check" in sys.argv[1:]
    for page, text in found.items():
        print(f"{page.relative_to(ROOT)} {'is stale' if checking else 'is written'}")
        if not checking:
            page.write_text(text, encoding="utf-8", newline="\n")
    return int(checking and bool(found))


if __name__ == "__main__":
    sys.exit(main())
