# ---
# jupyter:
#   jupytext: {formats: "ipynb,py:percent"}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A recipe of one's own
#
# `own_recipe_part.py`, beside this file, has a view, `Echo`, and a recipe, `EchoRec`. It edits nothing of seqcl: it registers both. Here we look
# at the view, run the checks that seqcl's own views pass, and compare the recipe with the same model without its term.
# On the command line it is `python run.py --plugin examples/own_recipe_part.py --model EchoRec`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import seqcl
from seqcl.plugins import load
from seqcl.types import SeqBatch

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
plugin = str(here / "own_recipe_part.py")
load(plugin)

# %% [markdown]
# ## The view
#
# A view takes a batch and gives a new one. All randomness comes from the generator.

# %%
from seqcl.augment import VIEWS  # noqa: E402

echo = VIEWS["Echo"](rate=0.5)
batch = SeqBatch(torch.tensor([[3, 1, 4, 1, 5, 0], [9, 2, 6, 0, 0, 0]]), torch.tensor([5, 3]))
print(echo(batch, torch.Generator().manual_seed(1)).items)

# %% [markdown]
# ## The checks
#
# Lengths of one item, the same rows from one seed, no change of the batch that it was given, and more.

# %%
from seqcl.testing import check_view  # noqa: E402

check_view(echo)

# %% [markdown]
# ## Does it help?
#
# One seed says little; `seqcl benchmark` runs several, and tests the difference. The baseline takes the same options.

# %%
run = seqcl.train(
    "markov",
    model="EchoRec",
    baseline="SASRec,CL4Rec",
    encoder={"dim": 16, "layers": 1},
    data={"windows": "last"},
    train={"epochs": 2, "lr": 0.01, "batch_size": 256},
    eval={"exclude_seen": False},
    runs="runs",
    track="none",
    progress=False,
)
figures = {"EchoRec": run.metrics["test"]["ndcg@10"]}
figures |= {name: own["test"]["ndcg@10"] for name, own in run.metrics["baselines"].items()}
again = seqcl.load(run.folder, plugins=[plugin])  # nothing is imported because a run says so
assert again.recommend(user=3, k=3) == run.recommend(user=3, k=3)

# %% [markdown]
# ## The picture

# %%
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
names = sorted(figures, key=lambda name: figures[name])
bars = axis.barh(
    names, [figures[name] for name in names], color=["C1" if name == "EchoRec" else "C7" for name in names]
)
axis.bar_label(bars, fmt=" %.3f")
axis.margins(x=0.1)
axis.set(xlabel="NDCG@10, test, one seed", title="A recipe of one's own beside others")
axis.spines[["top", "right"]].set_visible(False)
figure.savefig("own_recipe.png", dpi=100)
