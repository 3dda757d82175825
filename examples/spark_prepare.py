"""Prepare a log that is larger than one machine: a PySpark job that writes the folder of Parquet parts that seqcl reads.

    spark-submit examples/spark_prepare.py s3a://shop/events s3a://shop/log --user user --item item --time time --k-core 5
    python run.py --model CL4Rec --dataset log --data.k_core 5

The log is the one that seqcl makes of the source with the same k-core, to the last bit and with the same fingerprint.
Give the k-core to seqcl too: nothing is left to drop, but the protocol of a result names it.

- Users and items with fewer than K interactions are dropped until none is left; repeats count.
- All rows of a user stand in one part, in time order. Equal times keep the order of the source: by the name of the
  file, folder by folder, then by the place in the file. Without --time this order alone counts.
- `_items` and `_users` have the number of each raw id in seqcl, by the order of the raw ids: items from 1, users from 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F

# As seqcl reads them: text that stands for no user, and integers among texts.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "none", "<NA>", "\\N")
PLAIN = r"^(0|-?[1-9][0-9]*)(\.0+)?$"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="k-core, time order and one part for each user, for seqcl")
    parser.add_argument("source", help="file or folder of Parquet or of CSV with a header, wherever Spark reads")
    parser.add_argument("destination", help="new folder")
    parser.add_argument("--user", default="user_id", help="column of the users (default: user_id)")
    parser.add_argument("--item", default="item_id", help="column of the items (default: item_id)")
    parser.add_argument(
        "--time", help="column of the times, numbers or dates; without it the order of the source counts"
    )
    parser.add_argument("--where", help="keep the rows for which this SQL holds, such as \"event = 'buy'\"")
    parser.add_argument(
        "--k-core", type=int, default=0, help="least interactions of a user and of an item (default: 0)"
    )
    parser.add_argument(
        "--format", default="parquet", choices=("parquet", "csv"), help="of the source (default: parquet)"
    )
    parser.add_argument("--parts", type=int, default=8, help="files to write (default: 8)")
    parser.add_argument("--checkpoints", help="folder for the rounds of the k-core, where executors may be lost")
    chosen = parser.parse_args(words)
    spark = SparkSession.builder.appName("seqcl").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")  # of dates without a zone
    if chosen.checkpoints:
        spark.sparkContext.setCheckpointDir(chosen.checkpoints)
    if exists(spark, chosen.destination):
        raise SystemExit(f"{chosen.destination} is there already: give a new folder")

    source = spark.read.format(chosen.format).option("header", True).load(chosen.source)
    rows, counted = read(source, chosen.user, chosen.item, chosen.time, chosen.where)
    rows = k_core(rows, chosen.k_core, before=counted.rows, durable=bool(chosen.checkpoints))
    order = [name for name in ("user_id", "timestamp", "file", "block", "row") if name in rows.columns]
    log = rows.repartitionByRange(chosen.parts, "user_id").sortWithinPartitions(*order)
    log.drop("file", "block", "row").write.parquet(chosen.destination)
    log = spark.read.parquet(chosen.destination)
    users = number(log, "user_id", 0, f"{chosen.destination}/_users")
    items = number(log, "item_id", 1, f"{chosen.destination}/_items")
    print(
        f"{chosen.destination}: {users:,} users, {items:,} items, {log.count():,} rows; {counted.nobody:,} had no user"
    )


def exists(spark: SparkSession, place: str) -> bool:
    """True if a file or folder is there, on whichever file system: found out before the work, not after it."""
    path = spark.sparkContext._jvm.org.apache.hadoop.fs.Path(place)
    return path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).exists(path)


def read(source: DataFrame, user: str, item: str, time: str | None, where: str | None) -> tuple[DataFrame, Row]:
    """The rows as user_id, item_id, timestamp and their place in the source, and what was counted in one pass."""
    for name in (user, item, time):
        if name is not None and name not in source.columns:
            raise SystemExit(f"there is no column {name!r}; there are {', '.join(source.columns)}")
    rows = placed(source if where is None else source.where(where), user, item, time)
    somebody = F.col("user_id").isNotNull() & ~F.col("user_id").isin(*MISSING)
    number = date = F.col("timestamp")
    if dict(rows.dtypes)["timestamp"] == "string":
        number, date = F.trim(number).try_cast("double"), F.try_to_timestamp(F.trim(number))
    counted = rows.select(
        F.count_if(somebody).alias("rows"),
        F.count_if(~somebody).alias("nobody"),
        F.count_if(somebody & F.col("item_id").isNull()).alias("without_item"),
        F.count_if(somebody & number.isNull()).alias("no_number"),
        F.count_if(somebody & date.isNull()).alias("no_date"),
        *(F.bool_and(F.when(somebody, F.col(name).rlike(PLAIN))).alias(name) for name in ("user_id", "item_id")),
    ).first()
    if counted.without_item:
        raise SystemExit(f"{counted.without_item:,} rows have no {item}; leave them out with --where")
    if counted.no_number and counted.no_date and time is not None:
        least = min(counted.no_number, counted.no_date)
        raise SystemExit(
            f"{least:,} rows have no {time} that can be read; leave them out with --where, or leave out --time"
        )
    rows = rows.where(somebody).withColumn("timestamp", date if counted.no_number else number)
    for name in ("user_id", "item_id"):
        if counted[name]:  # two spellings of one id must not be two ids in the k-core
            rows = rows.withColumn(name, F.regexp_replace(name, r"\.0+$", "").cast("bigint"))
    return (rows.drop("timestamp") if time is None else rows), counted


def placed(source: DataFrame, user: str, item: str, time: str | None) -> DataFrame:
    """The columns under the names that seqcl finds, and the place of each row: number of the file, block, row."""
    rows = source.select(
        without_blanks(source, user).alias("user_id"),
        without_blanks(source, item).alias("item_id"),
        (F.lit(0) if time is None else F.col(f"`{time}`")).alias("timestamp"),
        F.col("_metadata.file_path").alias("path"),
        F.col("_metadata.file_block_start").alias("block"),
        F.monotonically_increasing_id().alias("row"),  # grows within a block, wherever that is read
    )
    paths = [one.path for one in rows.select("path").distinct().collect()]
    paths.sort(key=lambda path: unquote(path).split("/"))
    files = source.sparkSession.createDataFrame([*enumerate(paths)], "file int, path string")
    return rows.join(F.broadcast(files), "path").drop("path")


def without_blanks(source: DataFrame, name: str) -> Column:
    """Ids as text without blanks around it, null where there is none."""
    value = F.col(f"`{name}`")
    if dict(source.dtypes)[name] in ("float", "double"):  # integers, in a column that had missing ones
        fraction = F.raise_error(F.lit(f"{name}: an id is not a whole number"))
        none = value.isNull() | F.isnan(value)
        value = F.when(none, None).when(value == F.floor(value), value.cast("bigint")).otherwise(fraction)
    return F.regexp_replace(value.cast("string"), r"(?U)^\s+|\s+$", "")


def k_core(rows: DataFrame, least: int, *, before: int, durable: bool) -> DataFrame:
    """The largest part of the log in which every user and every item has `least` interactions."""
    while least > 1:
        for name in ("user_id", "item_id"):
            enough = rows.groupBy(name).count().where(F.col("count") >= least).select(name)
            rows = rows.join(enough, name, "left_semi")
        rows = rows.checkpoint() if durable else rows.localCheckpoint()  # else the plan grows with each round
        after = rows.count()
        if not after:
            raise SystemExit(f"nothing is left with --k-core {least}; lower it")
        if after == before:
            break
        before = after
    return rows


def number(log: DataFrame, name: str, first: int, place: str) -> int:
    """Write the number of each raw id; how many there are."""
    ranked = F.row_number().over(Window.orderBy(name)) - 1 + first  # one task sorts them: ids, not interactions
    log.select(name).distinct().select(name, ranked.alias("number")).write.parquet(place)
    return log.sparkSession.read.parquet(place).count()


if __name__ == "__main__":
    main()
