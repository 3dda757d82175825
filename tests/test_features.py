"""Features of items and users: encoded tables, columns that views hide, and the towers over them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from sklearn.metrics import mutual_info_score

import seqcl
from seqcl.augment.feature_masks import correlated_halves, deciles, mutual_information, random_halves
from seqcl.config import experiment
from seqcl.data import Interactions, leave_one_out, pack
from seqcl.data.cells import Coded, Numeric, missing
from seqcl.data.features import raw_cells, table_features
from seqcl.data.schema import Schema
from seqcl.data.tables import read_columns
from seqcl.encoders import GRU, Encoder, SASRec, TwoTower
from seqcl.encoders.features import FeatureVectors
from seqcl.errors import UserError
from seqcl.experiment import training_batches
from seqcl.objectives import BatchSoftmax, FeatureContrast
from seqcl.training import Trainer
from seqcl.types import SeqBatch, Tables

NAN = float("nan")
TABLE = pd.DataFrame(
    {
        "kind": ["a b", "b", None, "c a", "b"],
        "tags": [["x y"], ["x y", "z"], [], ["z"], NAN],
        "price": [1.0, 3.0, NAN, 5.0, math.inf],
        "year": pd.array([1990, 2000, None, 2010, 2000], "Int64"),
        "new": [True, False, None, True, True],
        "image": [[0.5, 1.0], None, [2.0, 3.0], [0.0, 0.0], [1.0, 1.0]],
    },
    index=[10, 20, 30, 40, 50],
)
CELLS = {name: TABLE[name].tolist() for name in TABLE}


def words(bag) -> list[set[str]]:
    pairs = zip(bag.offsets[:-1], bag.offsets[1:], strict=True)
    return [{bag.names[number] for number in bag.ids[begin:end]} for begin, end in pairs]


def known():
    return Schema.learn(CELLS, min_count=2).encode(CELLS, before=1, after=1)


def test_every_kind_of_column_is_encoded_and_what_is_missing_is_left_out():
    found = known()
    assert found.columns == ["kind", "tags", "new", "price", "year", "image"] and found.rows == 7
    assert words(found.bags["kind"]) == [set(), {"a", "b"}, {"b"}, set(), {"a"}, {"b"}, set()]  # c is of one row alone
    assert words(found.bags["tags"]) == [set(), {"x y"}, {"x y", "z"}, set(), {"z"}, set(), set()]
    assert words(found.bags["new"]) == [set(), {"True"}, set(), set(), {"True"}, {"True"}, set()]
    prices = np.array([1.0, 3.0, 5.0])
    expected = [NAN, *((np.array([1, 3, NAN, 5, NAN]) - prices.mean()) / prices.std()), NAN]
    np.testing.assert_allclose(found.numbers["price"], expected, rtol=1e-6)
    assert np.isnan(found.numbers["year"][[0, 3, 6]]).all() and found.numbers["year"][2] == pytest.approx(0)
    np.testing.assert_array_equal(found.vectors["image"][1:5], [[0.5, 1], [NAN, NAN], [2, 3], [0, 0]])


def test_rows_that_come_later_are_encoded_as_those_that_were_learned():
    schema = Schema.learn({name: cells[:4] for name, cells in CELLS.items()}, min_count=1)
    later = CELLS | {"kind": ["a new", "c", None, "b", "b"], "price": [9.0] * 5}
    found = schema.encode(later)
    assert words(found.bags["kind"])[:2] == [{"a"}, {"c"}]
    np.testing.assert_allclose(found.numbers["price"], (9 - 3) / np.std([1, 3, 5]), rtol=1e-6)


def test_cells_that_do_not_fit_are_missing_and_counted_and_only_a_column_that_is_not_there_is_an_error(caplog):
    caplog.set_level("INFO")
    bad = {"price": ["dear", 3.0, None, math.inf, 1e9], "image": [[1.0], None, [1.0, math.nan], "x", [1.0, 1.0]]}
    found = Schema.learn(CELLS).encode(CELLS | bad)
    np.testing.assert_array_equal(found.numbers["price"], [NAN, 0.0, NAN, NAN, 10.0])  # cut off at ten deviations
    assert np.isnan(found.vectors["image"]).all(1).tolist() == [True, True, True, True, False]
    assert "feature price: a number; 3 of 5 rows have none" in caplog.text
    assert "feature image: a vector of 2 numbers; 4 of 5 rows have none" in caplog.text
    with pytest.raises(UserError, match="unknown column 'price'"):
        Schema.learn(CELLS).encode({name: cells for name, cells in CELLS.items() if name != "price"})


def test_a_column_that_is_always_the_same_number_is_not_blown_up():
    schema = Schema.learn({"price": [0.1] * 3})
    np.testing.assert_allclose(schema.encode({"price": [0.1, 0.2]}).numbers["price"], [0.0, 0.1], atol=1e-6)


def test_features_of_a_log_follow_its_ids_and_come_from_what_training_knows():
    log = pd.DataFrame({"user_id": [1, 1, 1, 1, 2, 2, 2, 2], "item_id": [20, 10, 40, 50, 10, 20, 40, 30]})
    users = pd.DataFrame({"age": [30.0, 50.0, 99.0]}, index=[2, 1, 3])
    sequences = pack(Interactions.from_frame(log, time=None, item_features=TABLE, user_features=users))
    train = leave_one_out(sequences).train
    found = table_features(train.tables, "items", train.item_counts()[1:-1] > 0, "kind,price", min_count=1)
    assert words(found.bags["kind"]) == [
        set(),
        {"a", "b"},
        {"b"},
        set(),
        {"a"},
        {"b"},
        set(),
    ]  # c is of 40, which is held out
    np.testing.assert_allclose(found.numbers["price"][[1, 2, 4]], [-1, 1, 3])
    ages = table_features(train.tables, "users", np.ones(2, bool), None).numbers["age"]
    np.testing.assert_allclose(ages, [1, -1, NAN])  # and somebody unknown
    with pytest.raises(UserError, match="unknown column in the table of items of frame 'knid': did you mean kind"):
        table_features(train.tables, "items", np.ones(5, bool), "knid")


def test_text_that_occurs_often_is_encoded_as_if_each_cell_were_read_alone():
    rng = np.random.default_rng(0)
    kinds = ["a b", "b", "c", None, "a", 3, "3", "c c b"]
    column = [kinds[place] for place in rng.integers(0, len(kinds), 200)] + ["a rare"] * 29
    found = Schema.learn({"kind": column}, min_count=30).encode({"kind": column}, before=1, after=2).bags["kind"]
    per_word: dict = {}
    for cell in column:
        for word in set(str(cell).split()) if cell is not None else ():
            per_word[word] = per_word.get(word, 0) + 1
    kept = {word for word, rows in per_word.items() if rows >= 30}
    assert set(found.names) == kept == {"a", "b", "c", "3"} and "rare" in per_word
    alone = [set() if cell is None else set(str(cell).split()) & kept for cell in column]
    assert words(found) == [set(), *alone, set(), set()]


def test_a_column_is_read_as_it_is_asked_to_be():
    log = pd.DataFrame({"user_id": [1] * 5 + [2] * 5, "item_id": [10, 20, 30, 40, 50] * 2})
    table = TABLE.assign(size=["1.5", "2.5", "x", None, "3.5"])
    train = leave_one_out(pack(Interactions.from_frame(log, time=None, item_features=table))).train
    known = np.ones(5, bool)
    found = table_features(train.tables, "items", known, "year:words, size:numbers, price", min_count=1)
    assert set(found.bags) == {"year"} and set(found.numbers) == {"size", "price"}
    assert words(found.bags["year"]) == [set(), {"1990"}, {"2000"}, set(), {"2010"}, {"2000"}, set()]
    np.testing.assert_allclose(
        found.numbers["size"][[1, 2, 5]], (np.array([1.5, 2.5, 3.5]) - 2.5) / np.std([1.5, 2.5, 3.5])
    )
    assert np.isnan(found.numbers["size"][[0, 3, 4, 6]]).all()
    with pytest.raises(UserError, match="did you mean year"):
        table_features(train.tables, "items", known, "year:word")


def item_files(folder):
    """One table in every format, with a row for a stranger and none for item 40."""
    ids, price = [30, 10, 20, 50, 99], [3.0, 1.0, 2.0, 5.0, 9.0]
    image = np.arange(10, dtype=np.float32).reshape(5, 2)
    frame = pd.DataFrame({"item_id": ids, "price": price, "kind": ["a", "b", "a b", None, "a"]})
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_csv(folder / "t.tsv", index=False, sep="\t")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(image.reshape(-1)), 2)
    parquet.write_table(pa.Table.from_pandas(frame).append_column("image", vectors), folder / "t.parquet")
    np.savez(folder / "t.npz", ids=np.array(ids), price=np.array(price), image=image)
    return image


def test_a_stored_table_gives_the_features_of_the_frame_and_its_text_is_held_as_codes(tmp_path):
    random = np.random.default_rng(0)
    cells = {
        "kind": random.choice(["a b", "c", None, "d"], 50),
        "size": random.choice(["1", "2.5", None], 50),
        "year": random.integers(1990, 2000, 50),
        "words": [["x", "y y"]] * 50,
    }
    frame = pd.DataFrame(cells, index=[f"i{row}" for row in range(50)])
    frame.to_parquet(tmp_path / "items.parquet")
    known, ids = random.random(60) < 0.7, np.array([f"i{row}" for row in random.permutation(60)])
    both = [
        Tables(name="x", user_ids=np.arange(1), item_ids=ids, items=items)
        for items in (frame, tmp_path / "items.parquet")
    ]
    for columns in (None, "kind,size:numbers,words", "size"):
        one, other = (table_features(tables, "items", known, columns) for tables in both)
        assert one.columns and one.columns == other.columns and one.fingerprint() == other.fingerprint()
    held, stored = (raw_cells(tables, "items", None, table=None)[0] for tables in both)
    assert isinstance(stored["kind"], Coded) and not isinstance(held["kind"], Coded)

    def words(cells):
        return [None if missing(cell) else cell for cell in cells]

    assert words(stored["kind"]) == words(held["kind"]) and set(stored["kind"].cells) == {"a b", "c", "d"}
    frame.astype({"kind": "category"}).to_parquet(tmp_path / "items.parquet")
    assert words(raw_cells(both[1], "items", None, table=None)[0]["kind"]) == words(held["kind"])


@pytest.mark.parametrize("ids", ["numbers", "text"])
def test_a_stored_table_is_read_without_an_object_for_each_row(tmp_path, ids):
    random, size = np.random.default_rng(0), 60
    cells = {
        "price": np.where(random.random(size) < 0.2, np.nan, random.gamma(2, 20, size)).astype(np.float32),
        "year": random.integers(1990, 2000, size),
        "count": pd.array([None if row % 5 else row for row in range(size)], "Int64"),
        "large": 2**60 + random.integers(0, 3, size),
        "image": [None if row % 7 == 3 else random.normal(size=3).astype(np.float32) for row in range(size)],
        "ragged": [random.integers(0, 2, row % 3) / 2 for row in range(size)],
        "tags": [random.integers(0, 4, 2) for _ in range(size)],
        "new": random.random(size) < 0.5,
    }
    names = [3 * row - 20 if ids == "numbers" else f"i{row}" for row in range(size)]
    names[5] = names[9]  # the first row of an id counts
    frame = pd.DataFrame(cells, index=names)
    frame.to_parquet(tmp_path / "own.parquet")
    frame.rename_axis("item_id").reset_index().to_parquet(tmp_path / "file.parquet", row_group_size=17)
    raw = np.array(sorted({*names[3:], 1000 if ids == "numbers" else "x"}))
    known = random.random(len(raw)) < 0.8
    both = [
        Tables(name="x", user_ids=np.arange(1), item_ids=raw, items=items)
        for items in (frame, tmp_path / "own.parquet")
    ]
    for columns in (None, "image:words,ragged", "year:words,price:words,large:words", "price,new:numbers,tags"):
        one, other = (table_features(tables, "items", known, columns, min_count=1) for tables in both)
        assert one.columns and one.columns == other.columns and one.fingerprint() == other.fingerprint()
    held, stored = (raw_cells(tables, "items", None, table=None)[0] for tables in both)
    beside = read_columns(tmp_path / "file.parquet", raw, "items", ["tags", "ragged"])
    for name in ("price", "year", "count", "large"):
        assert isinstance(stored[name], Numeric) and isinstance(beside[name], Numeric)
        wanted = [None if missing(cell) else cell for cell in held[name]]
        assert list(stored[name]) == list(beside[name]) == wanted and any(wanted)
    for found in (stored["image"], beside["image"]):
        assert isinstance(found, np.ndarray) and found.dtype == np.float32 and found.shape == (len(raw), 3)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "npz"])
def test_a_file_says_what_items_are(tmp_path, kind):
    image = item_files(tmp_path)
    log = pd.DataFrame({"user_id": [1] * 5 + [2] * 5, "item_id": [10, 20, 30, 40, 50] * 2})
    own = pd.DataFrame({"year": [1, 2, 3, 4, 5], "price": [0.0] * 5}, index=[10, 20, 30, 40, 50])
    train = leave_one_out(pack(Interactions.from_frame(log, time=None, item_features=own))).train
    found = table_features(train.tables, "items", np.ones(5, bool), table=str(tmp_path / f"t.{kind}"), min_count=1)
    price = (np.array([NAN, 1, 2, 3, NAN, 5, NAN]) - 2.75) / np.std([1, 2, 3, 5])
    np.testing.assert_allclose(found.numbers["price"], price, rtol=1e-6)  # the file's, not the log's
    assert not np.isnan(found.numbers["year"][1:6]).any()
    if kind != "npz":
        assert words(found.bags["kind"]) == [set(), {"b"}, {"a", "b"}, {"a"}, set(), set(), set()]
    if kind in ("parquet", "npz"):
        np.testing.assert_array_equal(found.vectors["image"][[1, 2, 3, 5]], image[[1, 2, 0, 3]])
        assert np.isnan(found.vectors["image"][[0, 4, 6]]).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsn", b"", "unknown kind of table"),
        ("gone.csv", None, "gone.csv: no such file"),
        ("t.csv", b"price,kind\n1,a\n", "no column of ids: it has price, kind; call it item_id"),
        ("t.parquet", b"PAR1", "t.parquet: it cannot be read"),
        ("t.npz", b"zip", "t.npz: it cannot be read"),
        ("t.npz", b"PK\x03\x04 cut off", "t.npz: it cannot be read"),
        ("t.csv", b"item_id,kind\n10,a,z\n20,b,z\n", "t.csv: it cannot be read|a row is longer than the header"),
        ("t.csv", b"item_id,kind,kind\n10,a,z\n", "t.csv: two columns are called 'kind'"),
        (
            "t.csv",
            b"item_id,kind\n",
            "t.csv: it has no row for any of the items: an id is 10 in the log, and none in the file",
        ),
        ("t.csv", b"item_id,kind\n10.0,a\n", "t.csv: it has no row for any of the items.* and 10.0 in the file"),
        ("t.csv", b"", "t.csv: it cannot be read"),
        ("t.csv.bz2", b"", "unknown kind of table"),
    ],
)
def test_a_file_that_does_not_serve_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    log = pd.DataFrame({"user_id": [1] * 5 + [2] * 5, "item_id": [10, 20, 30, 40, 50] * 2})
    train = leave_one_out(pack(Interactions.from_frame(log, time=None))).train
    with pytest.raises(UserError, match=message):
        table_features(train.tables, "items", np.ones(5, bool), table=str(tmp_path / name))


def items_of_three(ids, path, columns=None):
    log = pd.DataFrame({"user_id": [1] * 3 + [2] * 3, "item_id": ids * 2})
    train = leave_one_out(pack(Interactions.from_frame(log, time=None))).train
    return table_features(train.tables, "items", np.ones(3, bool), columns, table=str(path), min_count=1)


def test_ids_and_words_stay_what_they_are_in_text(tmp_path):
    (tmp_path / "t.csv").write_text("item_id,kind,zip\nNA,None,007\nnull,x,7\nnone,,1.50\n")
    found = items_of_three(["NA", "none", "null"], tmp_path / "t.csv", "kind,zip:words")
    assert words(found.bags["kind"])[1:4] == [{"None"}, set(), {"x"}]
    assert words(found.bags["zip"])[1:4] == [{"007"}, {"1.50"}, {"7"}]
    (tmp_path / "t.tsv").write_text('item_id\tkind\nNA\t"12 inch\nnull\tx"\nnone\ty\n')
    found = items_of_three(["NA", "none", "null"], tmp_path / "t.tsv")
    assert words(found.bags["kind"])[1:4] == [{'"12', "inch"}, {"y"}, {'x"'}]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_of_a_table_are_found_without_the_blanks_around_them(tmp_path, kind):
    table = pd.DataFrame({"item_id": ["a  ", " b", "c"], "kind": ["x", "y", "z"]})
    {"csv": table.to_csv, "parquet": table.to_parquet}[kind](tmp_path / f"t.{kind}", index=False)
    found = items_of_three(["a", "b ", "c"], tmp_path / f"t.{kind}")  # a log loses them too
    assert words(found.bags["kind"])[1:4] == [{"x"}, {"y"}, {"z"}]


def test_columns_of_a_parquet_file_are_read_whole(tmp_path):
    big = [2**60, None, 2**60 + 1]
    frame = pd.DataFrame(
        {"item_id": [10, 20, 30], "code": pd.array(big, "Int64"), "place": [[1, 2], None, [3, 4]], "k": ["a", "b", "c"]}
    )
    frame.set_index("k").to_parquet(tmp_path / "t.parquet")  # pandas would hide k
    found = items_of_three([10, 20, 30], tmp_path / "t.parquet", "code:words,place,k")
    assert words(found.bags["code"])[1:4] == [{str(2**60)}, set(), {str(2**60 + 1)}]
    assert words(found.bags["k"])[1:4] == [{"a"}, {"b"}, {"c"}]
    np.testing.assert_array_equal(found.vectors["place"][1:4], [[1, 2], [NAN, NAN], [3, 4]])
    frame.assign(place=[[1, 2], [3], None]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="column 'place' has lists of 1, 2 numbers, but vectors must be equally long"):
        items_of_three([10, 20, 30], tmp_path / "t.parquet")
    as_words = items_of_three([10, 20, 30], tmp_path / "t.parquet", "place:words")
    assert words(as_words.bags["place"])[1:4] == [{"1", "2"}, {"3"}, set()]


def test_a_column_that_is_asked_for_and_says_nothing_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("item_id,day,kind\n10,monday,a\n20,friday,b\n30,sunday,c\n")
    with pytest.raises(UserError, match="column 'day' holds nothing to learn from"):
        items_of_three([10, 20, 30], tmp_path / "t.csv", "day:numbers")
    assert items_of_three([10, 20, 30], tmp_path / "t.csv").columns == ["day", "kind"]


def test_arrays_without_ids_or_of_another_length_are_refused(tmp_path):
    log = pd.DataFrame({"user_id": [1] * 5 + [2] * 5, "item_id": [10, 20, 30, 40, 50] * 2})
    train = leave_one_out(pack(Interactions.from_frame(log, time=None))).train
    for arrays, message in (
        ({"image": np.ones((5, 2))}, "no array `ids`"),
        ({"ids": np.arange(4), "image": np.ones((5, 2))}, "array 'image' has the shape"),
        (
            {"ids": np.array(3), "image": np.ones((5, 2))},
            "`ids` must have one dimension and hold whole numbers or text",
        ),
        (
            {"ids": np.array([b"10"] * 5), "image": np.ones((5, 2))},
            "`ids` must have one dimension and hold whole numbers or text",
        ),
        ({"ids": np.arange(5), "image": np.ones((5, 2), complex)}, "array 'image' holds complex128"),
        ({"ids": np.arange(0), "image": np.ones((0, 2))}, "it has no row for any of the items"),
    ):
        np.savez(tmp_path / "t.npz", **arrays)
        with pytest.raises(UserError, match=message):
            table_features(train.tables, "items", np.ones(5, bool), table=str(tmp_path / "t.npz"))


# Masks


def test_random_halves_hide_every_column_in_one_view_and_each_as_often():
    first, second = random_halves(4000, 5, generator=torch.Generator().manual_seed(0), device=torch.device("cpu"))
    assert first.equal(~second) and (first.sum(1) == 2).all()
    torch.testing.assert_close(first.float().mean(0), torch.full((5,), 0.4), atol=0.03, rtol=0)


def test_correlated_halves_hide_a_column_with_those_that_tell_most_of_it():
    information = torch.tensor([[2.0, 0.1, 0.9, 0.0], [0.1, 3.0, 0.2, 1.0], [0.9, 0.2, 1.0, 0.3], [0.0, 1.0, 0.3, 1.5]])
    first, second = correlated_halves(information, 400, generator=torch.Generator().manual_seed(0))
    assert first.equal(~second)
    assert {tuple(row) for row in first.tolist()} == {(True, False, True, False), (False, True, False, True)}


def test_mutual_information_is_that_of_scikit_learn_for_single_words_and_numbers():
    rng = np.random.default_rng(0)
    left = rng.integers(0, 4, 500)
    right = np.where(rng.random(500) < 0.6, left, rng.integers(0, 4, 500))
    price = left * 10.0 + rng.random(500)
    table = {"left": [f"l{x}" for x in left], "right": [f"r{x}" for x in right], "price": price.tolist()}
    features = Schema.learn(table).encode(table)
    found = mutual_information(features, np.arange(500))
    cut = deciles(features.numbers["price"], np.arange(500)).ids
    columns = [left, right, cut]
    for a in range(3):
        for b in range(3):
            assert found[a, b] == pytest.approx(mutual_info_score(columns[a], columns[b]), abs=1e-9)
    kept = np.arange(0, 500, 3)  # of some rows alone
    assert mutual_information(features, kept)[0, 1] == pytest.approx(
        mutual_info_score(left[kept], right[kept]), abs=1e-9
    )


def test_mutual_information_of_bags_equals_a_table_made_by_hand():
    table = {"one": ["a b", "a", "b"], "two": ["x", "x", "y y2"]}
    found = mutual_information(Schema.learn(table, min_count=1).encode(table), np.arange(3))
    joint = {("a", "x"): 0.5 + 1, ("b", "x"): 0.5, ("b", "y"): 0.5, ("b", "y2"): 0.5}  # every row counts 1
    left = {"a": 1.5, "b": 1.5}
    right = {"x": 2.0, "y": 0.5, "y2": 0.5}
    expected = sum(n / 3 * math.log(n / 3 / (left[a] / 3 * right[b] / 3)) for (a, b), n in joint.items())
    assert found[0, 1] == pytest.approx(expected) and found[0, 0] == pytest.approx(math.log(2))


# Towers


def vectors(features, dim=3):
    torch.manual_seed(0)
    return FeatureVectors(features, dim)


def test_a_column_is_the_mean_of_its_words_a_map_of_its_numbers_or_zero():
    made, features = vectors(known()), known()
    found = made(torch.tensor([0, 1, 2, 3]))  # PAD, 10, 20, 30
    kind, _, _, price, _, image = made.parts
    assert found.shape == (4, 6, 3) and found[0].abs().sum() == 0
    torch.testing.assert_close(found[1, 0], kind.weight.mean(0))
    torch.testing.assert_close(found[2, 0], kind.weight[1])
    torch.testing.assert_close(found[2, 3], price.map(torch.tensor([features.numbers["price"][2]])))
    assert found[3, 0].abs().sum() == found[3, 3].abs().sum() == found[2, 5].abs().sum() == 0
    torch.testing.assert_close(found[3, 5], image.map(torch.tensor([2.0, 3.0])))
    hidden = torch.zeros(4, 6, dtype=torch.bool)
    hidden[1, 0] = True
    assert made(torch.tensor([0, 1, 2, 3]), hidden=hidden)[1, 0].abs().sum() == 0


def test_a_hidden_feature_and_a_hidden_id_can_have_a_learned_vector():
    made = towers(masked="learned")
    columns, items = len(made.item_columns), torch.tensor([1, 2])
    hidden = torch.zeros(2, columns, dtype=torch.bool)
    hidden[0] = True
    found = made.item_vectors(items, hidden=hidden)
    features = made.item_features(items, hidden=hidden[:, 1:])
    torch.testing.assert_close(features[0], made.item_features.default)
    torch.testing.assert_close(found[0], made.id_default + made.item_tower(made.item_features.default.flatten()))
    torch.testing.assert_close(found[1], made.item_vectors(items)[1])
    found[0].sum().backward()
    assert made.id_default.grad.abs().sum() > 0 and made.item_features.default.grad.abs().sum() > 0
    assert towers().item_features.default is None


def test_dropped_words_leave_one_and_are_drawn_anew():
    made = vectors(known())
    rows = torch.ones(2000, dtype=torch.int64)  # item 10, of the kinds a and b
    found = made(rows, drop=0.5)[:, 0]
    one, two = made.parts[0].weight
    shares = [(found - expected).abs().sum(1).lt(1e-6).float().mean() for expected in (one, two, (one + two) / 2)]
    assert sum(shares) == pytest.approx(1) and shares[2] == pytest.approx(0.25, abs=0.04)
    assert shares[0] == pytest.approx(0.375, abs=0.04)


def towers(**options):
    torch.manual_seed(0)
    history = SASRec(num_items=5, max_len=6, dim=8, dropout=0.0)
    ages = {"age": [1.0, 2.0, NAN]}
    users = Schema.learn(ages).encode(ages, after=1)
    given = {"trained": np.ones(7, bool), "items": known()} | options
    return TwoTower(history, users=users, **given).eval()


BATCH = SeqBatch(torch.tensor([[1, 2, 3], [2, 4, 0]]), torch.tensor([3, 2]), users=torch.tensor([0, 1]))


def test_the_towers_are_an_encoder_whose_states_know_the_user():
    made = towers()
    states = made(BATCH)
    torch.testing.assert_close(made.last(BATCH), states[[0, 1], [2, 1]])
    other = made(BATCH._replace(users=torch.tensor([1, 1])))
    assert not torch.allclose(states[0], other[0]) and torch.allclose(states[1], other[1])
    unknown = [made.last(BATCH._replace(users=users)) for users in (None, torch.tensor([-1, 2]))]
    torch.testing.assert_close(*unknown)  # user 2's age is missing, which is like not being known
    table = made.item_embeddings()
    assert table.shape == (7, 8)
    torch.testing.assert_close(made.item_vectors(torch.tensor([4, 2])), table[[4, 2]])


def test_the_blocks_of_the_towers_are_those_of_their_history():
    made = towers()
    states = made.by_block(BATCH, overlap=1)
    assert made.depth == made.history.depth == 2 and states.shape == (2, 2, 8)
    torch.testing.assert_close(states[:, -1], made.last(BATCH))
    first = made.history.by_block(BATCH, overlap=1)[:, 0]
    torch.testing.assert_close(states[:, 0], made.join(first, made.known_of(BATCH)))


def test_items_that_training_never_met_read_as_nothing_and_unknown_users_and_ids_are_met():
    made = towers(trained=np.arange(7) != 2)
    nobody = BATCH._replace(items=BATCH.items.masked_fill(BATCH.items == 2, 0))
    torch.testing.assert_close(made(BATCH), made(nobody))
    assert made.history.table.weight[6].abs().sum() > 0  # MASK says something
    forgetful = towers(forget=0.5, dropout=0.0).train()
    users = torch.stack([forgetful.known_of(BATCH)[0] for _ in range(200)])
    assert 0.35 < (users == 0).all(1).float().mean() < 0.65
    ids = torch.stack([forgetful.item_vectors(torch.tensor([1]))[0] for _ in range(200)])
    shown = forgetful.eval().item_vectors(torch.tensor([1]))[0]
    assert 0.35 < (ids - shown).abs().sum(1).lt(1e-6).float().mean() < 0.65


def test_a_history_may_read_items_by_their_features_too():
    plain, made = towers(), towers(reads="items", dropout=0.0)
    with torch.no_grad():
        changed = made(BATCH)
        assert not torch.allclose(plain(BATCH), changed)
        folded = towers()  # reads from a plain table what the other one makes
        folded.load_state_dict(made.state_dict() | {"history.table.weight": made.reading_table()})
        torch.testing.assert_close(folded(BATCH), changed)
    torch.testing.assert_close(made.reading_table()[1:6], made.item_embeddings()[1:6])
    without = towers(reads="items", item_id=False)
    torch.testing.assert_close(without.reading_table()[1:6], without.item_embeddings()[1:6])
    assert made.reading_table()[6].abs().sum() > 0  # MASK
    assert made.reading_table()[0].abs().sum() == 0
    made.train()(BATCH).sum().backward()
    assert made.item_tower[0].weight.grad.abs().sum() > 0
    unmet = towers(reads="items", trained=np.arange(7) != 2)
    nobody = BATCH._replace(items=BATCH.items.masked_fill(BATCH.items == 2, 0))
    assert not torch.allclose(unmet(BATCH), unmet(nobody))  # known by its features
    with pytest.raises(UserError, match="did you mean items"):
        towers(reads="item")
    with pytest.raises(UserError, match=r"the items have no features, so towers\.reads must stay ids"):
        towers(reads="items", items=Schema.learn({}).encode({}))
    foreign = Free(5)
    with pytest.raises(UserError, match=r"Free cannot read the history: it is no seqcl\.encoders\.TableEncoder"):
        TwoTower(foreign, items=known(), users=known(), trained=np.ones(7, bool))


def test_the_id_is_a_column_that_can_be_hidden_or_left_out_altogether():
    made, items = towers(), torch.tensor([1, 2, 4])
    assert made.item_columns == ["id", *known().columns]
    hidden = torch.zeros(3, 7, dtype=torch.bool)
    hidden[:, 0] = True
    without = made.item_vectors(items, hidden=hidden)
    torch.testing.assert_close(made.item_vectors(items) - without, made.history.item_embeddings()[items])
    assert towers(item_id=False).item_columns == known().columns
    one, two = towers(item_id=False), towers(item_id=False)
    torch.nn.init.normal_(two.history.table.weight)
    torch.testing.assert_close(one.item_vectors(items), two.item_vectors(items))
    untrained = towers(trained=np.arange(7) != 4)
    torch.testing.assert_close(untrained.item_vectors(items)[2], without[2])  # the id of item 4 says nothing
    torch.testing.assert_close(untrained.item_vectors(items)[:2], made.item_vectors(items)[:2])
    with pytest.raises(UserError, match=r"the items have no features, so towers\.item_id must stay true"):
        nothing = Schema.learn({}).encode({})
        TwoTower(one.history, items=nothing, users=nothing, trained=np.ones(7, bool), item_id=False)


# Objectives


class Free(Encoder):
    """One state for every row; with it the best scores are known."""

    def __init__(self, items):
        super().__init__(num_items=items, max_len=50, dim=items)
        self.table = torch.nn.Parameter(torch.zeros(items + 2, 1))

    def item_embeddings(self):
        return self.table

    def __call__(self, batch):
        return torch.ones(*batch.items.shape, 1)

    last = None


@pytest.mark.once
@pytest.mark.parametrize("correction", ["counts", "stream", "none"])
def test_two_targets_a_batch_have_the_optimum_that_is_known(correction):
    """Of a pair each is the other's only negative: without correction equal scores are best, else the log of the chance."""
    chance = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    torch.manual_seed(0)
    encoder = Free(len(chance))
    objective = BatchSoftmax(
        similarity="dot", temperature=1.0, correction=correction, **({"rate": 1e-3} if correction == "stream" else {})
    )
    objective.chance = torch.cat((torch.zeros(1), chance, torch.zeros(1))).double()
    objective.seen, objective.gap, objective.times = (torch.zeros(8, dtype=torch.float64) for _ in range(3))
    optimizer = torch.optim.SGD([encoder.table], lr=0.5)
    average = torch.zeros(len(chance))
    for step in range(4000):
        targets = torch.multinomial(chance, 2, replacement=True)[:, None] + 1
        batch = SeqBatch(torch.ones_like(targets), torch.ones(2, dtype=torch.int64), targets)
        optimizer.zero_grad()
        objective(encoder, batch)["next_item"].backward()
        optimizer.step()
        if step >= 2000:
            average += encoder.table.detach()[1:-1, 0] / 2000
    inside = 1 - (1 - chance) ** 2  # of the batch
    expected = torch.full((6,), 1 / 6) if correction == "none" else inside / inside.sum()
    torch.testing.assert_close(average.softmax(0), expected, atol=0.02, rtol=0.2)


