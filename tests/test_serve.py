"""`seqcl serve`: what it answers is what the run or the bundle answers, and no request harms it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import seqcl
from seqcl.cli.main import main
from seqcl.cli.serve import hosts_of
from seqcl.data import markov
from seqcl.errors import UserError
from seqcl.retrieval.bundle import Bundle
from tests import processes
from tests.chromium import BROWSER, Chromium

for needed in ("fastapi", "uvicorn", "prometheus_client", "httpx"):
    pytest.importorskip(needed, reason="the extra serve, or httpx, is not installed")

import httpx  # noqa: E402
import uvicorn  # noqa: E402

from seqcl.serve.app import make_app  # noqa: E402
from seqcl.serve.batcher import TOGETHER, Batcher  # noqa: E402
from seqcl.serve.catalogue import Catalogue  # noqa: E402
from seqcl.serve.models import Models  # noqa: E402
from seqcl.serve.opening import open_place  # noqa: E402

ITEMS = 40


@contextmanager
def served(app):
    """Inside, an application answers at a port of loopback; a client of it."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def trained(folder: Path, model: str = "SASRec", seed: int = 0, **more):
    """A run on a small chain whose items have titles, pictures and other columns."""
    log = markov(users=80, items=ITEMS, length=8, branching=2, seed=1).interactions
    table = pd.DataFrame(
        {
            "movie_title": [f"Title {item} of kind {'abc'[item % 3]}" for item in range(ITEMS)],
            "poster_url": [f"https://example.org/{item}.png" if item % 2 else None for item in range(ITEMS)],
            "year": np.where(np.arange(ITEMS) % 4, 1990.0 + np.arange(ITEMS), np.nan),
            "vector": [np.ones(3, np.float32) for _ in range(ITEMS)],
        }
    )
    log = replace(log, item_features=table)
    options = {"encoder": {"dim": 8}, "train": {"epochs": 2, "batch_size": 64}, "data": {"max_len": 5}} | more
    options = {} if model == "ItemKNN" else options
    return seqcl.train(log, model=model, runs=str(folder), progress=False, seed=seed, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    return run.export(tmp_path_factory.mktemp("bundles") / "bundle", index="flat")


@pytest.fixture(scope="module")
def models(run, bundle):
    return Models({"run": run.folder, "bundle": bundle}, open_place)


@pytest.fixture(scope="module")
def client(models):
    with served(make_app(models)) as client:
        yield client


def listed(answer):
    return [(one["item"], one["score"]) for one in answer["items"]]


def same(found, wanted):
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted], rel=1e-5, abs=1e-6)
    assert {item for item, _ in found[:-1]} <= {item for item, _ in wanted}  # the last may be one of equals


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("items", [[3], [5, 9, 5, 12], list(range(12))], ids=["one", "repeated", "long"])
def test_a_history_is_recommended_what_the_run_and_the_bundle_recommend(run, bundle, client, items, seen):
    asked = {"items": items, "k": 7, "exclude_seen": seen}
    for model, wanted in (("run", run), ("bundle", Bundle(bundle))):
        answer = client.post("/recommend", json={**asked, "model": model})
        assert answer.status_code == 200
        assert answer.json()["model"] == model
        same(listed(answer.json()), wanted.recommend(items=items, k=7, exclude_seen=seen))
    assert client.post("/recommend", json=asked).json()["model"] == "run"


def test_a_user_of_the_run_is_known_and_a_bundle_knows_none(run, client):
    user = run.sequences.user_ids[3].item()
    same(listed(client.post("/recommend", json={"user": user, "k": 5}).json()), run.recommend(user=user, k=5))
    history = [run.sequences.item_ids[item - 1] for item in run.sequences.history(user)]
    assert [one["item"] for one in client.get(f"/users/{user}").json()["items"]] == history
    two = client.get(f"/users/{user}", params={"limit": 2}).json()
    assert [one["item"] for one in two["items"]] == history[-2:] and two["left_out"] == len(history) - 2
    for model, who in (("run", "nobody"), ("bundle", user)):
        answer = client.post("/recommend", json={"user": who, "model": model})
        assert answer.status_code == 404 and "user" in answer.json()["error"]
        assert client.get(f"/users/{who}", params={"model": model}).status_code == 404


