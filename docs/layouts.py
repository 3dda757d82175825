"""One small file of every layout that is read or refused: docs/data.md shows what seqcl says of each, and a test what it reads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from seqcl.data import read
from seqcl.errors import UserError

LAYOUTS = {
    "u.data": "1\t10\t5\t881250949\n1\t11\t3\t881250950\n2\t10\t5\t881250952\n2\t12\t2\t881250953\n",
    "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978301968\n2::914::3::978301970\n",
    "pairs.txt": "1 10\n1 11\n2 10\n2 12\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,10,4.0,964982703\n1,11,4.0,964981247\n2,10,3.5,964982224\n",
    "events.csv": "timestamp,visitorid,event,itemid\n1433221332117,1,view,10\n1433224214164,1,view,11\n1433221999827,2,view,10\n",
    "2019-Oct.csv": "event_time,product_id,user_id,user_session\n2019-10-01 00:00:00 UTC,10,1,72d7\n2019-10-01 00:00:01 UTC,11,1,72d7\n2019-10-01 00:00:04 UTC,10,2,9333\n",
    "sessions.txt": "SessionId\tItemId\tTime\n1\t10\t3.5\n1\t11\t4.5\n2\t10\t5.5\n2\t12\t6.5\n",
    "user_artists.dat": "userID artistID weight\n2 51 13883\n2 52 11690\n3 51 228\n",
    "yoochoose-clicks.dat": "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n2,2014-04-07T13:56:37.614Z,214536502,0\n",
    "shop.inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t10\t5\n1\t11\t6\n2\t10\t7\n",
    "Beauty.txt": "1 10 11 12\n2 10 12\n3 11 10 12\n",
    "train.txt": "1:10 11 12\n2:10 12 11\n",
    "reviews.json": '{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1252800000}\n{"reviewerID": "A1", "asin": "B2", "unixReviewTime": 1252800001}\n{"reviewerID": "A2", "asin": "B1", "unixReviewTime": 1252900000}\n',
    "steam_reviews.json": "{u'username': u'x', u'product_id': u'10', u'date': u'2018-01-05'}\n{u'username': u'x', u'product_id': u'11', u'date': u'2018-01-06'}\n{u'username': u'y', u'product_id': u'10', u'date': u'2018-01-05'}\n",
    "unclear.txt": "1 10 5\n2 11 3\n3 12 4\n",
    "two-times.csv": "user_id,item_id,event_time,created_at\n1,10,1,5\n1,11,2,6\n2,10,3,7\n",
    "us-dates.csv": "user_id,item_id,date\n1,10,11/1/2000\n1,11,11/2/2000\n2,10,11/3/2000\n",
    "no-users.csv": "user_id,session_id,item_id\nNA,1,10\nNA,1,11\n5,2,10\n",
    "prose.txt": "This is a text.\nIt has many words, and it is not a log.\n",
}
"""Files by name."""


def said(name: str, folder: Path) -> str:
    """The line that seqcl says of a file: how it was read, or why it was not."""
    path = folder / name
    path.write_text(LAYOUTS[name], encoding="utf-8", newline="")
    try:
        return read(path).told
    except UserError as error:
        return f"stops: {error}".replace(f"{folder}/", "")


def rows() -> list[list[str]]:
    """A row for each file: its name, its first line, and what seqcl says."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        for name, text in LAYOUTS.items():
            first = text.split("\n", 1)[0].replace("\t", "→")
            found.append([f"`{name}`", f"`{first}`", said(name, Path(place))])
    return found