def test_the_chances_of_a_stream_are_found_for_rare_items_too():
    objective = BatchSoftmax(correction="stream", rate=0.01)
    objective.seen, objective.gap, objective.times = (torch.zeros(5, dtype=torch.float64) for _ in range(3))
    for step in range(1, 5001):
        objective.note(torch.tensor([item for item, every in ((1, 1), (2, 10), (3, 1000)) if step % every == 0]))
    found = objective.log_chance(torch.tensor([1, 2, 3]), targets=7).exp()
    torch.testing.assert_close(found, torch.tensor([1.0, 0.1, 0.001], dtype=torch.float64), rtol=1e-3, atol=1e-6)


def windows_of(rows):
    log = pd.DataFrame([(u, i) for u, row in enumerate(rows) for i in row], columns=["user_id", "item_id"])
    table = pd.DataFrame({"kind": [f"k{i % 3}" for i in range(10)], "size": [f"s{i % 2}" for i in range(10)]})
    return leave_one_out(pack(Interactions.from_frame(log, time=None, item_features=table))).train


def test_batch_softmax_equals_cross_entropy_over_the_different_candidates():
    torch.manual_seed(0)
    train = windows_of([list(np.random.default_rng(n).permutation(10)) for n in range(8)])
    encoder = GRU(num_items=train.num_items, max_len=10, dim=8, dropout=0.0)
    objective = BatchSoftmax(temperature=0.5, correction="none")
    objective.prepare(encoder, train)
    items = torch.tensor([[1, 2, 3], [4, 5, 0]])
    targets = torch.tensor([[2, 3, 6], [5, 2, 0]])
    batch = SeqBatch(items, torch.tensor([3, 2]), targets)
    states = torch.nn.functional.normalize(encoder(batch)[targets > 0], dim=1)
    table = torch.nn.functional.normalize(encoder.item_embeddings()[[2, 3, 5, 6]], dim=1)
    own = torch.tensor([0, 1, 3, 2, 0])
    expected = torch.nn.functional.cross_entropy(states @ table.T / 0.5, own)
    torch.testing.assert_close(objective(encoder, batch)["next_item"], expected)
    counted = BatchSoftmax(temperature=0.5)
    counted.prepare(encoder, train)
    assert train.target_counts().sum() == train.num_targets
    share = torch.from_numpy(train.target_counts())[[2, 3, 5, 6]] / train.num_targets
    chance = 1 - (1 - share) ** 5
    expected = torch.nn.functional.cross_entropy(states.double() @ table.double().T / 0.5 - chance.log(), own)
    torch.testing.assert_close(counted(encoder, batch)["next_item"].double(), expected, rtol=1e-5, atol=1e-6)
    logits = states.double() @ table.double().T / 0.5 - chance.log()
    logits[torch.arange(5), own] += chance.log()[own]  # the target's own score stays
    left = BatchSoftmax(temperature=0.5, correct_target=False)
    left.prepare(encoder, train)
    expected = torch.nn.functional.cross_entropy(logits, own)
    torch.testing.assert_close(left(encoder, batch)["next_item"].double(), expected, rtol=1e-5, atol=1e-6)
    more = BatchSoftmax(temperature=0.5, negatives=1000, correction="none")  # every item is a candidate
    more.prepare(encoder, train)
    table = torch.nn.functional.normalize(encoder.item_embeddings()[1:-1], dim=1)
    expected = torch.nn.functional.cross_entropy(states @ table.T / 0.5, targets[targets > 0] - 1)
    torch.testing.assert_close(more(encoder, batch)["next_item"], expected)
    biased = BatchSoftmax(temperature=0.5, negatives=1000, correction="none", bias=True)
    biased.prepare(encoder, train)
    with torch.no_grad():
        biased.scoring.bias += torch.randn(train.num_items)
    scores = states @ table.T / 0.5 + biased.scoring.bias
    torch.testing.assert_close(
        biased.scoring.queries(states) @ biased.scoring.candidates(encoder.item_embeddings()).T, scores
    )
    found, expected = (
        biased(encoder, batch)["next_item"],
        torch.nn.functional.cross_entropy(scores, targets[targets > 0] - 1),
    )
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, biased.scoring.bias)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, biased.scoring.bias)[0])