def test_a_batch_is_answered_as_its_histories_alone(run, client):
    user = run.sequences.user_ids[0].item()
    batch = [{"items": [1, 2]}, {"user": user}, {"items": [999]}, {"items": [7]}, {"user": "nobody"}]
    options = {"k": 4, "forbidden": [3, 4, 888], "why": True}
    answer = client.post("/recommend", json={"batch": batch, **options}).json()
    assert answer["unknown_forbidden"] == [888]
    for one, found in zip(batch, answer["answers"], strict=True):
        alone = client.post("/recommend", json={**one, **options}).json()
        assert found.get("error") == alone.get("error")
        same(listed(found), listed(alone))
    assert [bool(found.get("error")) for found in answer["answers"]] == [False, False, True, False, True]


def test_what_a_model_knows_of_users_counts_for_these_alone(tmp_path):
    run = trained(tmp_path, "TwoTower")
    user = run.sequences.user_ids[7].item()
    history = [run.sequences.item_ids[item - 1].item() for item in run.sequences.history(user)]
    asked = [{"user": user}, {"items": history}, {"user": user}]
    with served(make_app(Models({"towers": run.folder}, open_place))) as client:
        lists = [listed(one) for one in client.post("/recommend", json={"batch": asked, "k": 5}).json()["answers"]]
    same(lists[0], run.recommend(user=user, k=5))
    same(lists[1], run.recommend(items=history, k=5))
    assert lists[0] == lists[2] and dict(lists[0]) != dict(lists[1])


def test_unknown_ids_are_left_out_and_named(run, client):
    answer = client.post("/recommend", json={"items": [3, "no such", 10**18, "5", "", -1, "5\0"], "k": 5}).json()
    assert answer["unknown"] == ["no such", 10**18, "", -1, "5\0"]
    same(listed(answer), run.recommend(items=[3, 5], k=5))
    none = client.post("/recommend", json={"items": ["no such"]})
    assert none.status_code == 404 and none.json()["unknown"] == ["no such"] and none.json()["items"] == []


@pytest.mark.parametrize("model", ["run", "bundle"])
def test_only_allowed_items_are_recommended_and_no_forbidden_ones(run, client, model):
    every = dict(run.recommend(items=[3, 9], k=ITEMS, exclude_seen=False))
    allowed, forbidden = [9, 4, 17, 21, 33, 35], [21, 22]
    wanted = sorted((item for item in allowed if item not in (3, 9, 21)), key=lambda item: -every[item])
    asked = {"items": [3, 9], "allowed": [*allowed, "odd"], "forbidden": forbidden, "k": 3, "model": model}
    answer = client.post("/recommend", json=asked).json()
    assert answer["unknown_allowed"] == ["odd"]
    assert [item for item, _ in listed(answer)] == wanted[:3]
    assert [score for _, score in listed(answer)] == pytest.approx([every[item] for item in wanted[:3]], rel=1e-5)
    rest = client.post("/recommend", json={"items": [3], "forbidden": forbidden, "k": ITEMS, "model": model}).json()
    assert {item for item, _ in listed(rest)} == set(range(ITEMS)) - {3, 21, 22}
    none = client.post("/recommend", json={"items": [3], "allowed": ["odd", 999], "model": model})
    assert none.status_code == 404 and none.json()["error"].endswith("none of the allowed items, such as odd, 999")


@pytest.mark.parametrize("model", ["run", "bundle"])
def test_near_items_and_reasons_are_those_with_the_largest_cosines(run, client, model):
    vectors = run.model.vectors().detach().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    near = client.post("/similar", json={"item": 4, "k": 5, "model": model}).json()["items"]
    others = [item for item in np.argsort(-cosines[4]).tolist() if item != 4]
    assert [one["item"] for one in near] == others[:5]
    assert [one["similarity"] for one in near] == pytest.approx(cosines[4, others[:5]], rel=1e-5)
    assert len(client.post("/similar", json={"item": 4, "k": 1000}).json()["items"]) == ITEMS - 1
    past = [1, 8, 13, 21]
    answer = client.post("/recommend", json={"items": past, "k": 6, "why": True, "model": model}).json()
    for one in answer["items"]:
        best = sorted(past, key=lambda item: -cosines[one["item"], item])[:3]
        assert [reason["item"] for reason in one["because"]] == best
        assert [reason["similarity"] for reason in one["because"]] == pytest.approx(
            cosines[one["item"], best], abs=1e-6
        )


