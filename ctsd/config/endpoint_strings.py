"""
Twisted's endpoint strings: taken apart, put together again, and put in terms of our own TLS.

The grammar is that of C{twisted.internet.endpoints.serverFromString}: parts between colons, a
name before C{=}, a backslash before what shall have no meaning. A part may be a prefix that stands
before another endpoint, such as C{auth:USERS:tcp:8000}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

#: Prefixes that stand before another endpoint, with the names of their own arguments.
WRAPPERS: dict[str, tuple[str, ...]] = {
    "auth": ("users",),
    "haproxy": (),
    "tls-wrap": ("privateKey", "certKey"),
}

#: The prefix of a socket that the supervisor of workers keeps: its descriptor stands behind it.
LENT = "ctsd-lent"

#: Further arguments of C{tls-wrap}, always with their names.
TLS_OPTIONS = ("extraCertChain", "dhParameters")

# The names of positional arguments, as Twisted's parsers have them (twisted.internet.endpoints).
_POSITIONS: dict[str, tuple[str, ...]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
    ),
    "tls": ("path", "port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}


class BadEndpoint(ValueError):
    """This is no endpoint string that can be listened on; the message says what was expected."""


@frozen
class Part:
    """One colon-separated part; C{name} is empty for a positional one."""

    name: str
    value: str


@frozen
class Layer:
    """
    One prefix with its arguments, or the endpoint that they stand before.

    :ivar kind: C{auth}, C{tcp}, ...
    :ivar at: where it stands among the parts.
    :ivar arguments: where each of them stands among the parts, by name.
    """

    kind: str
    at: int
    arguments: Mapping[str, int]


def split(description: str) -> list[Part]:
    """The parts of an endpoint string, unescaped."""
    parts: list[Part] = []
    name, current = "", ""
    named = False
    characters = iter(description)
    for character in characters:
        if character == "\\":
            current += next(characters, "")
        elif character == ":":
            parts.append(Part(name, current))
            name, current, named = "", "", False
        elif character == "=" and not named:
            name, current, named = current, "", True
        else:
            current += character
    return [*parts, Part(name, current)]


def _quoted(value: str) -> str:
    # Twisted's quoteStringArgument leaves "=" bare, which makes a name of what stands before it.
    return value.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")


def joined(parts: Iterable[Part]) -> str:
    """The endpoint string of these parts."""
    return ":".join(
        (f"{_quoted(part.name)}=" if part.name else "") + _quoted(part.value) for part in parts
    )


def layers(parts: list[Part]) -> list[Layer]:
    """
    What stands before what, outermost first; the last one is the endpoint itself, of kind C{""}
    when there is none.

    :raises BadEndpoint: a prefix has no argument that it needs.
    """
    found: list[Layer] = []
    at = 0
    while True:
        kind = parts[at].value if at < len(parts) and not parts[at].name else ""
        names = WRAPPERS.get(kind, _POSITIONS.get(kind, ()))
        end = len(parts)
        if kind in WRAPPERS:
            end = at + 1 + len(names)
            while kind == "tls-wrap" and end < len(parts) and parts[end].name in TLS_OPTIONS:
                end += 1
        arguments: dict[str, int] = {}
        position = 0
        for place in range(at + 1, min(end, len(parts))):
            name = parts[place].name
            if not name:
                name = names[position] if position < len(names) else str(position)
                position += 1
            arguments[name] = place
        found.append(Layer(kind, at, arguments))
        if kind not in WRAPPERS:
            return found
        missing = set(names) - arguments.keys()
        if missing:
            raise BadEndpoint(f"expected {min(missing)} (\\ before each : and = in it)")
        at = end


def reloading(description: str) -> str:
    """
    The same endpoint, with C{tls-wrap:} in the place of C{ssl:}, which Twisted reads once and
    which no plugin can replace. Arguments of prefixes get their names.

    :raises BadEndpoint: C{sslmethod} is given, or TLS stands before TLS.
    """
    parts = split(description)
    *wrappers, last = layers(parts)
    kinds = [layer.kind for layer in wrappers]
    for kind in ("auth", "tls-wrap"):
        if kinds.count(kind) > 1:
            raise BadEndpoint(f"expected {kind}: once")
    if "tls-wrap" in kinds and last.kind in ("ssl", "tls"):
        raise BadEndpoint(f"expected no {last.kind}: behind tls-wrap:")
    renamed: list[Part] = []
    for layer in wrappers:
        renamed.append(Part("", layer.kind))
        renamed += [Part(name, parts[at].value) for name, at in layer.arguments.items()]
    own = {name: parts[at].value for name, at in last.arguments.items()}
    if last.kind != "ssl":
        for name in TLS_OPTIONS:
            if name in own:
                raise BadEndpoint(f"expected {name}= right behind tls-wrap's other arguments")
        return joined([*renamed, *parts[last.at :]])
    if "sslmethod" in own:
        raise BadEndpoint("expected no sslmethod: TLS 1.2 and newer are spoken")
    key = own.pop("privateKey", "server.pem")
    certificate = own.pop("certKey", key)
    tls = {"privateKey": key, "certKey": certificate}
    tls |= {name: own.pop(name) for name in TLS_OPTIONS if name in own}
    renamed += [Part("", "tls-wrap"), *(Part(*pair) for pair in tls.items())]
    return joined([*renamed, Part("", "tcp"), *(Part(*pair) for pair in own.items())])


def innermost(description: str) -> str:
    """The endpoint alone, without what stands before it."""
    parts = split(description)
    return joined(parts[layers(parts)[-1].at :])


def on_lent(description: str, descriptor: int) -> str:
    """
    The same wrappers before a socket that listens already.

    :param description: in the form of L{reloading}.
    """
    parts = split(description)
    last = layers(parts)[-1]
    return joined([*parts[: last.at], Part("", LENT), Part("", str(descriptor))])


def arguments_of(description: str) -> dict[str, str]:
    """The arguments of an endpoint without wrappers, by their names."""
    parts = split(description)
    return {name: parts[at].value for name, at in layers(parts)[-1].arguments.items()}


def taken_apart(
    kind: str, args: tuple[str, ...], kwargs: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """
    What a parser of endpoint strings got: its own arguments, and the string of the endpoint that
    it stands before, in the form of L{reloading}.

    :param kind: its prefix.
    :raises BadEndpoint: some are missing.
    """
    left, named = list(args), dict(kwargs)
    own = _own(kind, left, named)
    # The parser has torn all names from where they stood.
    rest: list[Part] = []
    while left and left[0] in WRAPPERS:
        kind = left.pop(0)
        rest.append(Part("", kind))
        rest += [Part(*pair) for pair in _own(kind, left, named).items()]
    rest += [Part("", value) for value in left]
    rest += [Part(name, value) for name, value in named.items()]
    return own, reloading(joined(rest))


def _own(kind: str, left: list[str], named: dict[str, str]) -> dict[str, str]:
    """Take a prefix' own arguments out of those that are left."""
    own: dict[str, str] = {}
    for name in WRAPPERS[kind]:
        if name not in named and not left:
            raise BadEndpoint(f"expected {name}")
        own[name] = named.pop(name) if name in named else left.pop(0)
    if kind == "tls-wrap":
        own |= {name: named.pop(name) for name in TLS_OPTIONS if name in named}
    return own
