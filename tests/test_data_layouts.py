"""Files of other people, read right or refused; the small ones of docs/data.md among them."""

from __future__ import annotations

import gzip
import logging
import zipfile
from pathlib import Path

import pandas as pd
import polars
import pyarrow as pa
import pytest
from pyarrow import parquet

from docs.layouts import LAYOUTS, said
from seqcl.data import Interactions, Preparation, load_sequences, pack, read
from seqcl.errors import UserError

RIGHT = {  # (user, item) of every row in file order, and times
    "u.data": ([(1, 10), (1, 11), (2, 10), (2, 12)], [881250949.0, 881250950.0, 881250952.0, 881250953.0]),
    "ratings.dat": ([(1, 1193), (1, 661), (2, 1193), (2, 914)], [978300760.0, 978302109.0, 978301968.0, 978301970.0]),
    "pairs.txt": ([(1, 10), (1, 11), (2, 10), (2, 12)], None),
    "ratings.csv": ([(1, 10), (1, 11), (2, 10)], [964982703.0, 964981247.0, 964982224.0]),
    "events.csv": ([(1, 10), (1, 11), (2, 10)], [1433221332.117, 1433224214.164, 1433221999.827]),
    "2019-Oct.csv": ([(1, 10), (1, 11), (2, 10)], [1569888000.0, 1569888001.0, 1569888004.0]),
    "sessions.txt": ([(1, 10), (1, 11), (2, 10), (2, 12)], [3.5, 4.5, 5.5, 6.5]),
    "user_artists.dat": ([(2, 51), (2, 52), (3, 51)], None),
    "yoochoose-clicks.dat": ([(1, 214536502), (1, 214536500), (2, 214536502)], [1396867869.277, 1396868049.868, 1396878997.614]),
    "shop.inter": ([(1, 10), (1, 11), (2, 10)], [5.0, 6.0, 7.0]),
    "Beauty.txt": ([(1, 10), (1, 11), (1, 12), (2, 10), (2, 12), (3, 11), (3, 10), (3, 12)], None),
    "train.txt": ([(1, 10), (1, 11), (1, 12), (2, 10), (2, 12), (2, 11)], None),
    "reviews.json": ([("A1", "B1"), ("A1", "B2"), ("A2", "B1")], [1252800000.0, 1252800001.0, 1252900000.0]),
    "steam_reviews.json": ([("x", 10), ("x", 11), ("y", 10)], [1515110400.0, 1515196800.0, 1515110400.0]),
}  # fmt: skip

LOG = "user_id,item_id,{}\n1,10,{}\n1,11,{}\n2,10,{}\n"


def raw(log: Interactions) -> list[tuple]:
    return list(zip(log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist(), strict=True))


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_of_the_page_is_read_right_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    sentence = said(name, tmp_path)
    assert len(sentence) <= 300 and "\n" not in sentence
    if name not in RIGHT:
        assert (sentence.startswith("stops: ") and "--data." in sentence) or name == "us-dates.csv"
        return
    rows, times = RIGHT[name]
    log = read(tmp_path / name)
    assert raw(log) == rows
    assert (None if log.times is None else log.times.tolist()) == times
    assert sentence.startswith(f"{name}: ") and "use --data." in sentence


def test_what_was_read_is_logged_kept_in_the_cache_and_part_of_the_protocol(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "u.data", LAYOUTS["u.data"])
    with caplog.at_level(logging.INFO, "seqcl"):
        first = load_sequences(path, cache=tmp_path / "cache", min_rating=3)
    told = "u.data: separated by tabs, no header; user, item, rating, timestamp by position (MovieLens' layout)"
    assert caplog.messages[0].startswith(told)
    again = load_sequences(path, cache=tmp_path / "cache", min_rating=3)
    assert again.reading == first.reading and again.told == first.told
    assert again.reading["order"] == "time"
    assert again.reading["dropped"] == {"rating below 3": 1}
    assert again.reading["columns"] == {"user": "user", "item": "item", "time": "timestamp", "rating": "rating"}