def test_a_model_that_counts_is_asked_too_but_has_nothing_near(tmp_path):
    run = trained(tmp_path, "ItemKNN")
    with served(make_app(Models({"knn": run.folder}, open_place))) as client:
        same(listed(client.post("/recommend", json={"items": [3, 9], "k": 4}).json()), run.recommend(items=[3, 9], k=4))
        every = dict(run.recommend(items=[3, 9], k=ITEMS))
        asked = {"items": [3, 9], "k": 2, "why": True, "allowed": [3, 1, 2, 4]}
        answer = client.post("/recommend", json=asked).json()
        assert [score for _, score in listed(answer)] == sorted(
            (every.get(item, 0.0) for item in (1, 2, 4)), reverse=True
        )[:2]
        assert [one["because"] for one in answer["items"]] == [[], []]
        near = client.post("/similar", json={"item": 3})
        assert near.status_code == 422 and "ItemKNN has no vectors" in near.json()["error"]


def test_a_blend_is_served_as_run_and_bundle_and_has_near_items_and_reasons(tmp_path):
    run = trained(tmp_path, "Blend", blend={"size": 12, "neighbours": 3})
    bundle = run.export(tmp_path / "bundle", index="flat")
    assert (bundle / "memories.safetensors").stat().st_mode == (bundle / "items.npy").stat().st_mode
    every = dict(run.recommend(items=[3, 9], k=ITEMS, exclude_seen=False))
    allowed = sorted([9, 4, 17, 33], key=lambda item: -every[item])
    vectors = run.model.dense().detach().numpy()
    cosines = vectors @ vectors[4] / np.linalg.norm(vectors, axis=1)
    near = [item for item in np.argsort(-cosines).tolist() if item != 4][:5]
    with served(make_app(Models({"run": run.folder, "bundle": bundle}, open_place))) as client:  # through an index
        for model in ("run", "bundle"):
            asked = {"items": [3, 9], "k": 4, "exclude_seen": False, "model": model}
            same(listed(client.post("/recommend", json=asked).json()), list(every.items())[:4])
            answer = client.post("/recommend", json={**asked, "allowed": allowed, "why": True}).json()
            same(listed(answer), [(item, every[item]) for item in allowed])
            assert all(len(one["because"]) == 2 for one in answer["items"])
            found = client.post("/similar", json={"item": 4, "k": 5, "model": model}).json()["items"]
            assert [one["item"] for one in found] == near
        assert client.put("/models/bundle").status_code == 200


def test_a_failure_of_the_server_is_told_as_a_mistake_is(models, monkeypatch):
    with served(make_app(broken := replaced(models))) as client:
        monkeypatch.setattr(broken.named["run"].served.catalogue, "find", None)
        answer = client.get("/items", params={"query": "7"})
        assert answer.status_code == 500 and "its log" in answer.json()["error"]


@pytest.mark.parametrize("model", ["run", "bundle"])
def test_titles_pictures_and_attributes_are_told(client, model):
    found = client.get("/items/5", params={"model": model}).json()
    assert found == {
        "item": 5,
        "title": "Title 5 of kind c",
        "picture": "https://example.org/5.png",
        "attributes": {"year": 1995.0},
    }
    assert client.get("/items/4").json() == {"item": 4, "title": "Title 4 of kind b"}
    assert client.get("/items/400").status_code == 404
    asked = {"items": [3], "k": 2, "model": model}
    assert all("attributes" not in one for one in client.post("/recommend", json=asked).json()["items"])
    told = client.post("/recommend", json={**asked, "details": True, "k": 9}).json()["items"]
    assert any("attributes" in one for one in told)
    first = [one["item"] for one in client.get("/items", params={"query": "title 1", "model": model}).json()["items"]]
    assert first == [1, *range(10, 20)]
    assert client.get("/items", params={"query": "7"}).json()["items"][0]["item"] == 7


