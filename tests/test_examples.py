"""The notebooks run from an empty folder, and each ends in a picture."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests import processes

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = ["from_csv", "own_recipe", "retrieval"]


def notebook(name):
    """Run it, in a process of its own, as it registers parts; then ask what it made."""
    import matplotlib

    matplotlib.use("Agg")
    world = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    if name == "from_csv":
        assert world["popularity"] < 0.5 * world["run"].metrics["test"]["ndcg@10"] < world["best"]
    if name == "own_recipe":
        assert set(world["figures"]) == {"EchoRec", "SASRec", "CL4Rec", "Popularity"}
    if name == "retrieval":
        best = world["more"].recommend(items=world["history"], k=2, allowed=world["names"][60:])
        assert [world["table"].loc[item, "kind"] for item, _ in best] == ["tea", "tea"]
        answer = world["answer"]
        assert [one["item"] for one in answer["items"][:2]] == [item for item, _ in best]
        assert [one["attributes"]["kind"] for one in answer["items"][:2]] == ["tea", "tea"]
        assert answer["model"] == "shop" and answer["unknown"] == ["a stranger"]
        assert world["server"].returncode is not None
    return 0


@pytest.mark.once
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_ends_in_a_picture(name, tmp_path):
    from matplotlib.image import imread

    done = processes.run(notebook, name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    drawn = imread(tmp_path / f"{name}.png")
    colours = {tuple(pixel) for pixel in drawn[::5, ::5].reshape(-1, drawn.shape[2]).tolist()}
    assert drawn.shape[1] == 700 and len(colours) > 5


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_the_cells_of_jupytext(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert text.startswith("# ---\n# jupyter:\n") and len(re.findall(r"^# %%", text, re.MULTILINE)) > 6
