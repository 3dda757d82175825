"""The bodies of requests, with their limits, and of answers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

MOST_HISTORIES = 256
MOST_K = 1000
MOST_LISTED = 10_000
"""Items that the answer to one request lists, over all its histories."""
MOST_ITEMS = 10_000
MOST_ALLOWED = 100_000

Raw = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Annotated[StrictStr, Field(max_length=256)]
Name = Annotated[StrictStr, Field(max_length=256)]
K = Annotated[StrictInt, Field(ge=1, le=MOST_K)]


class Body(BaseModel):
    """A body whose keys are all known."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class History(Body):
    """Whom to recommend for: raw ids of a history, oldest first, or a user of the run."""

    items: list[Raw] | None = Field(None, min_length=1, max_length=MOST_ITEMS)
    user: Raw | None = None

    @model_validator(mode="after")
    def one_of_the_two(self) -> History:
        """Refuse neither and both."""
        if (self.items is None) == (self.user is None):
            raise ValueError("give items or user, one of the two")
        return self


class Recommend(Body):
    """A question for one history, or for a `batch` of them; the options hold for all."""

    items: list[Raw] | None = Field(None, min_length=1, max_length=MOST_ITEMS)
    user: Raw | None = None
    batch: list[History] | None = Field(None, min_length=1, max_length=MOST_HISTORIES)
    model: Name | None = Field(None, description="name of a model; the default one if not given")
    k: K = 10
    exclude_seen: StrictBool = Field(True, description="items of the history are left out")
    allowed: list[Raw] | None = Field(
        None, min_length=1, max_length=MOST_ALLOWED, description="the only items to recommend"
    )
    forbidden: list[Raw] = Field([], max_length=MOST_ITEMS, description="items that are not recommended")
    why: StrictBool = Field(False, description="the nearest items of the history, for each recommendation")
    details: StrictBool = Field(False, description="the attributes of each recommended item")

    @model_validator(mode="after")
    def one_of_the_three(self) -> Recommend:
        """Refuse none and several of items, user and batch, and more lists than one answer holds."""
        if sum(one is not None for one in (self.items, self.user, self.batch)) != 1:
            raise ValueError("give items, user or batch, one of the three")
        if self.k * len(self.histories) > MOST_LISTED:
            raise ValueError(f"k times the histories of the batch must be at most {MOST_LISTED}")
        return self

    @property
    def histories(self) -> list[History]:
        """The histories, of which there is one without a batch."""
        return self.batch or [History.model_construct(items=self.items, user=self.user)]


class Similar(Body):
    """A question for the items near one."""

    item: Raw
    model: Name | None = None
    k: K = 10
    details: StrictBool = False


class Which(Body):
    """The query of an address: which model answers."""

    model: str | None = Field(None, max_length=256)


class Search(Which):
    """The query of a search for items."""

    query: str = Field(max_length=256)
    limit: int = Field(20, ge=1, le=100)


class Newest(Which):
    """The query for the newest items of a user."""

    limit: int = Field(50, ge=1, le=MOST_ITEMS)


class Default(Body):
    """The model that answers where a request names none."""

    model: Name


class Item(BaseModel):
    """What is known of an item."""

    item: int | str
    title: str | None = None
    picture: str | None = None
    attributes: dict[str, Any] | None = None


class Reason(Item):
    """An item of the history, and its cosine to a recommended one."""

    similarity: float


class Recommended(Item):
    """A recommended item."""

    score: float
    because: list[Reason] | None = None


class NearItem(Item):
    """An item near another, and their cosine."""

    similarity: float


class Listed(BaseModel):
    """The list for one history; `error` says why there is none."""

    items: list[Recommended]
    unknown: list[int | str] = Field([], description="ids of the history that the model does not know")
    error: str | None = None


class Lists(Listed):
    """The answer: of one history `items` and `unknown`; of a batch `answers`, in its order."""

    model: str
    answers: list[Listed] | None = None
    unknown_allowed: list[int | str] = []
    unknown_forbidden: list[int | str] = []


class Near(BaseModel):
    """Items near one, nearest first."""

    model: str
    items: list[NearItem]


class Found(BaseModel):
    """Items that a search has found."""

    model: str
    items: list[Item]


class Past(BaseModel):
    """The history of a user of a run, oldest first."""

    model: str
    items: list[Item]
    left_out: int = Field(0, description="older items that are not shown")


class Error(BaseModel):
    """What is wrong with a request."""

    error: str