def test_search_finds_what_a_look_at_every_item_finds():
    words = np.random.default_rng(0).choice(["Ab", "aB c", "é\nd", "", "İx", "abab"], (300, 2))
    titles = [" ".join(pair) or None for pair in words.tolist()]
    catalogue = Catalogue(np.array([f"x{number:03}" for number in range(300)]), {"name": titles})
    for wanted in ("ab", "c ab", "x01", "é d", "i̇", "x299 ", "zz", " ", "\n"):
        text = " ".join(wanted.lower().split())
        lines = [" ".join(f"x{number:03} {title or ''}".lower().split()) for number, title in enumerate(titles)]
        every = [number + 1 for number, line in enumerate(lines) if text and text in line]
        assert sorted(catalogue.find(wanted, 1000)) == every
    assert catalogue.find("x299 " + lines[299].split(" ", 1)[1], 5)[0] == 300  # from the id into the title
    assert catalogue.about(4, attributes=False)["item"] == "x003"
    large = Catalogue(np.array([3, 2**60 + 1]), {})
    assert large.about(2) == {"item": str(2**60 + 1)} and large.find(str(2**60)[:9], 5) == [2]


def test_a_cell_that_pandas_calls_missing_is_empty():
    cells = {"title": ["Star", pd.NA], "year": [pd.NA, 1999], "open": [True, pd.NA]}
    kinds = {"title": "string", "year": "Int64", "open": "boolean"}
    frame = pd.DataFrame(cells).astype(kinds)
    catalogue = Catalogue(np.array(["a", "b"]), {name: frame[name].tolist() for name in frame})
    assert catalogue.about(1) == {"item": "a", "title": "Star", "attributes": {"open": True}}
    assert catalogue.about(2) == {"item": "b", "attributes": {"year": 1999}}
    assert catalogue.find("star", 5) == [1]


def test_what_ranks_first_is_found_among_many_that_hold_the_text():
    ids = np.array([str(number) for number in range(1, 20000)])
    by_text = Catalogue(ids[np.argsort(ids)[::-1]], {})  # "5" stands behind thousands that hold a 5
    assert by_text.item_ids[by_text.find("5", 3)[0] - 1] == "5"
    assert all(by_text.item_ids[item - 1].startswith("5") for item in by_text.find("5", 900))
    titles = ["all of the", "a bathed one"] * 3000 + ["The one", "Thence"]
    of_films = Catalogue(np.arange(1, len(titles) + 1), {"title": titles})
    assert of_films.find("the", 4) == [6001, 6002, 1, 3] and of_films.find("6002", 1) == [6002]


BAD = [
    b"", b"{", b"[]", b"null", b"3", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"items":' * 5000, b'{"items": []}', b"{}",
    b'{"items": [NaN]}', b'{"items": [1.5]}', b'{"items": [true]}', b'{"items": [null]}', b'{"items": [[1]]}',
    b'{"items": "12"}', b'{"items": {"a": 1}}', b'{"items": [1], "user": 2}', b'{"items": [1], "batch": [{"items": [1]}]}',
    b'{"items": [%s]}' % (b"9" * 100), b'{"items": [%s]}' % (b"9" * 6000), b'{"items": ["%s"]}' % (b"x" * 300),
    b'{"items": [1], "k": 0}', b'{"items": [1], "k": 1001}', b'{"items": [1], "k": "3"}', b'{"items": [1], "k": 1e400}',
    b'{"items": [1], "k": -Infinity}', b'{"items": [1], "exclude_seen": "no"}', b'{"items": [1], "forbiden": [2]}',
    b'{"items": [1], "allowed": 5}', b'{"items": [1], "allowed": []}', b'{"items": [1], "model": "\\ud800"}', b'{"items": [1], "model": 7}',
    b'{"items": ["\\ud800"]}', b'{"items": ["\\u0000"]}', b'{"user": "\\ud800"}', b'{"user": NaN}', b'{"user": %s}' % (b"9" * 30),
    b'{"batch": []}', b'{"batch": [[]]}', b'{"batch": [{"items": [1], "k": 2}]}', b'{"\\ud800": 1}', b'{"batch": [%s]}' % b",".join([b'{"items": [1]}'] * 257),
    b'{"batch": [%s], "k": 1000}' % b",".join([b'{"items": [1]}'] * 11), b'{"items": [%s]}' % b",".join([b"1"] * 10_001),
]  # fmt: skip


