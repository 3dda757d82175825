# ---
# jupyter:
#   jupytext: {formats: "ipynb,py:percent"}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # From a CSV to recommendations
#
# A shop has a log: who took what, and when. We train a model on it, see how good it is, and ask it.
# `jupytext --to ipynb examples/from_csv.py` makes a notebook of this file; `python examples/from_csv.py` runs it in half a minute.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import seqcl
from seqcl.data import markov

# %% [markdown]
# ## The log
#
# Yours is a file that you have. This one is drawn from a chain: after each item one of three others follows. So the best
# score that any model can reach is known.

# %%
chain = markov(users=800, items=60, length=14, branching=3, seed=1)
log = chain.interactions
rows = pd.DataFrame(
    {
        "customer": [f"c{user:04}" for user in log.users],
        "product": [f"B{item:03}" for item in log.items],
        "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(log.users)) % 300, unit="D"),
    }
)
Path("shop.csv").write_text(rows.to_csv(index=False), encoding="utf-8")
print(rows.head())

# %% [markdown]
# ## Train
#
# Columns are found by their names and content, and seqcl says which it took. `order` is `file` here: the rows of a user stand
# in time order already. In this shop people take an item again, so seen items stay in the ranking.

# %%
run = seqcl.train(
    "shop.csv",
    model="CL4Rec",
    encoder={"dim": 32},
    data={"user": "customer", "item": "product", "order": "file"},
    train={"epochs": 8, "lr": 0.005},
    eval={"exclude_seen": False},
    runs="runs",
    track="none",
    progress=False,
)
popularity = run.metrics["baselines"]["Popularity"]["test"]["ndcg@10"]
print(f"NDCG@10 on test: {run.metrics['test']['ndcg@10']:.3f}; what is popular gives {popularity:.3f}")
print(run.metrics["protocol"])  # a figure without these means little

# %% [markdown]
# ## Ask
#
# A customer of the log, a stranger with a history, and only what is in stock. Ids that the log lacks are left out and named.

# %%
print(run.recommend(user="c0007", k=3))
print(run.recommend(items=["B001", "B007", "not-a-product"], k=3))
stock = [f"B{item:03}" for item in range(0, 60, 2)]
print(run.recommend(items=["B001", "B007"], k=3, allowed=stock))
for own in run.recommend_many(users=["c0001", "c0002", "c0003"], k=2):
    print(own)

# %% [markdown]
# ## The picture
#
# Validation after each epoch, between what is popular and the best that can be reached.

# %%
history = pd.read_csv(run.folder / "history.csv")
best = chain.ceiling(run.split.valid, np.array([int(item[1:]) for item in run.sequences.item_ids]), ks=(10,))["ndcg@10"]
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.plot(history["epoch"], history["valid_ndcg@10"], "o-", label="CL4Rec")
axis.axhline(best, color="C2", linestyle="--", label="best possible")
axis.axhline(run.metrics["baselines"]["Popularity"]["valid"]["ndcg@10"], color="C7", linestyle=":", label="Popularity")
axis.set(xlabel="epoch", ylabel="NDCG@10, validation", ylim=(0, 1.05 * best), title="From a CSV to recommendations")
axis.legend(frameon=False)
axis.spines[["top", "right"]].set_visible(False)
figure.savefig("from_csv.png", dpi=100)