@pytest.mark.parametrize(
    ("name", "texts", "seconds"),
    [
        ("time_stamp", (5, 6, 7), (5.0, 6.0, 7.0)),
        ("event_time", ("2020-01-01T00:00:00", "2020-01-01T00:00:01.5", "2020-01-02"), (1577836800.0, 1577836801.5, 1577923200.0)),
        ("eventdate", ("2020-01-01 00:00:00 UTC",) * 3, (1577836800.0,) * 3),
        ("t_dat", ("2020-01-01T01:00:00+01:00", "2020-01-01T00:00:00Z", "2020-01-02T00:00:00+00:00"), (1577836800.0, 1577836800.0, 1577923200.0)),
        ("event_timestamp", (1577836800000, 1577836800001, 1577836801000), (1577836800.0, 1577836800.001, 1577836801.0)),
        ("ts", (1577836800_000_000,) * 3, (1577836800.0,) * 3),
        ("timestamp", (20200101, 20200102, 20200131), (1577836800.0, 1577923200.0, 1580428800.0)),
        ("reviewTime", ('"01 1, 2020"', '"01 2, 2020"', '"1 2, 2020"'), (1577836800.0, 1577923200.0, 1577923200.0)),
        ("utc_when", ("Wed Jan 01 00:00:00 +0000 2020", "2020/01/02", "2 Jan 2020"), (1577836800.0, 1577923200.0, 1577923200.0)),
        ("when", ("2020-01-01", "2020-01-02", "2020-01-02"), (1577836800.0, 1577923200.0, 1577923200.0)),
        ("played", (1577836800, 1577836801, 1577836802), (1577836800.0, 1577836801.0, 1577836802.0)),
        ("dwell", (3, 5, 4), None),
    ],
)  # fmt: skip
def test_times_are_found_by_name_or_content_and_become_seconds(
    name: str, texts: tuple, seconds: tuple | None, tmp_path: Path
) -> None:
    log = read(written(tmp_path, "log.csv", LOG.format(name, *texts)))
    assert (None if log.times is None else tuple(log.times.tolist())) == seconds
    assert log.reading["order"] == ("file" if seconds is None else "time")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LOG.format("date", "2020-01-01", "01/02/2020", "2020-01-03"), r"log.csv:3: column 3 'date': '01/02/2020': is the day"),
        (LOG.format("time", 1577836800, 1577836800000, 1577836801), r"log.csv:3: column 3 'time': 1577836800000 is in milliseconds, but other times are in seconds"),
        (LOG.format("time", 1577836800, 157783680, 1577836801), r"log.csv:3: column 3 'time': 157783680 is a time of 1975, but the newest is of 2020: are digits cut off\? --data.where 'time > 210384000'"),
        (LOG.format("time", 1577836800000, 1577836801000, 157), r"log.csv:4: column 3 'time': 157 is a time of 1970"),
        (LOG.format("time", "12:00:01", "12:00:02", "12:00:03"), r"log.csv:2: column 3 'time': '12:00:01' is not a time"),
        ("user_id,item_id,begun,ended\n1,10,1577836800,1577836801\n1,11,1577836802,1577836803\n2,10,1577836800,1577836805\n", "the time could be begun or ended"),
        ("user_id,track_id,artist_id\n1,10,1\n1,11,1\n2,10,1\n", "the item could be track_id or artist_id; choose with --data.item track_id"),
        ("user_id,item_id\nalice,\x00apple\n", "not UTF-8 text"),
        ("alice,apple\nalice,pear\nbob,apple\n", r"log.csv:1: is the first line a header\?"),
        ("user_id,item_id\r1,10\r1,11\r2,10\r", r"log.csv:1: a carriage return stands inside a line"),
    ],
)  # fmt: skip
def test_what_is_not_clear_stops(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(written(tmp_path, "log.csv", content))
    assert len(str(caught.value).replace(f"{tmp_path}/", "")) <= 300


def test_equal_times_are_said_and_zeros_and_old_times_of_no_unit_are_taken(tmp_path: Path) -> None:
    said = "all times are the same, so rows stay in the order of the source"
    for times, alike in (((1.5e9,) * 3, True), ((0, 1577836800, 1577836801), False), ((1, 5, 900), False)):
        assert (said in read(written(tmp_path, "log.csv", LOG.format("time", *times))).told) == alike


def test_several_names_of_one_role_go_by_rank_and_are_said(tmp_path: Path) -> None:
    path = written(tmp_path, "log.csv", "session_id,user_id,asin,parent_asin,time\n7,1,a,x,3\n7,1,b,x,4\n8,2,a,y,5\n")
    log = read(path)
    assert raw(log) == [(1, "x"), (1, "x"), (2, "y")]
    assert "user could also be session_id; item could also be asin" in log.told
    assert raw(read(path, user="session_id", item="asin")) == [(7, "a"), (7, "b"), (8, "a")]


def test_rows_without_a_user_are_left_out_and_counted_up_to_a_share(tmp_path: Path) -> None:
    rows = "".join(f"{n % 4},{n % 7},{n}\n" for n in range(40))
    for word in ("", "NA", "null", "nan"):
        log = read(written(tmp_path, "log.csv", f"user_id,item_id,time\n{word},1,0\n{rows}{word},2,50\n"))
        assert len(log) == 40 and log.reading["dropped"] == {"no user": 2}
        assert log.user_ids.tolist() == [0, 1, 2, 3]
    log = read(
        written(tmp_path, "log.csv", f"user_id,item_id,time\nNA,1,0\n{rows}3,,50\n".replace("3,,50", "3,5,x")),
        order="file",
    )
    assert len(log) == 41
    with pytest.raises(UserError, match=r"log.csv:43: column 3 'time': 'x' is not a time"):  # lines count as they stand
        read(tmp_path / "log.csv")
    nullable = pd.DataFrame({"user_id": pd.array([1, 1, None, *[2] * 20], "Int64"), "item_id": range(23)})
    assert Interactions.from_frame(nullable).reading["dropped"] == {"no user": 1}


def test_columns_of_a_file_without_a_header_can_be_named(tmp_path: Path) -> None:
    text = "1577836800,5,1,pv,10\n1577836801,5,1,buy,11\n1577836802,5,2,pv,10\n1577836803,4,2,pv,11\n1577836804,5,2,pv,12\n"
    path = written(tmp_path, "log.csv", text)
    assert raw(read(path, columns="time,_,user,_,item")) == [(1, 10), (1, 11), (2, 10), (2, 11), (2, 12)]
    assert raw(read(path, columns="time,_,user,_,item", where="_4 == 'pv' and _2 >= 5")) == [
        (1, 10),
        (2, 10),
        (2, 12),
    ]
    for columns, message in [
        ("user,item", r"2 columns, but .*log.csv:1 has 5 \(separated by commas\)"),
        ("time,_,user,_,itm", "unknown role 'itm': did you mean item or time"),
        ("time,_,user,_,_", "item is not there"),
        ("user,_,user,_,item", "user is twice there"),
    ]:
        with pytest.raises(UserError, match=message):
            read(path, columns=columns)
    headed = written(tmp_path, "headed.csv", "a,b,c\n1,2,3\n1,3,4\n2,2,5\n")
    with pytest.raises(UserError, match=r"headed.csv:1 looks like a header \(a, b, c\)"):
        read(headed, columns="user,item,time")
    with pytest.raises(UserError, match="has names of its own"):
        read(written(tmp_path, "log.jsonl", LAYOUTS["reviews.json"]), columns="user,item,time")


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("event == 'view'", [0, 2, 4]),
        ("event != 'view'", [1, 3, 5]),
        ("event in ('buy', 'cart')", [1, 3, 5]),
        ("event not in ('buy',)", [0, 2, 3, 4, 5]),
        ("price > 2.5 or not event == 'view'", [1, 2, 3, 5]),
        ("not 2 <= price < 3", [0, 2, 3, 4, 5]),
        ("`unit price` == 7 and time >= 11", [1, 3, 5]),
        ("price <= -1", []),
    ],
)
def test_a_condition_keeps_the_rows_for_which_it_holds(condition: str, kept: list[int], tmp_path: Path) -> None:
    rows = [(1, 10, 10, "view", 1, 7), (1, 11, 11, "buy", 2, 7), (1, 12, 12, "view", 3, 8), (2, 10, 13, "cart", 9, 7), (2, 11, 14, "view", "", 8), (2, 10, 15, "cart", 8, 7)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "time", "event", "price", "unit price"])
    table.to_csv(tmp_path / "log.csv", index=False)
    typed = table.assign(price=pd.to_numeric(table.price))
    typed.to_parquet(tmp_path / "log.parquet")
    for source in (tmp_path / "log.csv", tmp_path / "log.parquet", typed):
        make = Preparation(where=condition).from_frame if source is typed else lambda path: read(path, where=condition)
        if kept:
            assert raw(make(source)) == [rows[n][:2] for n in kept]
        else:
            with pytest.raises(UserError, match="no row of 6 is left"):
                make(source)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("event = 'view'", "not a condition; write such as event == 'buy'"),
        ("__import__('os').system('touch planted')", r"cannot stand there"),
        ("event == open('x')", "cannot stand there"),
        ("evnt == 'view'", "unknown column 'evnt': did you mean event"),
        ("1 == 1", "it looks at no column"),
        ("event > 5", "'event > 5': event and 5 cannot be compared: one is text, the other"),
        ("(" * 500 + "event" + ")" * 500, "not a condition"),
        ("event in ()", "cannot stand there"),
    ],
)
def test_a_condition_that_is_none_is_refused_and_nothing_runs(
    condition: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "log.csv", LAYOUTS["events.csv"])
    with pytest.raises(UserError, match=message):
        read(path, where=condition)
    assert not (tmp_path / "planted").exists()