@pytest.mark.parametrize("path", ["/recommend", "/similar"])
def test_a_bad_body_is_told_what_is_wrong_and_is_never_an_error_of_the_server(models, path):
    with served(make_app(replaced(models))) as client:
        for body in BAD:
            for kind in ("application/json", "text/plain"):
                answer = client.post(path, content=body, headers={"content-type": kind})
                assert 400 <= answer.status_code < 500, (body[:80], answer.status_code, answer.text)
                assert answer.json()["error"], body[:80]
        near = client.post("/recommend", json={"items": [1], "forbiden": [2]}).json()["error"]
        assert near == "forbiden: no such key; did you mean forbidden?"
        assert client.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b'{"items": [1]}', "application/x-www-form-urlencoded", "content-type: application/json"),
        (b"", "application/json", "the body is empty"),
        (b"", None, "the body is empty"),
        (b'{"items": [1', "application/json", "the body is no JSON: Expecting ',' delimiter, at letter 12"),
        (b"[1]", "application/json", "the body is no object of JSON"),
        (b"{}", "application/json", "give items, user or batch, one of the three"),
        (b'{"batch": [{"items": [1], "k": 3}]}', "application/json", "batch.0.k: k stands beside batch"),
        (b'{"batch": [{"itms": [1]}]}', "application/json", "batch.0.itms: no such key; did you mean items?"),
    ],
)
def test_a_body_that_is_no_question_is_told_why(client, content, kind, told):
    answer = client.post("/recommend", content=content, headers={"content-type": kind} if kind else {})
    assert answer.status_code == 422 and told in answer.json()["error"]


def test_a_misspelt_query_is_told_the_nearest_name(client):
    for path, told in {
        "/items?qurey=5": "qurey: no such key; did you mean query?",
        "/items?query=5&limt=3": "limt: no such key; did you mean limit?",
        "/items/5?modle=run": "modle: no such key; did you mean model?",
        "/users/5?limit=0": "limit: Input should be greater than or equal to 1",
    }.items():
        answer = client.get(path)
        assert answer.status_code == 422 and told in answer.json()["error"], answer.text


def test_a_key_of_another_address_is_not_offered_in_its_own_place(client):
    asked = {
        "/recommend": ({"item": 5}, "item: no such key; did you mean items?"),
        "/similar": ({"items": [5]}, "items: no such key; did you mean item?"),
    }
    for path, (body, told) in asked.items():
        assert told in client.post(path, json=body).json()["error"]
    assert client.get("/items/5?limit=3").json()["error"] == "limit: no such key"


def test_head_tells_whether_page_and_server_are_there(client):
    for path in ("/", "/health"):
        answer = client.head(path)
        assert answer.status_code == 200 and not answer.content
        assert answer.headers["content-length"] == client.get(path).headers["content-length"]


def test_while_a_model_is_opened_searches_and_near_items_go_on(models):
    slow, begun, free = replaced(models), threading.Event(), threading.Event()
    plain = slow.opened

    def waits(place):
        begun.set()
        assert free.wait(60)
        return plain(place)

    slow.opened = waits
    with served(make_app(slow)) as client, ThreadPoolExecutor(1) as pool:
        try:
            opened = pool.submit(client.put, "/models/bundle")
            assert begun.wait(60)
            assert client.post("/similar", json={"item": 4}, timeout=20).status_code == 200
            assert client.get("/items", params={"query": "7"}, timeout=20).status_code == 200
            assert client.put("/models/run").status_code == 422 and not opened.done()
        finally:
            free.set()
        assert opened.result().status_code == 200


def replaced(models: Models) -> Models:
    """The same models for another application: its end closes their threads."""
    opened = {models.places[name]: one.served for name, one in models.named.items()}
    return Models(models.places, opened.__getitem__)


@pytest.mark.parametrize("path", ["/items/%00", "/items/%FF", "/items/" + "x" * 5000, "/items/a%2Fb", "/items?limit=0&query=a", "/items", "/items?query=" + "%20" * 300,
                                  "/users/%ED%A0%80", "/models/none", "/page/..%2Fapp.py", "/page/../app.py", "/page/", "/recommend", "/items/1?model=../x", "/x%0Ay"])  # fmt: skip
def test_a_bad_address_is_never_an_error_of_the_server(models, path):
    with served(make_app(replaced(models))) as client:
        for method in ("GET", "PUT", "DELETE", "HEAD"):
            assert 400 <= client.request(method, path).status_code < 500, (method, path)


OPENED: list[str] = []


