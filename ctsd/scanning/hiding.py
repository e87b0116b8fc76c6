"""A searcher's own words, without what must not be repeated. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import quote, quote_plus

from ctsd.model import PASSWORD, Secret
from ctsd.scanning.source import Question

#: Of what is longer, only its plain spelling is looked for.
_MAX_SPELLED_CHARS = 8192

#: Of an artifact of more texts than that (recipients) nothing is repeated: to look for each of them
#: would hold the reactor.
MAX_TEXTS = 200


def hiding(text: str, question: Question, settings: Mapping[str, Any]) -> str:
    """
    A text without the artifact's value and the secrets in its searcher's settings, however they
    are spelled: as they are, as Python or JSON show them, or as a part of a URL. Nothing is left of
    it when the artifact has too many texts to look for.
    """
    if question.type == PASSWORD:
        return "(hidden)"
    values = list(islice(_texts(question.value), MAX_TEXTS + 1))
    if len(values) > MAX_TEXTS:
        return "(hidden)"
    secrets = (one for one in _texts(settings) if isinstance(one, Secret))
    text = _without(text, secrets, "(secret)")
    return _without(text, values, "(the artifact)")


def _without(text: str, hidden: Iterable[str], instead: str) -> str:
    spelled = {spelling for one in hidden if one for spelling in _spellings(one)}
    # What is a part of another one would leave the rest of it.
    for spelling in sorted(spelled, key=lambda one: (-len(one), one)):
        text = text.replace(spelling, instead)
    return text


def _spellings(hidden: str) -> Iterator[str]:
    # Not as what it is: a secret's repr hides it.
    plain = str.__str__(hidden)
    yield plain
    if len(plain) > _MAX_SPELLED_CHARS:
        return
    yield repr(plain)[1:-1]
    yield json.dumps(plain)[1:-1]
    for safe in ("", "/", ":/?&=%"):
        yield quote(plain, safe=safe, errors="replace")
    yield quote_plus(plain, errors="replace")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