def test_the_least_rating_needs_a_column_of_ratings(tmp_path: Path) -> None:
    path = written(tmp_path, "ratings.csv", LAYOUTS["ratings.csv"])
    assert raw(read(path, min_rating=3.5)) == [(1, 10), (1, 11), (2, 10)]
    with pytest.raises(UserError, match="a single user"):
        read(path, min_rating=4)
    with pytest.raises(UserError, match=r"unknown rating column 'rating'.*write --data.where 'COLUMN >= 4' instead"):
        read(written(tmp_path, "events.csv", LAYOUTS["events.csv"]), min_rating=4)
    with pytest.raises(UserError, match=r"--data.min_rating 4.0: .*Beauty.txt has no columns"):
        read(written(tmp_path, "Beauty.txt", LAYOUTS["Beauty.txt"]), min_rating=4.0)


def test_packed_files_are_unpacked_by_their_bytes(tmp_path: Path) -> None:
    rows, times = RIGHT["ratings.dat"]
    content = LAYOUTS["ratings.dat"].encode()
    for name in ("ratings.dat.gz", "ratings.dat"):  # the second one is gzipped without saying so
        assert raw(read(written(tmp_path, name, gzip.compress(content)))) == rows
    assert (
        raw(read(written(tmp_path, "reviews.json.gz", gzip.compress(LAYOUTS["reviews.json"].encode()))))
        == RIGHT["reviews.json"][0]
    )
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("ml/ratings.dat", content)
        archive.writestr("__MACOSX/ml/._ratings.dat", b"\0")
    assert read(tmp_path / "one.zip").times.tolist() == times
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("ml/ratings.dat", content)
        archive.writestr("ml/movies.dat", b"1::A\n2::B\n")
    with pytest.raises(
        UserError, match=r"two.zip: 2 files inside, name one: .*two.zip/ml/movies.dat, .*two.zip/ml/ratings.dat"
    ):
        read(tmp_path / "two.zip")
    assert raw(read(tmp_path / "two.zip" / "ml" / "ratings.dat")) == rows
    packed = load_sequences(tmp_path / "two.zip" / "ml" / "ratings.dat", cache=tmp_path / "cache")
    assert packed.name == "ratings" and packed.num_interactions == 4
    with pytest.raises(UserError, match=r"unknown member 'ml/rating.dat': did you mean ml/ratings.dat"):
        read(tmp_path / "two.zip" / "ml" / "rating.dat")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "one.zip").read_bytes()[:60])
    with pytest.raises(UserError, match=r"cut.zip: not a whole .zip file"):
        read(tmp_path / "cut.zip")


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "jsonl"])
def test_a_folder_of_daily_parts_is_one_log(kind: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"user_id": [1, 2, 1, 2, 3, 3], "item_id": [5, 6, 7, 5, 6, 8], "time": [1, 2, 3, 4, 5, 6]})
    place = tmp_path / "days"
    for day, part in enumerate((table[:3], table[3:])):
        part = part if day == 0 else part[["time", "item_id", "user_id"]]  # columns in another order
        path = place / f"date=2024-01-0{day + 1}" / f"part-0.{kind}"
        path.parent.mkdir(parents=True)
        if kind == "parquet":
            part.to_parquet(path, index=False)
        elif kind == "jsonl":
            part.to_json(path, orient="records", lines=True)
        else:
            part.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    (place / "_SUCCESS.csv").write_text("")
    log = read(place)
    assert raw(log) == list(zip(table.user_id, table.item_id, strict=True))
    assert log.times.tolist() == table.time.tolist()
    assert "2 parts" in log.told and log.name == "days"
    if kind == "csv":
        with (place / "date=2024-01-02" / "part-0.csv").open("a") as file:
            file.write("soon,1,1\n")
        with pytest.raises(UserError, match=r"date=2024-01-02/part-0.csv:5: column 1 'time': 'soon' is not a time"):
            read(place)
        written(place, "date=2024-01-02/more.parquet", b"")
        with pytest.raises(UserError, match=r"files that end in .csv and in .parquet; name one file"):
            read(place)


