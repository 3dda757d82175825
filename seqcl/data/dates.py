"""Dates as text: the one place that knows how they are written, for reading and for recognising them."""

from __future__ import annotations

import re
from datetime import datetime, timezone

WRITTEN = (
    *("%a %b %d %H:%M:%S %z %Y", "%m %d, %Y", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y"),
    *("%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y-%m-%d"),
)
"""Dates besides ISO 8601 whose order of day and month is clear: Foursquare's, Amazon's, and those that begin with the year."""

UNCLEAR = re.compile(r"\s*\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}\b")
"""Dates such as 11/1/2000, of which nobody can tell whether the day or the month comes first."""

CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?")
"""A time of day without its day."""


def parse_date(text: str) -> float | None:
    """The seconds since 1970 of a date, in UTC if no zone is given; None if the text is none, or it is not clear which."""
    text = text.strip()
    if not re.search(r"\D", text):  # 20240131 is read as a number
        return None
    moment = None
    try:
        moment = datetime.fromisoformat(re.sub(r"\s*(Z|UTC|GMT)$", "+00:00", text))
    except ValueError:
        for form in WRITTEN:
            try:
                moment = datetime.strptime(text, form)
                break
            except ValueError:
                continue
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def looks_like_date(text: str) -> bool:
    """True for text that is a date, also one of which the order of day and month is not clear."""
    return len(text) <= 40 and (bool(UNCLEAR.match(text)) or parse_date(text) is not None)