def test_no_path_of_a_request_is_opened(client, tmp_path):
    (tmp_path / "tainted").mkdir()
    tainted = str(tmp_path / "tainted")
    if not OPENED:  # a hook stays for the life of the process
        OPENED.append("begin")
        sys.addaudithook(lambda event, values: OPENED.append(f"{event} {values!r}") if "tainted" in repr(values) and event in ("open", "os.listdir", "os.scandir", "import") else None)  # fmt: skip
    before = len(OPENED)
    for name in (tainted, f"../{tainted}", "tainted", f"file://{tainted}"):
        for body in (
            {"items": [name]},
            {"user": name},
            {"items": [1], "model": name},
            {"items": [1], "allowed": [name]},
        ):
            client.post("/recommend", json=body)
        client.post("/similar", json={"item": name})
        client.put("/default", json={"model": name})
        for place in ("items", "users", "models", "page"):
            client.get(f"/{place}/{name}")
            client.put(f"/{place}/{name}")
        client.get("/items", params={"query": name, "model": name})
    assert len(OPENED) == before


def test_a_body_that_is_too_large_is_not_read(models):
    with served(make_app(replaced(models), most_bytes=1000)) as client:
        large = json.dumps({"items": [1], "forbidden": list(range(1000))}).encode()
        assert client.post("/recommend", content=large).status_code == 413
        in_parts = iter([b" " * 900, b" " * 900])  # so that no length is told before
        assert client.post("/recommend", content=in_parts).status_code == 413
        assert client.post("/recommend", json={"items": [1]}).status_code == 200


def test_a_key_opens_everything_and_without_it_only_the_page_and_health_answer(models):
    with served(make_app(replaced(models), key="s3cret")) as client:
        closed = ("/models", "/models/run", "/items?query=1", "/items/1", "/metrics", "/openapi.json", "/nothing")
        for given in (
            {},
            {"Authorization": "s3cret"},
            {"Authorization": "Basic s3cret"},
            {"Authorization": "Bearer s3cre"},
            {"Authorization": b"Bearer \xff"},
        ):
            for path in closed:
                answer = client.get(path, headers=given)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert client.post("/recommend", json={"items": [1]}, headers=given).status_code == 401
            assert client.put("/models/run", headers=given).status_code == 401
        assert all(client.get(path).status_code == 200 for path in ("/", "/health", "/page/page.js"))
        assert client.get("/models", headers={"Authorization": "bearer s3cret"}).status_code == 200
        client.headers["Authorization"] = "Bearer s3cret"
        assert [client.get(path).status_code for path in closed] == [200] * 6 + [404]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_without_a_key_a_server_of_this_machine_answers_by_its_own_names_alone(models, host):
    with served(make_app(replaced(models), hosts=hosts_of(host, None))) as client:
        for name in ("localhost", "LocalHost:80", "127.0.0.1:8000", "[::1]", "[::1]:8000"):
            assert client.get("/models", headers={"host": name}).status_code == 200, name
        for name in ("example.org", "example.org:8000", "localhost.example.org", "127.0.0.1.example.org", "[::2]", ""):
            for path in ("/", "/models", "/health"):
                answer = client.get(path, headers={"host": name})
                assert answer.status_code == 403 and "--key-file" in answer.json()["error"], name
        assert client.get("/health").status_code == 200
    assert hosts_of("0.0.0.0", None) is hosts_of("127.0.0.1", "a-key") is None


def test_metrics_count_requests_by_route_and_not_by_what_clients_name(models):
    with served(make_app(replaced(models))) as client:
        for item in range(30):
            client.get(f"/items/{item}")
            client.get(f"/nothing/{item}")
        text = client.get("/metrics").text
    assert 'seqcl_requests_total{method="GET",path="/items/{item:path}",status="200"}' in text
    assert text.count("seqcl_requests_total{") <= 10
    assert 'seqcl_model_items{model="run"} 40.0' in text


def test_openapi_tells_the_routes_and_the_page_needs_nothing_else(client):
    spec = client.get("/openapi.json").json()
    assert {"/recommend", "/similar", "/items/{item}", "/health"} <= spec["paths"].keys()
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "http://" not in page.text and "https://" not in page.text
    assert client.get("/docs").status_code == 404


def test_a_bundle_that_was_changed_is_not_served(bundle, tmp_path):
    for name in ("items.npy", "item_table.parquet", "item_ids.npy", "items.parquet"):
        copy = tmp_path / name
        shutil.copytree(bundle, copy)
        content = bytearray((copy / name).read_bytes())
        content[-5] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is not the file that was exported"):
            open_place(copy)