def test_a_part_without_the_columns_of_the_first_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "days/1.csv", "user_id,item_id,time\n1,2,3\n1,3,4\n2,2,5\n")
    written(tmp_path, "days/2.csv", "user_id,thing,time\n1,2,3\n")
    with pytest.raises(UserError, match=r"2.csv:1: not the columns of the parts before it: item_id, thing differ"):
        read(tmp_path / "days")


def test_lists_of_items_a_row_become_interactions(tmp_path: Path) -> None:
    items, times = [[5, 6, 7], [6], [7, 5]], [[1.0, 2.0, 3.0], [1.0], [4.0, 4.0]]
    expected = [(8, 5), (8, 6), (8, 7), (9, 6), (7, 7), (7, 5)]
    lists = pa.table({"session_id": [8, 9, 7], "item_id-list_seq": items, "timestamp-list": times})
    parquet.write_table(lists, tmp_path / "lists.parquet")
    log = read(tmp_path / "lists.parquet")
    assert raw(log) == expected and log.times.tolist() == [1.0, 2.0, 3.0, 1.0, 4.0, 4.0]
    assert "a list of items a row" in log.told
    once = Interactions.from_frame(pd.DataFrame({"user_id": [8, 9, 7], "item_id": items, "time": [3, 1, 2]}))
    assert raw(once) == expected and once.times.tolist() == [3.0, 3.0, 3.0, 1.0, 2.0, 2.0]
    assert pack(once).items.tolist() == pack(Interactions.from_frame(lists)).items.tolist()
    with pytest.raises(UserError, match=r"row 1 .*'time': the list has 2 values, but there are 1 items"):
        Interactions.from_frame(pd.DataFrame({"user_id": [8, 9], "item_id": [[5, 6], [6]], "time": [[1, 2], [1, 2]]}))