@pytest.mark.parametrize("masking", ["correlated", "random"])
def test_the_contrast_of_features_draws_the_whole_catalogue_and_sends_gradient_to_the_tower(masking):
    train = windows_of([list(np.random.default_rng(n).permutation(10)) for n in range(8)])
    torch.manual_seed(0)
    history = GRU(num_items=train.num_items, max_len=10, dim=8)
    items = table_features(train.tables, "items", np.ones(train.num_items, bool), None)
    encoder = TwoTower(
        history,
        items=items,
        users=table_features(train.tables, "users", np.ones(8, bool), None),
        trained=np.ones(12, bool),
    )
    objective = FeatureContrast(items=64, masking=masking, weight=0.5)
    objective.prepare(encoder, train)
    seen = []
    call = encoder.item_vectors
    encoder.item_vectors = lambda ids, **rest: seen.append((ids, rest["hidden"])) or call(ids, **rest)
    batch = SeqBatch(torch.ones(2, 1, dtype=torch.int64), torch.ones(2, dtype=torch.int64))
    objective(encoder, batch)["features"].backward()
    (ids, first), (again, second) = seen
    assert set(ids.tolist()) == set(range(1, train.num_items + 1)) and ids.equal(again) and first.equal(~second)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.item_tower.parameters())
    assert objective.observed["masked_share"] > 0 and objective.observed["empty_share"] == 0
    with pytest.raises(UserError, match="two features at least, and of the items is known: nothing"):
        objective.prepare(history, train)