def test_one_model_gives_way_to_another_and_no_request_is_dropped(run, bundle, tmp_path):
    other = trained(tmp_path / "runs", seed=1)
    link = tmp_path / "current"
    link.symlink_to(bundle)
    first, second = (dict(one.recommend(items=[3], k=1)) for one in (run, other))
    assert first != second
    other.export(tmp_path / "other", index="flat")
    app = make_app(Models({"shop": link, "run": run.folder}, open_place))
    with served(app) as client, ThreadPoolExecutor(4) as pool:
        found, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answer = client.post("/recommend", json={"items": [3], "k": 1})
                found.append((answer.status_code, listed(answer.json())[0][1]))

        jobs = [pool.submit(ask) for _ in range(4)]
        try:
            link.unlink()
            link.symlink_to(tmp_path / "other")
            assert client.put("/models/shop").json()["folder"] == "other"
            after = len(found)
            deadline = time.monotonic() + 60
            while len(found) < after + 20:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            stop.set()
        for job in jobs:
            job.result()
        assert {status for status, _ in found} == {200}
        scores = [*first.values(), *second.values()]
        assert all(any(score == pytest.approx(one, rel=1e-5) for one in scores) for _, score in found)
        assert found[0][1] == pytest.approx(scores[0], rel=1e-5) and found[-1][1] == pytest.approx(scores[1], rel=1e-5)
        link.unlink()
        assert client.put("/models/shop").status_code == 422  # nothing is there, and the old one goes on
        assert client.post("/recommend", json={"items": [3]}).status_code == 200
        assert client.put("/default", json={"model": "run"}).json() == {"default": "run"}
        assert client.post("/recommend", json={"items": [3]}).json()["model"] == "run"
        missing = client.put("/default", json={"model": "rum"})
        assert missing.status_code == 404 and "did you mean run?" in missing.json()["error"]


def test_questions_that_come_while_the_model_is_busy_are_joined_and_a_bad_one_harms_no_other():
    sizes: list[int] = []

    def work(questions: list[int]) -> list[int]:
        sizes.append(len(questions))
        time.sleep(0.01)
        if 13 in questions:
            raise ValueError("13")
        return [2 * question for question in questions]

    async def all_of_them() -> list:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(work, executor)
            asked = [[number] for number in range(100)] + [list(range(200, 400))]
            return await asyncio.gather(*map(batcher.ask, asked), return_exceptions=True)

    found = asyncio.run(all_of_them())
    assert isinstance(found.pop(13), ValueError)
    assert found[:99] == [[2 * number] for number in range(100) if number != 13]
    assert found[99] == [2 * number for number in range(200, 400)]
    joined = [size for size in sizes if size > 1]
    assert max(sizes) == joined[0] == TOGETHER and sum(sizes) == 300 + TOGETHER  # these were asked again, each alone


def test_the_command_serves_until_it_is_interrupted(run, tmp_path):
    key = tmp_path / "key"
    key.write_text("a-key\n")
    words = ["serve", f"shop={run.folder}", "--port", "0", "--key-file", str(key)]
    process = processes.start(processes.command, words, cwd=tmp_path, stdout=tmp_path / "out", stderr=tmp_path / "err")
    deadline = time.monotonic() + 120
    while not (tmp_path / "out").exists() or not (tmp_path / "out").read_text().endswith("\n"):
        assert process.exitcode is None and time.monotonic() < deadline, (tmp_path / "err").read_text()
        time.sleep(0.05)
    address, rest = (tmp_path / "out").read_text().split(" ", 1)
    assert rest == "serves shop\n" and address.startswith("http://127.0.0.1:")
    body = json.dumps({"items": [3], "k": 2}).encode()
    asked = urllib.request.Request(f"{address}/recommend", body, {"Content-Type": "application/json", "Authorization": "Bearer a-key"})  # fmt: skip
    with urllib.request.urlopen(asked) as answer:
        same(listed(json.load(answer)), run.recommend(items=[3], k=2))
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    process.close()