def test_frames_of_other_libraries_give_the_log_of_pandas() -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["a", "b", "a"],
            "item_id": [5, 6, 7],
            "when": pd.to_datetime(["2020-01-02", "2020-01-01", "2020-01-01"]),
        }
    )
    expected = pack(Interactions.from_frame(frame))
    assert expected.items.tolist() == [3, 1, 2]
    arrow = pa.table(frame)
    assert pack(Interactions.from_frame(arrow)).fingerprint == expected.fingerprint
    assert pack(Interactions.from_frame(frame.set_index(["user_id", "when"]))).fingerprint == expected.fingerprint
    for made in (polars.from_arrow(arrow), polars.from_arrow(arrow).lazy()):
        assert pack(Interactions.from_frame(made)).fingerprint == expected.fingerprint
    for wrong in ([1, 2], {"user_id": [1]}, 7):
        with pytest.raises(UserError, match="is no data frame; give one of pandas, polars or pyarrow"):
            Interactions.from_frame(wrong)


@pytest.mark.parametrize(
    "values",
    [
        [1 + 2j, 1j, 2j],
        ["a\ud800", "b", "c"],
        [b"\xff", b"a", b"b"],
        [10**30, 2, 3],
        [[1], 2, "x"],
        [object()] * 3,
        ["a\0", "a", "b"],
    ],
)
def test_values_that_are_no_ids_are_refused_in_one_line(values: list) -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": pd.Series(values, dtype=object)})
    with pytest.raises(UserError, match="item_id") as caught:
        Interactions.from_frame(frame)
    assert len(str(caught.value)) <= 300


