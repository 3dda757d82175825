"""A bundle on a hub, which is a stub on this machine: what is pushed is what is pulled, and what was changed there is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import pytest
import yaml

import seqcl
from seqcl.cli.main import main
from seqcl.data import markov
from seqcl.retrieval.bundle import Bundle

hub = pytest.importorskip("huggingface_hub", reason="pip install 'seqcl[hub]'")
pytestmark = pytest.mark.once
SHA = "1" * 40


class Stub(BaseHTTPRequestHandler):
    """The calls of the hub that one commit and one download make; files lie in a dictionary of the server."""

    server: ThreadingHTTPServer

    def log_message(self, *_):
        pass

    def reply(self, code, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        files, path = self.server.files, urlparse(self.path).path
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if path == "/api/repos/create":
            self.reply(200, {"url": f"{self.server.url}/me/shop", "name": "me/shop"})
        elif "/preupload/" in path:
            told = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for one in json.loads(sent)["files"]
            ]
            self.reply(200, {"files": told})
        elif "/commit/" in path:
            for line in sent.splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            self.reply(200, {"commitUrl": f"{self.server.url}/me/shop/commit/{SHA}", "commitOid": SHA, "success": True})
        elif path == "/api/validate-yaml":
            self.reply(200, {"errors": [], "warnings": []})
        else:
            self.reply(404, {"error": path})

    def do_GET(self):
        files, path = self.server.files, unquote(urlparse(self.path).path)
        if path.startswith("/api/models/me/shop/tree/"):
            self.reply(
                200,
                [{"type": "file", "path": name, "size": len(body), "oid": blob(body)} for name, body in files.items()],
            )
        elif path.startswith("/api/models/me/shop"):
            names = [{"rfilename": name} for name in files]
            self.reply(
                200,
                {
                    "id": "me/shop",
                    "modelId": "me/shop",
                    "sha": SHA,
                    "siblings": names,
                    "tags": [],
                    "private": False,
                    "downloads": 0,
                },
            )
        elif path.startswith("/me/shop/resolve/") and (name := path.split("/", 5)[5]) in files:
            self.reply(200, files[name], ETag=f'"{blob(files[name])}"', X_Repo_Commit=SHA)
        else:
            self.reply(404, {"error": path}, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


def blob(body):
    """The hash by which the hub knows a file, which is that of git."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as made:
        made.files, made.tokens, made.url = {}, set(), f"http://127.0.0.1:{made.server_port}"
        threading.Thread(target=made.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "key")
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    log = markov(users=60, items=20, length=8, branching=2, seed=1).interactions
    small = {
        "encoder": {"dim": 8},
        "train": {"epochs": 1, "batch_size": 64},
        "eval": {"exclude_seen": False},
        "track": "none",
    }
    run = seqcl.train(log, model="SASRec", runs=str(folder), progress=False, **small)
    return run.export(folder / "bundle", index="flat")


def test_what_is_pulled_answers_as_what_was_pushed(server, bundle, tmp_path, capsys):
    assert main(["hub", "push", str(bundle), "me/shop"]) == 0
    assert capsys.readouterr().out.strip() == f"{server.url}/me/shop"
    assert server.tokens == {"Bearer key"} and set(server.files) == {
        *(file.name for file in bundle.iterdir()),
        "README.md",
    }
    assert main(["hub", "pull", "me/shop", str(tmp_path / "there")]) == 0
    assert {file.name for file in (tmp_path / "there").iterdir()} == {file.name for file in bundle.iterdir()}
    assert Bundle(tmp_path / "there", check=True).recommend([1, 2], k=5) == Bundle(bundle).recommend([1, 2], k=5)
    assert main(["hub", "pull", "me/shop", str(tmp_path / "there")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_the_card_has_the_figures_of_the_run_and_their_protocol(server, bundle, capsys):
    main(["hub", "push", str(bundle), "me/shop"])
    card = server.files["README.md"].decode()
    _, head, body = card.split("---\n", 2)
    found = yaml.safe_load(head)
    figures = json.loads((bundle / "manifest.json").read_text())["test"]
    (result,) = found["model-index"][0]["results"]
    assert {one["type"]: one["value"] for one in result["metrics"]} == {
        name: round(value, 4) for name, value in figures.items()
    }
    assert found["library_name"] == "seqcl" and "| split | leave_one_out |" in body and "# SASRec on markov" in body


def test_what_was_changed_is_neither_pushed_nor_pulled(server, bundle, tmp_path, capsys):
    main(["hub", "push", str(bundle), "me/shop"])
    server.files["items.npy"] = server.files["items.npy"][:-1] + b"x"
    assert main(["hub", "pull", "me/shop", str(tmp_path / "there")]) == 2
    assert "hub pull me/shop: items.npy is not the file that was exported" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()
    before = dict(server.files)
    (tmp_path / "copy").mkdir()
    for file in bundle.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "copy" / "query.safetensors").write_bytes(b"other")
    assert main(["hub", "push", str(tmp_path / "copy"), "me/shop"]) == 2
    assert "query.safetensors is not the file that was exported" in capsys.readouterr().err and server.files == before


def test_what_goes_wrong_is_one_line(server, bundle, tmp_path, monkeypatch, capsys):
    assert main(["hub", "pull", "me/none", str(tmp_path / "there")]) == 2
    assert (said := capsys.readouterr().err).startswith("seqcl: hub pull me/none: ") and said.count("\n") == 1
    assert main(["hub", "push", str(tmp_path), "me/shop"]) == 2
    assert "is no bundle" in capsys.readouterr().err
    for name in ("shop", "me/shop/more", "/shop", "me/..", "me/shop\n"):  # before any work: the folder is no bundle
        assert main(["hub", "push", str(tmp_path), name]) == 2
        assert "give OWNER/NAME, such as shop/beauty-sasrec" in capsys.readouterr().err
        assert main(["hub", "pull", name, str(tmp_path)]) == 2
        assert "give OWNER/NAME" in capsys.readouterr().err
    monkeypatch.setattr("seqcl.retrieval.hub.find_spec", lambda name: None)
    assert main(["hub", "pull", "me/shop", str(tmp_path / "there")]) == 2
    assert "pip install 'seqcl[hub]'" in capsys.readouterr().err