def test_mistakes_on_the_command_line_are_told_in_one_line(run, bundle, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "titles.csv").write_text("item_id,title\n900,x\n")
    link = tmp_path / "same"
    link.symlink_to(run.folder)
    cases = {
        "is neither a run nor one that was exported": ["serve", str(tmp_path)],
        "two models would have the name": ["serve", str(run.folder), str(link)],
        "a key is one or more printable": ["serve", str(bundle), "--key-file", str(tmp_path / "empty")],
        "no such file": ["serve", str(bundle), "--key-file", str(tmp_path / "missing")],
        "must be 0 to 65535": ["serve", str(bundle), "--port", "99999"],
        "must be above 0": ["serve", str(bundle), "--threads", "0"],
        "--max-body inf: must be above 0 and finite": ["serve", str(bundle), "--max-body", "inf"],
        "--max-body nan: must be above 0 and finite": ["serve", str(bundle), "--max-body", "nan"],
        "has no row for any of the items": ["serve", str(bundle), "--items", str(tmp_path / "titles.csv")],
        "a name is not empty": ["serve", f"a/b={bundle}"],
        "cannot be listened at": ["serve", str(bundle), "--host", "203.0.113.1"],
    }
    for message, words in cases.items():
        assert main(words) == 2
        assert (
            message in (error := capsys.readouterr().err)
            and error.startswith("seqcl: ")
            and len(error.splitlines()) <= 2
        ), words
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith("seqcl.serve.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["serve", str(bundle)]) == 2
    assert "pip install 'seqcl[serve]'" in capsys.readouterr().err


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is on this machine")
def test_the_page_works_by_keyboard_and_on_a_phone(run, bundle, client, tmp_path):
    with closing(Chromium(tmp_path / "profile")) as page:
        page.size(1200, 900)
        page.call("Page.navigate", url=str(client.base_url))
        page.wait("document.querySelector('#one')?.value == 'run'")
        page.wait(
            "document.querySelectorAll('svg polyline').length == 2 && document.querySelectorAll('table').length == 2"
        )
        page.press("Tab", "Tab", "Tab")
        assert page.run("document.activeElement.id") == "search"
        page.press("title 1")
        page.wait("document.querySelectorAll('[role=option]').length == 11")
        page.press("ArrowDown", "ArrowDown", "ArrowUp", "Enter")  # 1, 10, 11, 10
        items = "[...document.querySelectorAll('.%s .name')].map(one => one.innerText)"
        page.wait("document.querySelectorAll('.recommended li').length == 10")
        wanted = [f"Title {item} of kind {'abc'[item % 3]}" for item, _ in run.recommend(items=[10], k=10)]
        assert page.run(items % "one") == wanted
        page.run("document.querySelector('.recommended button').focus()")
        page.press("Enter")
        page.wait("document.querySelectorAll('.history li').length == 2")
        second = run.recommend(items=[10, run.recommend(items=[10], k=1)[0][0]], k=1)[0][0]
        page.wait(f"{items % 'one'}[0] == 'Title {second} of kind {'abc'[second % 3]}'")
        page.run(
            "(two => {two.value = 'bundle'; two.dispatchEvent(new Event('change', {bubbles: true}))})(document.querySelector('#two'))"
        )
        page.wait("document.querySelectorAll('.two .recommended li').length == 10")
        assert page.run(items % "one") == page.run(items % "two")
        assert "near Title" in page.run("document.querySelector('.two .recommended').innerText")
        page.picture(tmp_path / "wide.png")
        page.size(360, 740, mobile=True)
        page.wait("innerWidth == 360")
        assert page.run("document.documentElement.scrollWidth") == 360
        assert page.run("Math.min(...[...document.querySelectorAll('button, input:not([type=checkbox]), select')].map(one => one.offsetHeight))") >= 40  # fmt: skip
        page.picture(tmp_path / "phone.png")
        assert all((tmp_path / name).stat().st_size > 20_000 for name in ("wide.png", "phone.png"))
        assert not [one for one in page.problems if "example.org" not in one]  # pictures of no network


def test_titles_may_come_from_a_file(bundle, tmp_path):
    (tmp_path / "titles.csv").write_text('item_id,name,vector\n3,Three,"[1.5, 2]"\n5,Five,\n')
    catalogue = open_place(bundle, table=tmp_path / "titles.csv").catalogue
    assert catalogue.about(4)["title"] == "Three" and "title" not in catalogue.about(5)
    assert partial(catalogue.find, limit=3)("five") == [6]
