"""`seqcl serve`: runs and bundles over HTTP, with a page."""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from seqcl.disk import read_text
from seqcl.errors import UserError, brief

KEY = "SEQCL_SERVE_KEY"


def add_serve(commands: Any, add_plugin: Callable[[argparse.ArgumentParser], None]) -> None:
    """Give the command line the command."""
    command = commands.add_parser("serve", help="answer over HTTP, with a page to look at; needs seqcl[serve]")
    command.add_argument("places", nargs="+", metavar="[NAME=]PLACE", help="run folders, or exported ones; the first is the default")  # fmt: skip
    add_plugin(command)
    command.add_argument("--port", type=int, default=8000, help="0: a free one (default: 8000)")
    command.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all of this machine (default: 127.0.0.1)")  # fmt: skip
    command.add_argument("--key-file", type=Path, metavar="FILE", help=f"the key that requests must bring is its first line; or set {KEY}")  # fmt: skip
    command.add_argument("--items", type=Path, metavar="FILE", help="titles, pictures or attributes of items: .csv, .tsv or .parquet with a column of ids")  # fmt: skip
    command.add_argument("--search", choices=("index", "exact"), default="index", help="how an exported folder looks for items (default: index)")  # fmt: skip
    command.add_argument("--threads", type=int, default=1, help="processor threads of one answer (default: 1)")
    command.add_argument("--max-body", type=float, default=1, metavar="MIB", help="largest body of a request (default: 1)")  # fmt: skip


def serve(chosen: argparse.Namespace) -> int:
    """`seqcl serve PLACE...`: answers until it is interrupted."""
    try:
        import uvicorn

        from seqcl.serve.app import make_app
        from seqcl.serve.models import Models
        from seqcl.serve.opening import open_place
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "seqcl":
            raise
        raise UserError(f"serve needs {error.name}: pip install 'seqcl[serve]'") from None
    import torch

    if not 0 <= chosen.port < 65536:
        raise UserError(f"--port {chosen.port}: must be 0 to 65535")
    if chosen.threads < 1:
        raise UserError(f"--threads {chosen.threads}: must be above 0")
    if not 0 < chosen.max_body < math.inf:
        raise UserError(f"--max-body {chosen.max_body:g}: must be above 0 and finite")
    places, key = named_places(chosen.places), key_of(chosen.key_file)
    if key is None and not is_loopback(chosen.host):
        print(f"seqcl: anyone who reaches {chosen.host} may ask, for no key is set: --key-file FILE", file=sys.stderr)
    torch.set_num_threads(chosen.threads)
    with listening(chosen.host, chosen.port) as door:
        opened = partial(open_place, search=chosen.search, plugins=chosen.plugin, table=chosen.items)
        app = make_app(
            Models(places, opened),
            key=key,
            hosts=hosts_of(chosen.host, key),
            most_bytes=int(chosen.max_body * (1 << 20)),
        )
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, limit_concurrency=1000,
            timeout_graceful_shutdown=30,
        )  # fmt: skip
        host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
        print(f"http://{host}:{door.getsockname()[1]} serves {', '.join(places)}", flush=True)
        uvicorn.Server(config).run(sockets=[door])
    return 0


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; a client that comes before the models are open waits.

    Raises:
        UserError: the address is not one of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"--host {host} --port {port} cannot be listened at: {brief(error)}") from None


def named_places(words: Sequence[str]) -> dict[str, Path]:
    """Folders by name: as given, or the name of the folder that a link leads to.

    Raises:
        UserError: two have one name.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        place = Path(rest if equals and rest and not Path(word).exists() else word)
        name = name if place != Path(word) else place.resolve().name
        if name in found:
            raise UserError(f"two models would have the name {name}: write NAME={place}")
        if "/" in name or not name:
            raise UserError(f"{word}: a name is not empty and has no slash")
        found[name] = place
    return found


def key_of(file: Path | None) -> str | None:
    """The key from a file, or from the environment.

    Raises:
        UserError: it is empty, or not of printable ASCII letters.
    """
    key = os.environ.get(KEY) if file is None else next(iter(read_text(file).splitlines()), "").strip()
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise UserError(
            f"{KEY if file is None else file}: a key is one or more printable ASCII letters, without a space"
        )
    return key


def hosts_of(host: str, key: str | None) -> set[str] | None:
    """The names by which requests may call a server that listens at `host`; None: anything, where a key or the network decides."""
    if key is not None or not is_loopback(host):
        return None
    return {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
