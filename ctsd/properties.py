"""What hits and threats are made of, from whatever an author of searchers has."""

from __future__ import annotations

from typing import Any

from ctsd.model import Artifact, Property


def _fields(given: Any, names: tuple[str, ...]) -> list[Any] | None:
    if isinstance(given, dict):
        values = [given.get(name) for name in names]
    elif isinstance(given, list | tuple):
        values = list(given)
    else:
        values = [getattr(given, name, None) for name in names]
    if len(values) != len(names) or any(value is None or value == "" for value in values):
        return None
    return values


def as_artifact(given: Any) -> Artifact | None:
    """An artifact from whatever has C{type} and C{value}; None when one of them is missing."""
    if isinstance(given, Artifact):
        return given
    values = _fields(given, ("type", "value"))
    return Artifact(str(values[0]), values[1]) if values else None


def as_property(given: Any) -> Property | None:
    """A property from whatever has type, name and value; None when one of them is missing."""
    values = _fields(given, ("type", "name", "value"))
    return Property(str(values[0]), str(values[1]), values[2]) if values else None


def string(name: str, value: str) -> Property:
    """A property that shows as text."""
    return Property("string", name, value)


def number(name: str, value: float | int) -> Property:
    """A property that shows as a number."""
    return Property("number", name, value)


def uri(name: str, value: str) -> Property:
    """
    A property that shows as a B{clickable link}: only for http(s) links to pages about the
    finding, made from a template of your own; never for a URL out of a feed.
    """
    return Property("uri", name, value)


def ip(name: str, value: str) -> Property:
    """A property that shows as an address."""
    return Property("ip", name, value)


def lat_lng(name: str, lat: float, lng: float) -> Property:
    """A property that shows as a place; degrees."""
    return Property("lat_lng", name, {"lat": lat, "lng": lng})
