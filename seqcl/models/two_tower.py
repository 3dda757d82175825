"""Two towers with self-supervision by feature masks (Yao et al., CIKM 2021, arXiv 2007.12865)."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from seqcl import encoders
from seqcl.data.features import table_features
from seqcl.errors import UserError
from seqcl.models.base import Contrastive, Parts
from seqcl.objectives import BatchSoftmax, FeatureContrast, Objective, TwoViews
from seqcl.parts import FileName, part
from seqcl.types import Features, Windows


def known_features(
    train: Windows,
    *,
    items: str | None = None,
    users: str | None = None,
    item_table: Annotated[str | None, FileName()] = None,
    user_table: Annotated[str | None, FileName()] = None,
    min_count: int = 2,
) -> tuple[Features, Features]:
    """The features of items and users that the towers read.

    Args:
        items: columns of the item table, separated by commas; all of them if not given. With :words or :numbers behind its
            name, a column is read as these, whatever its cells look like.
        users: columns of the user table, separated by commas; all of them if not given.
        item_table: a file with more features of items: .csv, .tsv or .parquet with a column of ids, or .npz with an array
            `ids`; lists of numbers in Parquet and arrays of two dimensions are vectors, such as those of texts or images.
        user_table: the same for users.
        min_count: items or users that must have a word for it to be kept.
    """
    if train.tables is None:
        raise UserError("TwoTower: these windows have no tables of items and users")
    trained = np.zeros(train.num_users, bool)
    trained[train.users] = True
    met = train.item_counts()[1:-1] > 0
    return (
        table_features(train.tables, "items", met, items, table=item_table, min_count=min_count),
        table_features(train.tables, "users", trained, users, table=user_table, min_count=min_count),
    )


class TwoTower(Contrastive):
    """A tower for history and user, one for items, and items that must know themselves by half of their features (Yao et al. 2021, arXiv 2007.12865).

    Differs from the paper: the history goes through a sequence encoder, whose table is the items' id embedding; all positions
    of a row learn in one pass; a feature that is hidden is zero, where the paper has a learned default (`towers.masked`
    learned); views of histories may be contrasted too (`objective`, with weight 0 by default).
    """

    features = part(known_features)
    towers = part(encoders.TwoTower)
    next_item = part(BatchSoftmax)
    ssl = part(FeatureContrast)
    objective = part(TwoViews, weight=0.0, temperature=0.2)

    contrast_off = ("ssl.weight", "objective.weight")

    def make_encoder(self, train: Windows, parts: Parts) -> encoders.Encoder:
        history = super().make_encoder(train, parts)
        items, users = parts["features"](train)
        self.identity = {"features": items.fingerprint() + users.fingerprint()}
        return parts["towers"](history, items=items, users=users, trained=train.item_counts() > 0)

    def terms(self, encoder: encoders.Encoder, parts: Parts) -> dict[str, Objective]:
        ssl = parts["ssl"]()
        next_item, contrast = super().terms(encoder, parts).items()
        extra = {name: term for name, term in (("features", ssl), contrast) if term.weight}
        return dict([next_item]) | extra
