"""The HTTP application: what it answers, and how mistakes in a request are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from seqcl.errors import UserError
from seqcl.serve import schema
from seqcl.serve.gate import Gate
from seqcl.serve.models import Models
from seqcl.serve.replies import lists_of, number_of, refused, reply, told, whole
from seqcl.version import VERSION

PAGE = Path(__file__).parent / "page"
FILES = {"page.js": "text/javascript", "preact.js": "text/javascript", "page.css": "text/css"}
Found = TypeVar("Found")


def make_app(
    models: Models, *, key: str | None = None, hosts: Collection[str] | None = None, most_bytes: int = 1 << 20
) -> FastAPI:
    """Make the application.

    Args:
        models: what answers.
        key: the key that requests bring; None: none is needed.
        hosts: what requests may call this server, without a port; None: anything.
        most_bytes: of the body of a request.
    """

    @asynccontextmanager
    async def lifetime(app: FastAPI) -> AsyncIterator[None]:
        yield
        models.close()

    app = FastAPI(
        title="seqcl", version=VERSION, docs_url=None, redoc_url=None, lifespan=lifetime,
        responses={status: {"model": schema.Error} for status in (401, 403, 404, 408, 413, 422, 500)},
    )  # fmt: skip
    app.add_middleware(Gate, counters=models.counters, key=key, hosts=hosts, most_bytes=most_bytes)
    for kind in (RequestValidationError, UserError, HTTPException, Exception):
        app.add_exception_handler(kind, refused)

    for routes in (asking, knowing, choosing, telling):
        routes(app, models)
    return app


async def look(models: Models, work: Callable[..., Found], *arguments: Any) -> Found:
    """Do a search beside the calls of models."""
    return await asyncio.get_running_loop().run_in_executor(models.looking, work, *arguments)


def asking(app: FastAPI, models: Models) -> None:
    """Answer with recommendations and with near items."""

    @app.post("/recommend", response_model=schema.Lists)
    async def recommend(body: schema.Recommend) -> Response:
        """Recommend items for a history, for a user of a run, or for a batch of these."""
        model = models.find(body.model)
        lists, known = await lists_of(model, body)
        if body.batch is not None:
            return reply({"model": model.name, "items": [], "answers": lists, **known})
        return reply({"model": model.name, **lists[0], **known}, 404 if "error" in lists[0] else 200)

    @app.post("/similar", response_model=schema.Near)
    async def similar(body: schema.Similar) -> Response:
        """Find the items with the largest cosine to one."""
        model = models.find(body.model)
        cosines, items = await look(models, model.served.near, number_of(model, body.item), body.k)
        near = zip(items.tolist(), cosines.tolist(), strict=True)
        about = model.served.catalogue.about
        found = [about(item, attributes=body.details) | {"similarity": cosine} for item, cosine in near]
        return reply({"model": model.name, "items": found})


def knowing(app: FastAPI, models: Models) -> None:
    """Answer with what is known of items and of users."""

    @app.get("/items", response_model=schema.Found)
    async def search(asked: Annotated[schema.Search, Query()]) -> Response:
        """Find items by a part of their id or title."""
        chosen = models.find(asked.model)
        catalogue = chosen.served.catalogue
        found = await look(models, catalogue.find, asked.query, asked.limit)
        return reply({"model": chosen.name, "items": [catalogue.about(item, attributes=False) for item in found]})

    @app.get("/items/{item:path}", response_model=schema.Item, response_model_exclude_none=True)
    async def item(item: str, asked: Annotated[schema.Which, Query()]) -> Response:
        """Tell what is known of an item."""
        chosen = models.find(asked.model)
        return reply(chosen.served.catalogue.about(number_of(chosen, item)))

    @app.get("/users/{user:path}", response_model=schema.Past)
    async def user(user: str, asked: Annotated[schema.Newest, Query()]) -> Response:
        """Tell the newest items of a user of a run, oldest first."""
        chosen = models.find(asked.model)
        history, _ = chosen.served.history(user)
        about = chosen.served.catalogue.about
        items = [about(one, attributes=False) for one in history[-asked.limit :].tolist()]
        return reply({"model": chosen.name, "items": items, "left_out": len(history) - len(items)})


def choosing(app: FastAPI, models: Models) -> None:
    """Tell which models there are, open one again, and choose the default."""

    @app.get("/models")
    async def listed() -> Response:
        """Tell which models there are."""
        return reply({"default": models.default, "models": [told(model) for model in models.named.values()]})

    @app.get("/models/{name}")
    async def one(name: str) -> Response:
        """Tell the protocol and the figures of a model, the slices and the epochs of a run."""
        return reply(whole(models.find(name)))

    @app.put("/models/{name}")
    async def reopen(name: str) -> Response:
        """Open the folder of a model again, as it was named at the start; requests go on meanwhile."""
        return reply(told(await models.reopen(name)))

    @app.put("/default")
    async def switch(body: schema.Default) -> Response:
        """Let another model answer where a request names none."""
        models.default = models.find(body.model).name
        return reply({"default": models.default})


def telling(app: FastAPI, models: Models) -> None:
    """Tell that the server answers, its counters, and its page."""

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Response:
        """Tell that the server answers."""
        return reply({"status": "ok", "models": len(models.named), "version": VERSION})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(models.counters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")

    for name, media in FILES.items():  # no name from a request is a path

        @app.get(f"/page/{name}", include_in_schema=False)
        async def file(name: str = name, media: str = media) -> Response:
            return FileResponse(PAGE / name, media_type=media)
