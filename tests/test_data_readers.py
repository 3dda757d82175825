from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from seqcl.data import Interactions, pack, read, write
from seqcl.errors import UserError
from tests.reference_data import random_log, rows_by_user

LOG = random_log(0)
HEAD = "user_id,item_id,timestamp\n"
GOOD = "u1,a,1\nu1,b,2\nu2,a,3\n"


def frame(log=LOG) -> pd.DataFrame:
    return pd.DataFrame(log, columns=["user_id", "item_id", "timestamp"])


def write_as(kind: str, folder: Path, log=LOG) -> Path:
    table = frame(log)
    path = folder / f"log.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "tsv":
        table.to_csv(path, index=False, sep="\t")
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    elif kind == "parquet":
        table.to_parquet(path, index=False)
    elif kind == "inter":
        path.write_text(
            table.to_csv(index=False, sep="\t", header=["user_id:token", "item_id:token", "timestamp:float"])
        )
    elif kind == "txt":
        lines = [f"{user} " + " ".join(str(i) for i, _ in items) for user, items in rows_by_user(log).items()]
        path.write_text("\n".join(lines) + "\n")
    return path


def raw(log: Interactions) -> list[tuple]:
    return list(zip(log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist(), strict=True))


def text(tmp_path: Path, content: str | bytes, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "inter"])
def test_every_reader_gives_the_same_rows_in_file_order_as_the_data_frame(kind: str, tmp_path: Path) -> None:
    expected = Interactions.from_frame(frame())
    log = read(write_as(kind, tmp_path))
    assert raw(log) == raw(expected) == [(user, item) for user, item, _ in LOG]
    assert log.times.tolist() == [time for _, _, time in LOG]
    assert pack(log).fingerprint == pack(expected).fingerprint
    assert log.name == "log"


def test_the_text_format_gives_the_same_sequences_without_times(tmp_path: Path) -> None:
    expected = pack(Interactions.from_frame(frame()))
    packed = pack(read(write_as("txt", tmp_path)))
    assert packed.times is None
    assert packed.items.tolist() == expected.items.tolist()
    assert packed.offsets.tolist() == expected.offsets.tolist()
    assert packed.item_ids.tolist() == expected.item_ids.tolist()
    assert packed.user_ids.tolist() == expected.user_ids.tolist()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".inter", ".parquet"])
@pytest.mark.parametrize("named", [False, True])
def test_what_is_written_reads_back_the_same(suffix: str, named: bool, tmp_path: Path) -> None:
    rows = [(f"ü {u}" if named else u, f"it,em {i}" if named else i, t) for u, i, t in LOG]
    log = Interactions.from_frame(frame(rows))
    again = read(write(log, tmp_path / f"out{suffix}"))
    assert raw(again) == raw(log)
    assert again.times.tolist() == log.times.tolist()


def test_what_is_written_as_text_reads_back_in_time_order(tmp_path: Path) -> None:
    log = Interactions.from_frame(frame())
    again = read(write(log, tmp_path / "out.txt"))
    assert pack(again).items.tolist() == pack(log).items.tolist()
    with pytest.raises(UserError, match="separates ids by blanks, and user 'a b' has one"):
        write(Interactions.from_frame(frame([("a b", 1, 1.0), ("c", 2, 2.0)])), tmp_path / "spaced.txt")
    with pytest.raises(UserError, match=r"unknown suffix '.cvs': did you mean .csv"):
        write(log, tmp_path / "out.cvs")


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 10**15), st.integers(0, 3)), min_size=8, max_size=40).filter(
        lambda rows: 1 < len({row[0] for row in rows}) < len(rows)
    )
)
@settings(max_examples=30, deadline=None)
def test_readers_agree_on_any_log(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    folder = tmp_path_factory.mktemp("log")
    prints = {kind: pack(read(write_as(kind, folder, rows))).fingerprint for kind in ("csv", "parquet", "inter", "tsv")}
    assert len(set(prints.values())) == 1


def test_ids_with_leading_zeros_quotes_and_spaces_stay_what_they_are(tmp_path: Path) -> None:
    path = text(tmp_path, 'user_id,item_id,timestamp\n007,"a ""b"", c",1\n007,x,2\n7,x,3\n')
    log = read(path)
    assert raw(log) == [("007", 'a "b", c'), ("007", "x"), ("7", "x")]


def test_a_line_break_inside_quotes_does_not_end_a_row(tmp_path: Path) -> None:
    path = text(tmp_path, 'user_id,review,item_id\n1,"good\nand cheap",5\n1,"",6\n2,x,5\n')
    assert raw(read(path)) == [(1, 5), (1, 6), (2, 5)]
    path = text(tmp_path, 'user_id,review,item_id\n1,"good\nand cheap",5\n1,"",6\n2,x,\n')
    with pytest.raises(UserError, match=r"log.csv:5: column 3 'item_id': the id is empty"):
        read(path)


def test_a_quote_that_stands_alone_is_named_and_swallows_no_row(tmp_path: Path) -> None:
    path = text(tmp_path, 'user_id,item_id,time\n1,5,1\n1,"a,2\n2,b,3\n2,"c,4\n3,d,5\n')
    with pytest.raises(
        UserError, match=r"log.csv:5: text stands behind a closing quote, in a row that begins on line 3"
    ):
        read(path)
    path = text(tmp_path, 'user_id,item_id,time\n1,5,1\n1,"a,2\n2,b,3\n')
    with pytest.raises(UserError, match=r"log.csv:4: .* it begins on line 3: is a quote left open there"):
        read(path)
    path = text(
        tmp_path, 'user_id,item_id,review\n1,5,x\n1,6,"good\n2,7,y\n2,8,z\n'
    )  # as wide as the header to its end
    with pytest.raises(UserError, match=r"log.csv:5: the file ends inside quotes, in a row that begins on line 3"):
        read(path)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(b'user_id,item_id,time\n1,5,1\n1,"a,2\n2,b,3\n2,"c,4\n3,d,5\n'))
    with pytest.raises(UserError, match=r"gz:5: text stands behind a closing quote"):
        read(packed)


