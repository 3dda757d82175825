"""Draw a finished run for README as it looks in a terminal: python docs/picture.py RUN

Writes docs/images/run.svg from the run's log and metrics, and copies its curves to docs/images/curves.png. The pictures there are of
`python run.py --config configs/ml-100k-cl4rec.yaml --baseline SASRec`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seqcl.report import print_results  # noqa: E402

IMAGES = ROOT / "docs" / "images"
COMMAND = "python run.py --config configs/ml-100k-cl4rec.yaml --baseline SASRec"
WIDTH = 106


def epochs(log: str) -> list[str]:
    """The first two epochs of the first model and its last, as the log has them."""
    lines = re.findall(r"INFO (epoch .*?)(?:  at most .*)?$", log, re.MULTILINE)
    first = next(
        place for place in range(1, len(lines)) if lines[place].startswith("epoch 1/")
    )  # where a baseline begins
    return [*lines[:2], "...", lines[first - 1]]


def results(run: Path) -> str:
    """The table at the end of the run, with its colours."""
    os.environ |= {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    with redirect_stdout(io.StringIO()) as out:
        print_results(json.loads((run / "metrics.json").read_text(encoding="utf-8")), Path("runs") / run.name)
    return out.getvalue()


def main() -> None:
    run = Path(sys.argv[1])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(f"[bold green]$[/] {COMMAND}", highlight=False)
    for line in epochs((run / "log.txt").read_text(encoding="utf-8")):
        console.print(line, highlight=False, no_wrap=True, crop=True)
    console.print(Text.from_ansi("\n" + results(run)))
    picture = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="seqcl", unique_id="run"), flags=re.DOTALL)
    IMAGES.mkdir(exist_ok=True)
    lines = [line.rstrip() for line in picture.splitlines()]
    (IMAGES / "run.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copyfile(run / "curves.png", IMAGES / "curves.png")


if __name__ == "__main__":
    main()
