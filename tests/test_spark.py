"""The Spark job writes the log that seqcl's own reader gives."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from seqcl.data import load_sequences

pytest.importorskip("pyspark", reason="pyspark is not installed; it is in the extra spark")
if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
    pytest.skip("Spark needs Java, and there is none here", allow_module_level=True)

JOB = Path(__file__).parents[1] / "examples" / "spark_prepare.py"
SPLIT_BYTES = 3000
"""Files are read in blocks of so many bytes, so that the order of a file must be put together again."""


@pytest.fixture(scope="module")
def job():
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.files.maxPartitionBytes": str(SPLIT_BYTES),
        "spark.sql.files.openCostInBytes": "0",
        # Small jobs spend their time on compilers, of Java and of Spark.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.adaptive.enabled": "false",
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spec = importlib.util.spec_from_file_location("spark_prepare", JOB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    spark.stop()


def rows(count: int) -> list[tuple[str, str, int]]:
    """Users, items and times, with many equal times, users who come back, and thin users and items at the edges."""
    draw = random.Random(3)
    letters = ["b", "a", "\uff5a", "\U0001f600", "é"]  # order of code points, in which UTF-16 differs
    return [
        (
            draw.choice(letters) + str(int(draw.paretovariate(0.6)) % 60),
            str(int(draw.paretovariate(0.5)) % 90),
            1_600_000_000 + draw.randrange(6),
        )
        for _ in range(count)
    ]


def same(mine: Path, source: Path, k_core: int, **options: str) -> None:
    """The packed log of what Spark wrote is that of the source."""
    ours = load_sequences(source, k_core=k_core, cache=False, **options)
    spark = load_sequences(mine, k_core=k_core, cache=False)
    for name in ("items", "offsets", "times", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(spark, name), getattr(ours, name), err_msg=name)
    assert spark.fingerprint == ours.fingerprint


def test_the_packed_log_is_our_own_readers(job, tmp_path, capsys):
    source = tmp_path / "log"
    source.mkdir()
    told = rows(1200)
    for part, first in (("part-2", 0), ("part-10", 700)):  # part-10 comes first, and Spark reads the larger file first
        lines = [
            f" {user},{item}{'.0' * (n % 3 == 0)},{time}" for n, (user, item, time) in enumerate(told[first:][:700])
        ]
        lines[5:5] = [f"NA,1,{told[0][2]}", f",2,{told[0][2]}"]
        (source / f"{part}.csv").write_text("\n".join(["who,what,when", *lines]) + "\n", encoding="utf-8")
    assert all(file.stat().st_size > 2 * SPLIT_BYTES for file in source.iterdir())
    words = ["--user", "who", "--item", "what", "--time", "when", "--k-core", "4", "--format", "csv", "--parts", "3"]
    job.main([str(source), str(tmp_path / "out"), *words])
    assert "4 had no user" in capsys.readouterr().out
    same(tmp_path / "out", source, 4, user="who", item="what", time="when")

    alone = load_sequences(tmp_path / "out", cache=False)  # nothing is left for our own k-core
    assert np.bincount(alone.items)[1:].min() >= 4 and np.diff(alone.offsets).min() >= 4
    tables = {name: parquet.read_table(tmp_path / "out" / f"_{name}").to_pandas() for name in ("items", "users")}
    items, users = tables["items"].sort_values("number"), tables["users"].sort_values("number")
    assert items["number"].tolist() == list(range(1, alone.num_items + 1))
    assert items["item_id"].tolist() == alone.item_ids.tolist()
    assert users["user_id"].tolist() == alone.user_ids.tolist() and users["number"].iloc[0] == 0
    parts = [set(pd.read_parquet(file)["user_id"]) for file in (tmp_path / "out").glob("*.parquet")]
    assert len(parts) == 3 and sum(map(len, parts)) == alone.num_users


def test_dates_conditions_and_an_order_without_times(job, tmp_path):
    frame = pd.DataFrame(rows(300), columns=["user_id", "item_id", "at"])
    frame["user_id"] = frame["user_id"].str.slice(1).astype(float)  # as pandas writes integers with holes
    frame["day"] = pd.to_datetime(frame["at"], unit="s").astype("datetime64[us]")
    frame["kind"] = ["buy" if n % 4 else "view" for n in range(300)]
    frame.loc[7, "user_id"] = np.nan
    frame.to_parquet(tmp_path / "log.parquet", row_group_size=40)
    job.main([str(tmp_path / "log.parquet"), str(tmp_path / "dated"), "--time", "day", "--where", "kind = 'buy'"])
    same(tmp_path / "dated", tmp_path / "log.parquet", 0, time="day", where="kind == 'buy'")
    job.main([str(tmp_path / "log.parquet"), str(tmp_path / "ordered"), "--parts", "2"])
    same(tmp_path / "ordered", tmp_path / "log.parquet", 0, order="file")


def test_mistakes_end_the_job_before_the_work(job, tmp_path):
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": ["a", "b", None], "time": ["1", "x", "2"]})
    frame.to_parquet(tmp_path / "log.parquet")
    source, new = str(tmp_path / "log.parquet"), str(tmp_path / "new")
    for words, why in (
        ([str(tmp_path)], "is there already: give a new folder"),
        ([new, "--time", "when"], "no column 'when'; there are user_id, item_id, time"),
        ([new], "1 rows have no item_id"),
        ([new, "--where", "item_id = 'a'", "--k-core", "2"], "nothing is left with --k-core 2"),
        ([new, "--time", "time", "--where", "item_id is not null"], "rows have no time that can be read"),
    ):
        with pytest.raises(SystemExit, match=why):
            job.main([source, *words])
    assert not Path(new).exists()
