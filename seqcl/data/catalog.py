"""The catalogue of data sets that have a name: where each is published, with which hash."""

from __future__ import annotations

from dataclasses import dataclass

S3REC = "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/2a81540ae18615d88ef88227b0c066e5b74781e5/data"
ICSREC = "https://raw.githubusercontent.com/QinHsiu/ICSRec/3c8958fa76aa57278778f8e82e8c7f983a4a1346/data"


@dataclass(frozen=True)
class DataSet:
    """A data set that is published, or made on the spot.

    Args:
        description: one line about it.
        url: address of its file; empty if it is made on the spot.
        hash: hash of this file, as ALGORITHM:HEX.
        attributes: hash of the file of item attributes that is published beside it; empty if there is none.
    """

    description: str
    url: str = ""
    hash: str = ""
    attributes: str = ""


DATASETS = {
    "ml-100k": DataSet(
        "MovieLens 100K, 943 users; GroupLens; not to be passed on",
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        "md5:0e33842e24a9c977be4e0107933c0723",
    ),
    "ml-1m": DataSet(
        "MovieLens 1M, 6,040 users, as SASRec prepared it; GroupLens; not to be passed on",
        f"{ICSREC}/ml-1m.txt",
        "sha256:f939258a859d16e43055e80bf8f7d66aeae3805fa21cb1b999fbafa9c6c5694b",
    ),
    "Beauty": DataSet(
        "Amazon reviews 2014, 5-core, 22,363 users",
        f"{S3REC}/Beauty.txt",
        "sha256:226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        "sha256:129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4",
    ),
    "Sports_and_Outdoors": DataSet(
        "Amazon reviews 2014, 5-core, 35,598 users",
        f"{S3REC}/Sports_and_Outdoors.txt",
        "sha256:2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        "sha256:7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b",
    ),
    "Toys_and_Games": DataSet(
        "Amazon reviews 2014, 5-core, 19,412 users",
        f"{S3REC}/Toys_and_Games.txt",
        "sha256:176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f",
        "sha256:d371acd25101eedac04afc727626464b7acec770c4eda708705d51eb76eb1ad0",
    ),
    "Yelp": DataSet(
        "Yelp reviews of 2019, 5-core, 30,431 users",
        f"{S3REC}/Yelp.txt",
        "sha256:724b219106b81dd2349027da997334ddb6da9fe2f152ad6e0d97a93170f7caed",
        "sha256:f25acd5e1e680e0b22fd4e3f4fb6be4b2a7461e9222610616e3e1ee6702dd58d",
    ),
    "LastFM": DataSet(
        "HetRec 2011 listening, 1,090 users",
        f"{S3REC}/LastFM.txt",
        "sha256:9ded486adb5b0fe9dc761950afa0a9a05e93ff018992e0c52bf11afec529f802",
        "sha256:a4ccd678dc9ff6d43fe5073f491db5c9b02eb98dfa4f8c0382913a784be217ef",
    ),
    "markov": DataSet("a synthetic Markov chain with a known best score, made on the spot: 2,000 users, 500 items"),
    "markov-shuffled": DataSet("its control: the same items shuffled, so that only chance is left"),
}
"""Data sets by name."""
