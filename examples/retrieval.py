# ---
# jupyter:
#   jupytext: {formats: "ipynb,py:percent"}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Retrieval with features, indexes and the server
#
# Two towers read what is known of an item, so they rank items that nobody has had yet. A bundle holds their vectors and an
# index, and answers without the log. The server puts it behind a port; it needs `pip install 'seqcl[serve]'`.

# %%
import json
import subprocess
import sys
import urllib.request
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import seqcl
from seqcl.data import markov
from seqcl.retrieval.bundle import Bundle

# %% [markdown]
# ## A log, and a table of its items
#
# Each item has a kind, and people stay with a kind for a while. The table lists twelve items that are new: nobody has had them.

# %%
kinds = ["tea", "coffee", "cups", "books", "lamps"]
log = markov(users=700, items=60, length=14, branching=4, seed=2).interactions
rank = np.argsort(np.random.default_rng(0).random(60))
items = (log.items + 5 * (rank[log.items] % 12)) % 60  # the kind of an item is its number modulo 5
names = [f"item{number:02}" for number in range(72)]
table = pd.DataFrame({"kind": [kinds[number % 5] for number in range(72)]}, index=names)
table["price"] = [10.0 + 7 * (number % 5) + number % 3 for number in range(72)]
log = replace(log, items=items.astype(np.int32), item_ids=np.array(names[:60]), item_features=table)

# %%
run = seqcl.train(
    log,
    model="TwoTower",
    encoder={"dim": 16, "layers": 1},
    towers={"reads": "items"},
    train={"epochs": 4, "lr": 0.01, "batch_size": 256},
    eval={"exclude_seen": False},
    runs="runs",
    track="none",
    progress=False,
)
print(f"NDCG@10 on test: {run.metrics['test']['ndcg@10']:.3f}")

# %% [markdown]
# ## Items that nobody has had

# %%
more = run.with_new_items()
history = ["item00", "item05", "item10"]  # tea, tea, tea
print(table.loc[history, "kind"].tolist())
for item, score in more.recommend(items=history, k=3, allowed=names[60:]):
    print(item, table.loc[item, "kind"], f"{score:.3f}")

# %% [markdown]
# ## A bundle and its index
#
# The index is searched as narrowly as 0.95 of the exact lists allow; the manifest says what it finds and costs.

# %%
bundle = Bundle(more.export("bundle", index="hnsw", recall=0.95))
print(bundle.manifest["search"])
exact = more.recommend_many(histories=[[name] for name in names], k=10)
through = bundle.recommend_many([[name] for name in names], k=10)
found = [
    len({item for item, _ in one} & {item for item, _ in other}) / 10 for one, other in zip(exact, through, strict=True)
]
print(f"of the exact ten, the index finds {np.mean(found):.0%}")

# %% [markdown]
# ## The server
#
# `seqcl serve` prints its address once the bundle is open. It answers JSON with JSON: only new items, what is known of each,
# and which items of the history are nearest to it.

# %%
server = subprocess.Popen(
    [sys.executable, "-m", "seqcl", "serve", "shop=bundle", "--port", "0"], stdout=subprocess.PIPE, text=True
)
address = server.stdout.readline().partition(" ")[0]
question = {"items": [*history, "a stranger"], "k": 3, "allowed": names[60:], "details": True, "why": True}
try:
    request = urllib.request.Request(
        f"{address}/recommend", json.dumps(question).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        answer = json.load(reply)
finally:
    server.terminate()
    server.wait()
print(f"{address} does not know {answer['unknown']}")
for one in answer["items"]:
    print(one["item"], one["attributes"], "because of", [near["item"] for near in one["because"]])

# %% [markdown]
# ## The picture
#
# The vectors of all items on their two main axes. New items, with a black edge, lie among those of their kind.

# %%
vectors = bundle.vectors().clone()
_, _, axes = torch.pca_lowrank(vectors, q=2, niter=8)
places = ((vectors - vectors.mean(0)) @ axes).numpy()
figure, axis = plt.subplots(figsize=(7, 5), layout="constrained")
for number, kind in enumerate(kinds):
    own = np.array([table.loc[item, "kind"] == kind for item in bundle.item_ids.tolist()])
    new = own & np.isin(bundle.item_ids, names[60:])
    axis.scatter(*places[own].T, color=f"C{number}", s=40, label=kind)
    axis.scatter(*places[new].T, color=f"C{number}", s=70, edgecolors="black", marker="s")
axis.set(xticks=[], yticks=[], title="Items by the item tower; squares: nobody has had them")
axis.legend(frameon=False)
figure.savefig("retrieval.png", dpi=100)