SHUFFLED = "".join(f"{user} {user * 7 % 10 + 1} {user % 5 + 1}\n" for user in range(200))
"""A user, an item and a rating a line, no user twice, items among the numbers of ratings."""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", SHUFFLED, "the layout is not clear, as no user has two rows.*--data.columns user,item,rating"),
        ("a.txt", "1 10 5\n1 11\n2 10 4\n3 10 3\n3 12 2\n", r"a.txt:2: 2 cells, but most lines have 3, and users recur"),
        ("a.txt", "u1 Toy Story 5\nu1 Heat 4\nu2 Toy Story 3\n", r"a.txt:2: 3 cells, but most lines have 4"),
        ("a.txt", "# user item\n1 10\n1 11\n2 10\n", r"a.txt:1: the first line is a comment"),
        ("a.txt", "%%MatrixMarket\n1 10\n1 11\n2 10\n", r"a.txt:1: the first line is a comment"),
        ("a.csv", "0,1,2,3\n0,119,1,881250949\n1,119,2,881250950\n", r"a.csv:1: the first line counts the columns"),
        ("a.csv", "\nuser_id,item_id\n1,10\n1,11\n", r"a.csv:1: the first line is empty"),
        ("a.dat", "src\tdst\nA\tB\nA\tC\nB\tC\n", r"a.dat:1: is the first line a header\?"),
        ("a.csv", "1433221332,7,137\n1433221332,8,108\n1433221333,5,138\n", "what the columns are is not clear"),
        ("a.csv", "B000000001,A1,1.0,1382388812\nB000000001,A2,5.0,1382388813\nB000000002,A1,5.0,1382388814\n", "what the columns are is not clear"),
        ("a.csv", "user_id,item_id,purchase_time\n1,10,3.5\n1,11,2.5\n2,10,1\n", r"the time could be purchase_time; choose with --data.time"),
        ("a.csv", "sessionId;itemId;timeframe;eventdate\n1;10;900;2016-05-09\n1;11;100;2016-05-09\n2;10;5;2016-05-09\n", "the time could be eventdate or timeframe"),
        ("a.txt", "1 10 2014-04-08 10:51:09\n1 11 2014-04-08 10:52:09\n2 10 2014-04-08 10:51:09\n", "what the columns are is not clear"),
        ("a.csv", "user_id,item_id,time\n1,10,2001-01-01\n1,11,20010105\n2,10,2001-01-02\n", r"a.csv:3: column 3 'time': '20010105' is not a time"),
        ("a.csv", "user_id,item_id,time\n1,10,0\n1,11,881250949\n2,10,881250949000\n2,11,881250949\n", r"a.csv:4: column 3 'time': 881250949000 is in milliseconds"),
        ("a.csv", "user_id,item_id,time\n1,10,20010230\n1,11,20010301\n2,10,20010302\n", r"a.csv:2: column 3 'time': 20010230 is no day"),
        ("a.csv", 'user_id,item_id\n1,"[10, 11, 12]"\n2,"[11, 12]"\n1,"[1]"\n', "column 'item_id' holds lists"),
        ("a.txt", "1\t10,11,12\n1\t11,12\n2\t12\n2\t13,10\n", "column 2 holds lists"),
        ("a.inter", "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t10\t11\n1\t10 11\t12\n2\t10\t12\n", "give their folder with --data.split given"),
    ],
)  # fmt: skip
def test_what_could_be_read_wrongly_stops(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert len(str(caught.value).replace(str(tmp_path), "")) <= 300


def test_what_was_read_wrongly_is_read_right(tmp_path: Path) -> None:
    def rows(name: str, content: str, **options: object) -> list[tuple]:
        return raw(read(written(tmp_path, name, content), **options))

    assert rows("a.csv", ",user_id,item_id,x\n0,0,115,1\n0,0,119,2\n1,1,115,3\n") == [(0, 115), (0, 119), (1, 115)]
    assert rows("a.csv", "user_id,item_id,timestamp,\n1,10,8,\n1,11,9,\n2,10,9,\n") == [(1, 10), (1, 11), (2, 10)]
    assert rows("a.txt", "1:10 11 12\n2:12 11\n1:13 14\n") == [
        (1, 10),
        (1, 11),
        (1, 12),
        (2, 12),
        (2, 11),
        (1, 13),
        (1, 14),
    ]
    few = "".join(f"{n % 20},{n % 7},{n}\n" for n in range(60))
    assert rows("a.csv", few) == [(n % 20, n % 7) for n in range(60)]
    assert rows("a.csv", "1,10,3,5\n1,11,4,6\n2,10,5,7\n", columns="user,item,_,_") == [(1, 10), (1, 11), (2, 10)]
    assert read(tmp_path / "a.csv", columns="user,item,_,rating").times is None
    titles = 'user_id\titem_id\ttitle\n1\t10\t"Heroes\n1\t11\tx\n2\t10\ty\n2\t12\t"Help\n'
    assert rows("a.tsv", titles) == [(1, 10), (1, 11), (2, 10), (2, 12)]
    assert rows("a.csv", "user_id,item_id\n1.0,10\n1.0,11\n2.0,10\n") == [(1, 10), (1, 11), (2, 10)]
    codes = "user_id,item_id,code\n1,10,007\n1,11,7\n1,12,007\n2,10,007\n"
    assert rows("a.csv", codes, where="code == '007'") == [(1, 10), (1, 12), (2, 10)]
    assert rows("a.csv", codes, where="code == 7") == [(1, 10), (1, 11), (1, 12), (2, 10)]
    lacking = "user_id,item_id,price\n1,10,\n1,11,7\n2,12,NULL\n2,10,5\n1,13,6\n"
    assert rows("a.csv", lacking, where="price != None") == [(1, 11), (2, 10), (1, 13)]
    assert rows("a.csv", lacking, where="price is None or price < 6") == [(1, 10), (2, 12), (2, 10)]
    events = "user_id,item_id,event\n1,10,view\n1,11,buy\n2,12,\n2,10,NA\n2,11,null\n2,13,buy\n"
    for condition in ("event != 'view'", "event not in ('view',)", "event < 'b' or event == 'buy'"):
        assert rows("a.csv", events, where=f"({condition}) or item_id == 10 and user_id == 1") == [
            (1, 10),
            (1, 11),
            (2, 13),
        ]
    assert rows("a.csv", events, where="event != ''") == [(1, 10), (1, 11), (2, 10), (2, 11), (2, 13)]
    assert rows("a.csv", "user_id,item_id,e\n1,10,x\n1,11,`a`\n1,12,x\n2,10,x\n", where="e != '`a`'") == [
        (1, 10),
        (1, 12),
        (2, 10),
    ]
    for wrong in ("e == ('a', 'b')", "not e == (1, 2)"):
        with pytest.raises(UserError, match="cannot stand there"):
            read(tmp_path / "a.csv", where=wrong)
    with pytest.raises(UserError, match="cannot"):
        read(tmp_path / "a.csv", where="item_id >= 99999999999999999999")


def test_a_folder_says_what_does_not_belong_together(tmp_path: Path) -> None:
    log = "user_id,item_id,time\n1,2,3\n1,3,4\n2,2,5\n"
    for part in ("train", "valid", "test"):
        written(tmp_path, f"cut/{part}.csv", log)
    with pytest.raises(UserError, match=r"files for training and for the test; add --data.split given"):
        read(tmp_path / "cut")
    written(tmp_path, "deep/a.csv", log)
    written(tmp_path, "deep/more/b.csv", log)
    with pytest.raises(UserError, match="files lie in it and in folders below it"):
        read(tmp_path / "deep")
    written(tmp_path, "mixed/1.csv", "1,2\n1,3\n2,2\n")
    written(tmp_path, "mixed/2.csv", log)
    with pytest.raises(
        UserError, match=r"2.csv:1: a header, user_id, item_id, time, but the parts before it have none"
    ):
        read(tmp_path / "mixed")


@pytest.mark.parametrize(
    "options",
    [
        {"user": 0},
        {"order": None},
        {"columns": ["user"]},
        {"min_rating": "4"},
        {"where": 5},
        {"min_rating": float("nan")},
    ],
)
def test_options_of_another_type_are_refused(options: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read(written(tmp_path, "log.csv", LAYOUTS["ratings.csv"]), **options)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read(tmp_path / "log.csv")