def contrast_of(table, **options):
    """An objective over items of which a table is known, and its encoder."""
    log, _ = kinds_in_turn(users=30, kinds=2, each=5)
    train = leave_one_out(pack(Interactions.from_frame(log, time=None, item_features=table))).train
    torch.manual_seed(0)
    items = table_features(train.tables, "items", np.ones(10, bool), None, min_count=1)
    users = table_features(train.tables, "users", np.ones(30, bool), None)
    history = GRU(num_items=10, max_len=10, dim=8)
    encoder = TwoTower(history, items=items, users=users, trained=train.item_counts() > 0)
    objective = FeatureContrast(**options)
    objective.prepare(encoder, train)
    return encoder, objective


def test_the_id_goes_to_either_view_and_away_from_the_only_other_column():
    table = pd.DataFrame(
        {name: [f"{name}{item % (2 + place)}" for item in range(10)] for place, name in enumerate("abcd")}
    )
    _, objective = contrast_of(table, masking="correlated")
    first, second = objective.masks(400, torch.Generator().manual_seed(0))
    assert first.equal(~second) and first.shape == (400, 5)
    assert 0.4 < first[:, 0].float().mean() < 0.6 and (first[:, 1:].sum(1) == 2).all()
    _, alone = contrast_of(table[["a"]], masking="correlated")
    first, second = alone.masks(5, torch.Generator().manual_seed(0))
    assert first.tolist() == [[False, True]] * 5 and second.tolist() == [[True, False]] * 5


