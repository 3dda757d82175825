"""From the body of a request to questions, and from answers and mistakes to JSON."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from seqcl.data.raw_ids import such
from seqcl.errors import UserError, brief
from seqcl.serve import schema
from seqcl.serve.models import Named
from seqcl.serve.opening import plain
from seqcl.serve.served import NOTHING, Answer, Missing, Question

FORMS: dict[str, type[BaseModel]] = {
    "/recommend": schema.Recommend,
    "/similar": schema.Similar,
    "/default": schema.Default,
    "/items": schema.Search,
    "/items/{item:path}": schema.Which,
    "/users/{user:path}": schema.Newest,
}
"""The keys of a request's body or query, by the address that it is sent to."""


def reply(content: Any, status: int = 200) -> Response:
    """Answer with JSON; letters beyond ASCII are escaped, since an id may have half of one."""
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")


async def lists_of(model: Named, body: schema.Recommend) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lists for the histories of a request, and the other ids that the model does not know."""
    served = model.served
    allowed, strange = (None, []) if body.allowed is None else served.numbers(body.allowed)
    if allowed is not None:
        if not len(allowed):
            raise Missing(
                f"{served.about['model']} knows none of the allowed items{such(strange, np.arange(len(strange)))}"
            )
        allowed = np.unique(allowed)
    forbidden, odd = served.numbers(body.forbidden)
    unknown = {"unknown_allowed": strange, "unknown_forbidden": odd}
    lists: list[dict[str, Any]] = []
    asked: list[tuple[dict[str, Any], Question]] = []
    for one in body.histories:
        lists.append({"items": [], "unknown": []})
        user = -1
        if one.items is not None:
            history, lists[-1]["unknown"] = served.numbers(one.items)
            if not len(history):
                lists[-1]["error"] = f"{served.about['model']} knows none of these items"
        else:
            try:
                history, user = served.history(one.user)  # type: ignore[arg-type]
            except Missing as error:
                history, lists[-1]["error"] = NOTHING, str(error)
        if len(history):
            seen = history if body.exclude_seen else NOTHING
            barred = np.unique(np.concatenate((seen, forbidden)))
            asked.append((lists[-1], Question(history=history, barred=barred, k=body.k, user=user, allowed=allowed)))
    if asked:
        answers = await model.batcher.ask([question for _, question in asked])
        for (found, question), answer in zip(asked, answers, strict=True):
            found["items"] = items_of(model, question, answer, body)
    return lists, {key: ids for key, ids in unknown.items() if ids}


def items_of(model: Named, question: Question, answer: Answer, body: schema.Recommend) -> list[dict[str, Any]]:
    """The recommended items with their scores, and their reasons if these are asked for."""
    about = model.served.catalogue.about
    scores, items = answer
    found = [
        about(item, attributes=body.details) | {"score": score}
        for item, score in zip(items.tolist(), scores.tolist(), strict=True)
    ]
    if body.why:
        for one, reasons in zip(found, model.served.reasons(question, items), strict=True):
            one["because"] = [about(item, attributes=False) | {"similarity": cosine} for item, cosine in reasons]
    return found


def number_of(model: Named, raw: int | str) -> int:
    """The item 1..N of a raw id.

    Raises:
        Missing: the model does not know it.
    """
    found, _ = model.served.numbers([raw])
    if not len(found):
        raise Missing(f"{model.served.about['model']} has no item {brief(repr(raw), 60)}")
    return int(found[0])


def told(model: Named) -> dict[str, Any]:
    """What a client chooses a model by."""
    served = model.served
    facts = {key: served.about[key] for key in ("kind", "folder", "model", "data")}
    return plain(
        {
            "name": model.name,
            **facts,
            "items": served.num_items,
            "users": None if served.sequences is None else served.sequences.num_users,
            "titles": served.catalogue.title is not None,
            "vectors": served.vectors is not None,
        }
    )


def whole(model: Named) -> dict[str, Any]:
    """The same with the protocol and the figures, the slices and epochs of a run."""
    facts = ("protocol", "test", "valid", "slices", "history")
    return told(model) | plain({fact: model.served.about.get(fact) for fact in facts})


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a request with a mistake: what is wrong, in one line."""
    if isinstance(error, RequestValidationError):
        kind, route = request.headers.get("content-type", ""), getattr(request.scope.get("route"), "path", "")
        return reply({"error": "; ".join(invalid(one, kind, route) for one in error.errors()[:5])}, 422)
    if isinstance(error, HTTPException):
        response = reply({"error": str(error.detail)}, error.status_code)
        response.headers.update(error.headers or {})
        return response
    if isinstance(error, UserError):
        return reply({"error": str(error)}, 404 if isinstance(error, Missing) else 422)
    return reply({"error": "the server failed at this request; its log has the reason"}, 500)  # and it is raised again


def invalid(error: dict[str, Any], kind: str, route: str) -> str:
    """One mistake in the form of a request to an address, whose content has a kind, with its place."""
    source, *places = error["loc"]
    if source == "body" and (error["type"] == "json_invalid" or not places):
        return no_object(error, kind)
    place = ".".join(str(part) for part in places if not str(part).startswith(("function-", "constrained")))
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        key = str(places[-1])
        if places[0] == "batch" and key in schema.Recommend.model_fields:
            return f"{place}: {key} stands beside batch, for all its histories"
        form = schema.History if places[0] == "batch" else FORMS.get(route)
        near = get_close_matches(key, form.model_fields if form else (), n=1, cutoff=0.5)
        text = f"no such key{f'; did you mean {near[0]}?' if near else ''}"
    return brief(f"{place}: {text}" if place else text, 300)


def no_object(error: dict[str, Any], kind: str) -> str:
    """What is wrong with a body that is no object of JSON, or with one whose keys do not fit together."""
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return 'the body is empty: send an object of JSON, such as {"items": [50]}'
    if error["type"] == "json_invalid":
        return f"the body is no JSON: {error['ctx']['error']}, at letter {error['loc'][-1]}"
    if "json" not in kind:
        return "the body is not read as JSON: send it with the header content-type: application/json"
    return 'the body is no object of JSON, such as {"items": [50]}'
