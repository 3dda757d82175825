"""Two towers with self-supervision by feature masks (Yao et al., CIKM 2021, arXiv 2007.12865)."""

from __future__ import annotations

from functools import partial

import numpy as np

from seqcl import encoders
from seqcl.augment import Pair
from seqcl.data.features import table_features
from seqcl.errors import UserError
from seqcl.models.base import Recommender
from seqcl.models.cl4rec import crop_mask_reorder
from seqcl.objectives import BatchSoftmax, FeatureContrast, TwoViews
from seqcl.types import Features, Windows


def known_features(
    train: Windows,
    *,
    items: str | None = None,
    users: str | None = None,
    item_table: str | None = None,
    user_table: str | None = None,
    min_count: int = 2,
) -> tuple[Features, Features]:
    """What is taken from the tables of items and users.

    Args:
        items: columns of the item table, separated by commas; all of them if not given. With :words or :numbers behind its name, a
            column is read as these, whatever its cells look like.
        users: columns of the user table, separated by commas; all of them if not given.
        item_table: a file that says more of items: .csv, .tsv or .parquet with a column of ids, or .npz with an array `ids`;
            lists of numbers in Parquet and arrays of two dimensions are vectors, such as those of texts or images.
        user_table: the same for users.
        min_count: items or users that must have a word for it to be kept.
    """
    if train.tables is None:
        raise UserError("TwoTower: these windows do not tell what is known of items and users")
    trained = np.zeros(train.num_users, bool)
    trained[train.users] = True
    met = train.item_counts()[1:-1] > 0
    return (
        table_features(train.tables, "items", met, items, table=item_table, min_count=min_count),
        table_features(train.tables, "users", trained, users, table=user_table, min_count=min_count),
    )


class TwoTower(Recommender):
    """A tower for history and user, one for items, and items that must know themselves by half of their features (Yao et al. 2021, arXiv 2007.12865).

    Differs from the paper: the history goes through a sequence encoder, whose table is the items' id embedding; all positions
    of a row are learned in one pass; views of histories may be contrasted too (`objective`, of weight 0 unless it is given one).
    """

    def __init__(
        self,
        train: Windows,
        *,
        encoder: partial[encoders.SASRec] = partial(encoders.SASRec),
        features: partial[tuple[Features, Features]] = partial(known_features),
        towers: partial[encoders.TwoTower] = partial(encoders.TwoTower),
        next_item: partial[BatchSoftmax] = partial(BatchSoftmax),
        ssl: partial[FeatureContrast] = partial(FeatureContrast),
        views: partial[Pair] = partial(crop_mask_reorder),
        objective: partial[TwoViews] = partial(TwoViews, weight=0.0, temperature=0.2),
    ) -> None:
        history = encoder(num_items=train.num_items, max_len=train.max_len)
        items, users = features(train)
        built = towers(history, items=items, users=users, trained=train.item_counts() > 0)
        terms = {"features": ssl(), "contrast": objective(views=views(), dim=built.dim)}
        terms = {name: term for name, term in terms.items() if term.weight}
        super().__init__(train, encoder=built, next_item=next_item(), **terms)
        self.identity = {"features": items.fingerprint() + users.fingerprint()}