def test_items_of_which_a_view_shows_nothing_are_left_out():
    encoder, objective = contrast_of(pd.DataFrame({"a": [*"xyxy", *[None] * 6]}), items=200)
    seen = []
    call = encoder.item_vectors
    encoder.item_vectors = lambda ids, **rest: seen.append(ids) or call(ids, **rest)
    batch = SeqBatch(torch.ones(2, 1, dtype=torch.int64), torch.ones(2, dtype=torch.int64))
    assert objective(encoder, batch)["features"].isfinite()
    assert set(seen[0].tolist()) == {1, 2, 3, 4} and 0.4 < objective.observed["empty_share"] < 0.8


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BatchSoftmax(temperature=0), "temperature must be above 0"),
        (lambda: BatchSoftmax(negatives=-1), "negatives must not be negative"),
        (lambda: BatchSoftmax(correction="count"), "did you mean counts"),
        (lambda: BatchSoftmax(rate=0.1), "rate=0.1 needs correction=stream, not counts"),
        (lambda: BatchSoftmax(correction="none", correct_target=False), "correct_target=False needs a correction"),
        (lambda: BatchSoftmax(rate=0), "rate must be above 0"),
        (lambda: FeatureContrast(items=1), "items must be 2 or more"),
        (lambda: FeatureContrast(drop=1), "drop must be from 0 to below 1"),
        (lambda: FeatureContrast(masking="corelated"), "did you mean correlated"),
        (lambda: FeatureContrast(weight=-1), "weight must not be negative"),
    ],
)
def test_an_impossible_objective_is_refused_by_name(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_a_sparse_table_learns_and_moves_only_the_items_of_a_step():
    log, kinds = kinds_in_turn(users=40)
    table = pd.DataFrame({"kind": [f"k{kind}" for kind in kinds]})
    values = {
        "model": "TwoTower",
        "dataset": "x",
        "encoder": {"dim": 8},
        "towers": {"sparse": True},
        "ssl": {"weight": 0},
    }
    config = experiment(values)
    split = leave_one_out(pack(Interactions.from_frame(log, time=None, item_features=table)))
    model = config.build(split.train)
    before = model.encoder.history.table.weight.detach().clone()
    batches = training_batches(split, Trainer(batch_size=4), seed=0, device=torch.device("cpu"))
    batch = next(iter(batches.epoch(0)))

    class One:
        def __len__(self):
            return 1

        def epoch(self, number, start=0):
            return iter([batch][start:])

    Trainer(epochs=2, ema=0, warmup=0).fit(model, One(), progress=False)
    moved = (model.encoder.history.table.weight != before).any(1)
    assert set(moved.nonzero()[:, 0].tolist()) == {
        *batch.items.flatten().tolist(),
        *batch.targets.flatten().tolist(),
    } - {0}
    with pytest.raises(UserError, match=r"train.clip needs the whole gradient"):
        Trainer(epochs=1, clip=1.0).fit(model, One(), progress=False)


def test_views_of_histories_are_contrasted_where_that_is_given_weight():
    log, kinds = kinds_in_turn(users=40)
    table = pd.DataFrame({"kind": [f"k{kind}" for kind in kinds]})
    split = leave_one_out(pack(Interactions.from_frame(log, time=None, item_features=table)))
    batch = next(iter(training_batches(split, Trainer(batch_size=8), seed=0, device=torch.device("cpu")).epoch(0)))
    terms = {}
    for weight in (0.0, 0.5):
        values = {"model": "TwoTower", "dataset": "x", "encoder": {"dim": 8}, "objective": {"weight": weight}}
        model = experiment(values).build(split.train)
        terms[weight] = set(model(batch))
    assert terms[0.5] - terms[0.0] == {"contrast"} and "features" in terms[0.0]


# Cold items


def kinds_in_turn(users=600, kinds=4, each=10):
    """A log in which an item of kind k is followed by any item of kind k + 1, and what is known of the items."""
    rng = np.random.default_rng(0)
    start = rng.integers(0, kinds, users)
    rows = [[int((k + t) % kinds * each + rng.integers(each)) for t in range(8)] for k in start]
    log = pd.DataFrame([(u, i) for u, row in enumerate(rows) for i in row], columns=["user_id", "item_id"])
    return log, np.arange(kinds * each) // each


@pytest.mark.parametrize("shuffled", [False, pytest.param(True, marks=pytest.mark.once)])
def test_items_that_training_never_saw_are_found_by_their_features_and_not_by_shuffled_ones(tmp_path, shuffled):
    log, kinds = kinds_in_turn()
    if shuffled:
        kinds = np.random.default_rng(5).permutation(kinds)
    table = pd.DataFrame({"kind": [f"k{kind}" for kind in kinds]})
    run = seqcl.train(
        Interactions.from_frame(log, time=None, item_features=table),
        model="TwoTower", runs=str(tmp_path), progress=False, encoder={"dim": 16, "dropout": 0.1},
        train={"epochs": 12, "lr": 0.005, "batch_size": 64}, eval={"exclude_seen": False}, data={"cold_items": 0.2},
        next_item={"negatives": 40},
    )  # fmt: skip
    assert run.metrics["protocol"]["cold_items"] == 0.2
    slices = run.metrics["slices"]["target_training"]
    cold, warm = slices["cold"]["metrics"]["hr@10"], slices["warm"]["metrics"]["hr@10"]
    # Ten items are of the kind that comes next: who knows the kinds finds the target among ten, who knows nothing one time in four.
    assert slices["cold"]["targets"] > 60
    assert (cold > 0.7) if not shuffled else (cold < 0.45), f"{cold:.2f} of the cold, {warm:.2f} of the warm"


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_a_table_of_text_is_cut_as_a_log_is_whatever_its_suffix_says(separator, tmp_path):
    rows = [("Item_ID", "kind", "tags"), ("10", "a b", "[1, 2]"), ("11", "", "['x y', \"z\"]"), ("12", "c", "")]
    quoted = [
        [f'"{cell.replace(chr(34), chr(34) * 2)}"' if separator in cell else cell for cell in row] for row in rows
    ]
    path = tmp_path / "items.csv"
    path.write_text("\n".join(separator.join(row) for row in quoted) + "\n")
    columns = read_columns(path, np.array([10, 11, 12, 13]), "items")
    assert columns == {"kind": ["a b", None, "c", None], "tags": [[1, 2], ["x y", "z"], None, None]}
    path.write_text(path.read_text().replace("[1", "[1("))
    with pytest.raises(UserError, match=r"items.csv:2: column 'tags': '\[1\(, 2\]' is no list"):
        read_columns(path, np.array([10, 11, 12]), "items")


def test_the_unnamed_index_of_a_pandas_frame_is_no_feature(tmp_path):
    pd.DataFrame({"item_id": [10, 11], "kind": ["a", "b"]}, index=[5, 6]).to_parquet(tmp_path / "items.parquet")
    names = set(read_columns(tmp_path / "items.parquet", np.array([10, 11]), "items"))
    assert names == {"kind"}