def test_dates_become_seconds_in_every_format(tmp_path: Path) -> None:
    texts = ["2020-01-01 00:00:00", "2020-01-01 00:00:01", "2020-01-02 00:00:00"]
    expected = [1577836800.0, 1577836801.0, 1577923200.0]
    table = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "timestamp": texts})
    table.to_csv(tmp_path / "dates.csv", index=False)
    typed = table.assign(timestamp=pd.to_datetime(table.timestamp))
    typed.to_parquet(tmp_path / "dates.parquet")
    assert read(tmp_path / "dates.csv").times.tolist() == expected
    assert read(tmp_path / "dates.parquet").times.tolist() == expected
    assert Interactions.from_frame(typed).times.tolist() == expected
    zoned = table.assign(timestamp=[f"{time}+00:00" if index else time for index, time in enumerate(texts)])
    assert Interactions.from_frame(zoned).times.tolist() == expected


def test_columns_are_found_by_their_usual_names_or_by_the_given_ones(tmp_path: Path) -> None:
    path = text(tmp_path, "movieId;rating;userId;when\n1;5;7;3\n2;4;7;2\n1;3;8;1\n", "ratings.csv")
    assert raw(read(path)) == [(7, 1), (7, 2), (8, 1)]
    assert read(path).times is None
    assert read(path, time="when").times.tolist() == [3.0, 2.0, 1.0]
    assert raw(read(path, user="movieId", item="userId")) == [(1, 7), (2, 7), (1, 8)]
    timed = text(tmp_path, HEAD + GOOD)
    assert read(timed, order="file").times is None


