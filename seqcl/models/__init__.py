"""Recipes: each paper is one short file that composes an encoder, views and objectives."""

from seqcl.models.base import Baseline, Recommender
from seqcl.models.cl4rec import CL4Rec
from seqcl.models.gru4rec import GRU4Rec
from seqcl.models.item_knn import ItemKNN
from seqcl.models.popularity import Popularity
from seqcl.models.sasrec import SASRec

MODELS = {
    "CL4Rec": CL4Rec,
    "CL4SRec": CL4Rec,
    "SASRec": SASRec,
    "GRU4Rec": GRU4Rec,
    "ItemKNN": ItemKNN,
    "Popularity": Popularity,
}
"""What `--model` takes; a new recipe is one file and one row here."""

__all__ = ["MODELS", "Baseline", "CL4Rec", "GRU4Rec", "ItemKNN", "Popularity", "Recommender", "SASRec"]
