"""docs/recbole.md does what it says: its Python runs, its commands and its YAML resolve."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from seqcl.cli.main import main
from tests.recbole_world import OWN_WARNINGS, alone, recbole_or_skip

pytestmark = OWN_WARNINGS
__all__ = ["alone"]  # a fixture

PAGE = (Path(__file__).parents[1] / "docs" / "recbole.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(YAML,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^    ((?:python run\.py|seqcl data) .+)$", PAGE, re.MULTILINE)
TINY = '"epochs": 1, "user_inter_num_interval": "[20,22]", "state": "critical", "show_progress": False'
"""Takes the place of the page's epochs: one, over the hundred users of ml-100k who have few items."""


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_the_python_runs(alone, number, capsys):
    recbole_or_skip()
    assert '"epochs": 50' in PYTHON[number]
    exec(compile(PYTHON[number].replace('"epochs": 50', TINY), "docs/recbole.md", "exec"), {})
    assert "ndcg@10" in capsys.readouterr().out or number == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_resolve(alone, command, capsys):
    words = shlex.split(command)
    if "recbole:" in command:
        recbole_or_skip()
    if words[0] == "seqcl":
        assert main(words[1:]) == 0 and (alone / words[-1]).exists()
        return
    (alone / "recbole.yaml").write_text(YAML)
    (alone / "dataset" / "shop").mkdir(parents=True)
    assert main(["train", *words[2:], "--print_config"]) == 0
    assert "model: " in capsys.readouterr().out


def test_the_page_shows_what_there_is():
    assert len(PYTHON) == 2 and len(COMMANDS) == 5