def test_a_wrong_column_names_the_nearest(tmp_path: Path) -> None:
    path = text(tmp_path, HEAD + GOOD)
    with pytest.raises(UserError, match=r"log.csv:1: unknown item column 'itemid': did you mean item_id"):
        read(path, item="itemid")
    for one, other, held in (
        ("user", "item", "users and items"),
        ("user", "time", "users and times"),
        ("item", "time", "items and times"),
    ):
        with pytest.raises(UserError, match=f"column 'item_id' cannot hold both {held}"):
            read(path, **({"user": "user_id", "item": "timestamp"} | {one: "item_id", other: "item_id"}))
    with pytest.raises(UserError, match=r"log.csv:1: unknown user column 'user_id': did you mean usr_id"):
        read(text(tmp_path, "usr_id,item_id\n1,2\n"))
    with pytest.raises(UserError, match="unknown time column 'timestemp': did you mean timestamp"):
        Interactions.from_frame(frame(), time="timestemp")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"log.csv:1: the file is empty"),
        ("\n\n \n", r"log.csv:1: there is nothing but blank space"),
        (HEAD, r"log.csv:2: there is a header and nothing under it"),
        ("item_id,timestamp\n1,2\n", r"log.csv:1: unknown user column 'user_id'"),
        ("user_id,user_id,item_id\n1,2,3\n", r"log.csv:1: two columns are called 'user_id'"),
        ("1,2,3\n4,5,6\n", r"log.csv: the layout is not clear, as no user has two rows.* add --data.columns user,item,_, or a first line"),
        (HEAD + GOOD + "u2,b,soon\n", r"log.csv:5: column 3 'timestamp': 'soon' is not a time"),
        (HEAD + GOOD + "u2,b,\n", r"log.csv:5: column 3 'timestamp': (the time is missing|'' is not a time)"),
        (HEAD + GOOD + "u2,b,nan\n" + GOOD, r"log.csv:5: column 3 'timestamp': "),
        (HEAD + GOOD + "u2,b,-1\n", r"log.csv:5: column 3 'timestamp': -1.0 is not a time"),
        (HEAD + GOOD + "u2,b,inf\n", r"log.csv:5: column 3 'timestamp': inf is not a time"),
        (HEAD + GOOD + ",b,4\n", r"log.csv:5: column 1 'user_id': the id is missing, as in 25% of the rows"),
        (HEAD + GOOD + "u2, ,4\n", r"log.csv:5: column 2 'item_id': the id is empty"),
        (HEAD + GOOD + ",,\n", r"log.csv:5: column . '[a-z_]+': "),
        (HEAD + GOOD + "u2,b\n", r"log.csv:5: column 2: the row has 2 columns, the header 3"),
        (HEAD + GOOD + "u2,b,4,5\n", r"log.csv:5: column 3: the row has 4 columns, the header 3"),
        ("user_id,item_id\nu1,a\n\nu1,b\nu2,a\n", r"log.csv:3: column 1: the row is empty"),
        (HEAD + GOOD + "\nu2,b,4\n\n", r"log.csv:5: column 1: the row is empty"),
        (HEAD + GOOD + "\nu2,b,4\n", r"log.csv:5: column 1: the row is empty"),
        (HEAD + f"1,{2**63},1\n1,2,2\n2,2,3\n", rf"log.csv:2: column 2 'item_id': the id {2**63} does not fit 64 bits"),
        (HEAD + "1,5,1\n1,2,2\n-" + "9" * 40 + ",2,3\n", r"log.csv:4: column 1 'user_id': the id -9+ does not fit"),
        (HEAD + GOOD + "u2," + "x" * 300 + ",4\n", r"log.csv:5: column 2 'item_id': the id is 300 characters long"),
        (HEAD + "u1,a,1\nu1,b,2\n", r"the user column has a single user, u1, in all 2 rows"),
        (HEAD + "u1,a,1\nu2,b,2\n", r"the user column has 2 users with one item each"),
        ((HEAD + GOOD).encode() + b"u2,\xe9t\xe9,4\n", r"log.csv:5: column 2 'item_id': not UTF-8 text"),
        ((HEAD + GOOD).encode("utf-16"), r"log.csv:1: column 1: not UTF-8 text \(UTF-16"),
        (b"user_id,it\xe9m\n1,2\n", r"log.csv:1: byte 11 is not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", r"log.csv:1: column 1: not UTF-8 text"),
        (HEAD + 'u1,"a,1\nu1,b,2\nu2,a,3\n', r"log.csv:"),
    ],
)  # fmt: skip
def test_a_malformed_csv_is_refused_with_file_line_and_column(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read(text(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"log.txt:1: the file is empty"),
        ("1 2 3\n2\n3 4 5\n", r"log.txt:2: column 2: user '2' has no items"),
        ("1 2 3\n\n3 4 5 6\n", r"log.txt:2: column 1: the row is empty"),
        ("1,2,3\n2,3\n1,5,6,7\n", r"log.txt:1: column 2: user '1,2,3' has no items \(a table separated by commas"),
        ("1 2 3\n2 4 99999999999999999999 5\n", r"log.txt:2: column 3 \(an item\): the id 9+ does not fit 64 bits"),
        (
            "1 2 3\n2 4 5 6\n99999999999999999999 4 5\n",
            r"log.txt:3: column 1 \(the user\): the id 9+ does not fit 64 bits",
        ),
        ("1 2\n2 4 x" + "y" * 300, r"log.txt:2: column 3 \(an item\): the id is 301 characters long"),
        (b"1 2 3\n2 4 \xff 5\n", r"log.txt:2: column 3: not UTF-8 text"),
        ("1 2 3 4\n1 5\n", r"a single user, 1"),
        ("1 2\n2 3\n", r"2 users with one item each"),
    ],
)
def test_a_malformed_text_file_is_refused_with_file_line_and_column(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read(text(tmp_path, content, "log.txt"))


def test_blank_lines_at_the_end_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    expected = raw(read(text(tmp_path, HEAD + GOOD)))
    assert raw(read(text(tmp_path, HEAD + GOOD + "\n"))) == expected
    assert raw(read(text(tmp_path, HEAD + GOOD + "\n\n"))) == expected
    assert raw(read(text(tmp_path, (HEAD + GOOD).rstrip("\n")))) == expected
    assert raw(read(text(tmp_path, HEAD.replace("timestamp", "rating") + GOOD + "\n\n"))) == expected
    windows = (HEAD + GOOD + "\n").replace("\n", "\r\n")
    assert raw(read(text(tmp_path, b"\xef\xbb\xbf" + windows.encode()))) == expected
    assert raw(read(text(tmp_path, b"\xef\xbb\xbf1 2 3\r\n2 3 4\r\n\r\n", "log.txt"))) == [
        (1, 2),
        (1, 3),
        (2, 3),
        (2, 4),
    ]


def test_a_large_but_fitting_id_needs_no_memory_of_its_size(tmp_path: Path) -> None:
    packed = pack(read(text(tmp_path, f"user_id,item_id\n1,{2**63 - 1}\n1,5\n2,5\n")))
    assert packed.item_ids.tolist() == [5, 2**63 - 1]
    assert packed.items.tolist() == [2, 1, 1]


def test_a_malformed_parquet_is_refused_with_file_row_and_column(tmp_path: Path) -> None:
    path = write_as("parquet", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"log.parquet: not a whole Parquet file; is it cut off"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"log.parquet: not a whole Parquet file"):
        read(path)
    for table, message in [
        ({"user_id": [1, None, 2], "item_id": [1, 2, 3]}, r"log.parquet: row 2: column 'user_id': the id is missing"),
        (
            {"user_id": [1.0, 1.0, 2.5], "item_id": [1, 2, 3]},
            r"log.parquet: row 3: column 'user_id': 2.5 is not a whole",
        ),
        ({"user_id": [1, 1, 2], "item_id": ["a", "", "b"]}, r"log.parquet: row 2: column 'item_id': the id is empty"),
        (
            {"user_id": [1, 1, 2], "item_id": [1, 2, 3], "time": [1.0, -1.0, 2.0]},
            r"row 2: column 'time': -1.0 is not a",
        ),
        ({"user_id": [1, 1, 2], "item_id": [[1], None, [3]]}, r"row 2: column 'item_id': the list of items is missing"),
        ({"user_id": [1, 1, 2], "item_id": [{"a": 1}] * 3}, r"row 1: column 'item_id': a column of type struct"),
        ({"user_id": [1, 1, 2], "item_id": pa.array([1, 2**63, 3], pa.uint64())}, r"row 2: .* does not fit 64 bits"),
        ({"user_id": pa.array([], pa.int64()), "item_id": pa.array([], pa.int64())}, r"row 1: there are no rows"),
        ({"user": [1, 2], "itm": [1, 2]}, r"log.parquet: unknown item column 'item_id'.*itm"),
    ]:
        parquet.write_table(pa.table(table), path)
        with pytest.raises(UserError, match=message):
            read(path)


def test_parquet_ids_of_any_type_and_parts_that_differ_give_one_log(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    first = {"user_id": pa.array([1.0, 1.0]), "item_id": pa.array(["5", "6"])}
    second = {"user_id": pa.array([2, 2], pa.uint64()), "item_id": pa.array([5, 6], pa.int16())}
    third = {"user_id": pa.array(["3", "3"]).dictionary_encode(), "item_id": pa.array(["6", "7"]).dictionary_encode()}
    for number, table in enumerate((first, second, third)):
        parquet.write_table(pa.table(table), folder / f"part-{number}.parquet")
    log = read(folder)
    assert raw(log) == [(1, 5), (1, 6), (2, 5), (2, 6), (3, 6), (3, 7)]
    assert log.name == "parts"
    third["item_id"] = pa.array(["6", ""])
    parquet.write_table(pa.table(third), folder / "part-2.parquet")
    with pytest.raises(UserError, match=r"part-2.parquet: row 2: column 'item_id': the id is empty"):
        read(folder)


@pytest.mark.parametrize("missing", [None, "", "  "])
@pytest.mark.parametrize(("name", "end"), [("item_id", "parquet"), ("an item", "parquet"), ("item_id", "csv")])
def test_the_condition_that_an_error_names_leaves_out_the_row_without_an_id(
    name: str, end: str, missing: str | None, tmp_path: Path
) -> None:
    made = pd.DataFrame({"user_id": [1, 1, 2, 2], name: ["a", missing, "a", "b"]})
    path = tmp_path / f"log.{end}"
    made.to_parquet(path) if end == "parquet" else made.to_csv(path, index=False)
    with pytest.raises(UserError, match=r"leave such rows out with --data\.where") as refused:
        read(path, item=name)
    condition = str(refused.value).partition("--data.where ")[2][1:-1]
    assert raw(read(path, item=name, where=condition)) == [(1, "a"), (2, "a"), (2, "b")]


def test_a_data_frame_is_refused_with_row_and_column() -> None:
    bad = frame().astype({"item_id": object})
    bad.loc[5, "item_id"] = None
    with pytest.raises(UserError, match=r"data frame 'frame': row 5 \(index 5\), column 'item_id': the id is missing"):
        Interactions.from_frame(bad)
    bad = frame()
    bad.loc[7, "timestamp"] = float("nan")
    with pytest.raises(UserError, match=r"row 7 \(index 7\), column 'timestamp': "):
        Interactions.from_frame(bad)
    mixed = pd.DataFrame({"user_id": [1, "a"], "item_id": [1, 2]})
    with pytest.raises(UserError, match="column 'user_id' mixes types"):
        Interactions.from_frame(mixed, time=None)
    with pytest.raises(UserError, match="it has no rows"):
        Interactions.from_frame(frame()[:0])


def test_categories_that_no_row_has_do_not_become_items() -> None:
    table = frame().astype({"item_id": "category"})
    kept = table[table.item_id != table.item_id.iloc[0]]
    log = Interactions.from_frame(kept)
    assert log.item_ids.tolist() == sorted(set(kept.item_id.tolist()))


def test_atomic_features_come_along_indexed_by_raw_id(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.inter").write_text('user_id:token\titem_id:token\n1\t5\n1\t"6\n2\t5\n')
    (folder / "shop.item").write_text('item_id:token\tprice:float\ttitle:token_seq\n5\t1.5\tA "B\n"6\t\tNA\n')
    log = read(folder)
    assert log.name == "shop"
    assert log.user_features is None
    assert log.item_features.loc["5", "price"] == 1.5
    assert np.isnan(log.item_features.loc['"6', "price"])
    assert log.item_features.loc['"6', "title"] == "NA"
    (folder / "shop.item").write_text("id:token\tprice:float\n5\t1.5\n")
    with pytest.raises(UserError, match=r"shop.item:1: unknown column 'item_id'"):
        read(folder)
    (folder / "shop.item").write_text("item_id:token\tprice:float\n5\tcheap\n")
    with pytest.raises(UserError, match=r"shop.item: .*cheap"):
        read(folder)


def test_a_format_is_found_by_content_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    for kind in ("csv", "parquet", "inter", "txt"):
        source = write_as(kind, tmp_path)
        plain = source.rename(tmp_path / f"{kind}-log")
        assert pack(read(plain)).items.tolist() == pack(Interactions.from_frame(frame())).items.tolist()


def test_what_cannot_be_opened_is_said_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="the folder holds neither"):
        read(tmp_path)
    for name in ("a.inter", "b.inter"):
        (tmp_path / name).write_text("user_id:token\titem_id:token\n1\t2\n")
    with pytest.raises(UserError, match=r"several .inter files, name one: a.inter, b.inter"):
        read(tmp_path)
    with pytest.raises(UserError, match="unknown format 'cvs': did you mean csv"):
        read(tmp_path / "a.inter", format="cvs")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress((HEAD + GOOD * 500).encode())[:-20])
    with pytest.raises(UserError, match=r"cut\.csv\.gz: "):
        read(cut)


def test_a_fault_far_into_a_file_of_many_blocks_is_found_at_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqcl.data.delimited.BLOCK_BYTES", 1 << 14)
    good = [f"{row % 977},{row % 3001},{row}" for row in range(60_000)]
    expected = [(row % 977, row % 3001) for row in range(60_000)]
    assert raw(read(text(tmp_path, "\n".join(["user_id,item_id,timestamp", *good])))) == expected
    good[55_000] = "1,2,x"
    with pytest.raises(UserError, match=r"log.csv:55002: column 3 'timestamp': 'x' is not a time"):
        read(text(tmp_path, "\n".join(["user_id,item_id,timestamp", *good])))
