"""Names of columns in the field's files, by what the columns hold."""

from __future__ import annotations

import re

Names = tuple[tuple[str, ...], ...]
"""Names of one role in ranks: a name of an earlier rank wins, two of one rank are a question."""

USER_NAMES: Names = (
    (
        *("userid", "user", "uid", "useridx", "reviewerid", "visitorid", "customerid", "memberid", "buyerid"),
        *("clientid", "accountid", "profileid", "username", "customer", "visitor", "member", "personid", "userhash"),
    ),
    ("sessionid", "session", "sess", "sessid", "usersession", "sessionhash", "visitid"),
)
ITEM_NAMES: Names = (
    ("itemid", "item", "iid", "itemidx"),
    ("parentasin",),
    ("asin",),
    (
        *("productid", "movieid", "articleid", "clickarticleid", "newsid", "trackid", "songid", "artistid", "bookid"),
        *("isbn", "businessid", "videoid", "venueid", "locationid", "poiid", "placeid", "gmapid", "gameid", "appid"),
        *(
            "adid",
            "aid",
            "pid",
            "sesspid",
            "contentid",
            "showid",
            "animeid",
            "recipeid",
            "listingid",
            "hotelid",
            "sku",
            "skuid",
        ),
        *("product", "movie", "article", "track", "song", "artist", "book", "business", "video", "venue", "poi"),
    ),
)
TIME_NAMES: Names = (
    ("timestamp", "unixreviewtime", "unixtimestamp", "eventtimestamp", "timems", "timestampms"),
    ("time", "ts", "eventtime", "eventts", "datetime", "unixtime", "utctime", "localtime", "clicktime", "createdat"),
    ("date", "eventdate", "tdat", "reviewdate", "reviewtime", "ratingdate", "createddate", "transactiondate"),
)
PART_NAMES: Names = (("split", "part", "subset", "fold", "splitset"),)
RATING_NAMES: Names = (("rating", "ratings", "overall", "stars", "score", "reviewrating", "reviewoverall"),)

PARTS = {
    **{"train": 0, "training": 0, "tr": 0, "0": 0},
    **{"valid": 1, "validation": 1, "val": 1, "dev": 1, "1": 1},
    **{"test": 2, "testing": 2, "te": 2, "2": 2},
}
"""Parts of a split by the words for them."""

TIME_WORDS = {"time", "times", "timestamp", "date", "dates", "datetime", "ts", "dat"}
"""Words in a name that make a column of times likely; its content must agree."""

LISTED = re.compile(r"([-_](list|seq|trim))+$")
"""The end of the name of a column of lists."""


def plain(name: str) -> str:
    """A name without case, underscores and the endings of columns that hold lists: Item_ID-list becomes itemid."""
    found = re.sub(r"[^0-9a-z]+", "", LISTED.sub("", name.lower()))
    return found or name.lower()


def words(name: str) -> set[str]:
    """The words of a name: eventTime, event_time and event-time have event and time."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").replace("-", " ").lower().split())


def usual(name: str) -> bool:
    """True for a name that is usual for any role."""
    return any(plain(name) in rank for names in (USER_NAMES, ITEM_NAMES, TIME_NAMES, RATING_NAMES) for rank in names)
