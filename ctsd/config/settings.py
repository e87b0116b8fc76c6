"""
The configuration as frozen values.

Every field that stands for a key of the file was made by L{ctsd.config.tables.key}, with its
check and with one line of documentation; L{documented} lists them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ctsd.config import checks
from ctsd.config.document import Document
from ctsd.config.listeners import Listener, listener
from ctsd.config.matching import Matching
from ctsd.config.outbound import OutboundSettings
from ctsd.config.searchers import Searchers, SearcherSettings, ServiceSettings
from ctsd.config.store_url import listen_url, secret, store_url
from ctsd.config.tables import default_of, keys_of
from ctsd.config.tables import key as _key

_MIB = 1024**2
_GIB = 1024**3
_HOUR_SECS = 3600
_DAY_SECS = 86400
_CENTURY_DAYS = 36525.0
_CENTURY_SECS = _CENTURY_DAYS * _DAY_SECS


def _secs(minimum: float, about: str, default: float) -> Any:
    return _key(checks.amount(minimum, _CENTURY_SECS, "seconds"), about, default=default)


@frozen(kw_only=True)
class Store:
    """C{[store]}: the database."""

    url: str = _key(
        store_url,
        "The database: `sqlite:` and a file, relative to `state_dir`, or "
        "`postgresql://user@host:port/database`",
        default="sqlite:ctsd.sqlite",
    )
    password: str | None = _key(
        secret,
        'PostgreSQL\'s: `{ env = "NAME" }` or `{ file = "PATH" }`',
        default=None,
        shown="none",
        hidden=True,
    )
    listen_url: str | None = _key(
        listen_url,
        "Where PostgreSQL itself is, when `url` leads to a pooler: there it is listened to what "
        'other nodes tell; `""`: they are asked',
        default=None,
        shown="url",
    )
    node_lease_secs: float = _secs(
        1, "After how long without a word others take a node for dead, and finish its scans", 12.0
    )
    max_bytes: int = _key(
        checks.whole(1),
        "Above this size the oldest finished scans go; when that does not help, 503",
        default=10 * _GIB,
    )
    threat_days: float = _key(
        checks.amount(0, _CENTURY_DAYS, "days"),
        "How long the local database keeps what a searcher found",
        default=7.0,
    )


@frozen(kw_only=True)
class Upload:
    """C{[upload]}: uploaded files."""

    enabled: bool = _key(checks.flag, "Whether files may be uploaded", default=True)
    dir: Path | None = _key(  # noqa: RUF009 - the value of a field specifier is no default
        checks.path,
        "Where files lie; on a file system that nodes share, any of them finishes a file's scan",
        default=None,
        shown="state_dir's `spool`",
    )
    max_bytes: int = _key(
        checks.whole(1), "The largest file; a larger one is 413", default=2 * _GIB
    )
    keep_secs: float = _secs(
        0, "How long a file is kept for searchers that could not be asked", 3600.0
    )
    max_concurrent: int = _key(checks.whole(1), "Uploads at once; further ones are 503", default=8)
    spool_max_bytes: int = _key(
        checks.whole(1), "What all uploaded files may take together; beyond, 503", default=20 * _GIB
    )
    keep_free_bytes: int = _key(
        checks.whole(0),
        "No upload is taken that leaves less free disk than this",
        default=256 * _MIB,
    )


@frozen(kw_only=True)
class Http:
    """C{[http]}: limits of connections and requests."""

    max_json_bytes: int = _key(
        checks.whole(1), "The largest JSON body or `artifact` part", default=32 * _MIB
    )
    max_body_memory_bytes: int = _key(
        checks.whole(1),
        "What all bodies in memory may take together; beyond, 503",
        default=256 * _MIB,
    )
    max_connections: int = _key(
        checks.whole(1),
        "Open connections to one listener; further ones are closed at once",
        default=4096,
    )
    idle_secs: float = _secs(0.1, "How long a connection may wait without a request", 60.0)
    min_rate_bytes_per_sec: int = _key(
        checks.whole(0), "A slower body, or reader of an answer, is closed", default=500
    )
    drain_secs: float = _secs(0, "How long the rest of a body is read after an early answer", 60.0)


@frozen(kw_only=True)
class Settings:
    """
    The whole configuration. Every path in it is absolute.

    :ivar feeds: the tables C{[feeds.<name>]} as they are written, but for secrets, which are read
        already; see L{ctsd.feeds.descriptions}.
    :ivar document: the file that it came from; makes errors that name file and line.
    :ivar secret_variables: the environment variables that held secrets.
    """

    state_dir: Path = _key(  # noqa: RUF009 - the value of a field specifier is no default
        checks.path,
        "Database, uploaded files and indexes; made with mode 0700",
        shown='`$STATE_DIRECTORY`, else `"var"`',
    )
    listen: tuple[Listener, ...] = _key(
        checks.each(listener, at_least=1, of="endpoint strings"),
        "Where to listen: Twisted endpoint strings",
        shown='`["tcp:8000:interface=127.0.0.1"]`',
    )
    workers: int = _key(
        checks.processes,
        'Processes that answer, behind one that watches them; 1: one process in all; `"auto"`: '
        "one a core",
        default=1,
    )
    leave_secs: float = _key(
        checks.amount(0, _HOUR_SECS, "seconds"),
        "How long, on SIGTERM, it goes on answering while `/health/ready` is 503 and connections "
        "are closed after their answer: for a balancer to turn away",
        default=0.0,
    )
    allowed_hosts: tuple[str, ...] = _key(
        checks.each(checks.host, of="host names"),
        "The names that browsers may use in `Host`; empty: any, but a loopback listener takes "
        "loopback names alone",
        default=(),
    )
    first_answer_secs: float = _secs(
        0, "The longest an async searcher may hold the first answer", 1.0
    )
    post_deadline_secs: float = _secs(0.001, "The longest anything may", 3.0)
    search_timeout_secs: float = _secs(0.001, "One searcher, one try", 30.0)
    scan_deadline_secs: float = _secs(
        0.001, "How long a searcher that could not be asked is asked again", float(_DAY_SECS)
    )
    when_incomplete: str = _key(
        checks.one_of("resend", "tell", "ignore"),
        'After that: `"resend"` (503, the platform sends the artifact again), `"tell"` (a hit '
        'that names who could not be asked), `"ignore"` (200)',
        default="resend",
    )
    retention_days: float = _key(
        checks.amount(0, _CENTURY_DAYS, "days"), "How long finished scans are kept", default=30.0
    )
    max_scans: int = _key(checks.whole(1), "Scans in flight; beyond, 503", default=10_000)
    blocking_threads: int = _key(
        checks.whole(1, 1000), "Threads for searchers that block", default=32
    )
    short_path: bool = _key(
        checks.flag,
        "Whether the three protocol routes go past Klein; same answers, faster",
        default=True,
    )
    log_values: bool = _key(
        checks.flag, "Whether the log shows artifacts' values (never passwords)", default=False
    )
    browser_page: bool = _key(
        checks.flag,
        "Whether `GET /` gives a browser the page, on loopback and `auth:` listeners",
        default=True,
    )
    store: Store = field(factory=Store)
    upload: Upload = field(factory=Upload)
    http: Http = field(factory=Http)
    outbound: OutboundSettings = field(factory=OutboundSettings)
    matching: Matching = field(factory=Matching)
    searchers: Searchers = field(factory=Searchers)
    services: dict[str, ServiceSettings] = field(factory=dict)
    feeds: dict[str, dict[str, Any]] = field(factory=dict, repr=False)
    document: Document = field(repr=False, eq=False)
    secret_variables: frozenset[str] = frozenset()

    @property
    def base_dir(self) -> Path:
        """What relative paths are relative to."""
        return self.document.base_dir

    @property
    def users(self) -> dict[str, frozenset[str]]:
        """Who may ask a service, for services that not every user may ask."""
        return {
            name: frozenset(service.users)
            for name, service in self.services.items()
            if service.users is not None
        }

    @property
    def feeds_dir(self) -> Path:
        """Where the copies of feeds lie, each in a directory of its own."""
        return self.outbound.feeds_dir or self.state_dir / "feeds"

    @property
    def store_path(self) -> Path:
        """
        The file of an SQLite store.

        :raises ConfigError: it is not on SQLite.
        """
        scheme, _, path = self.store.url.partition(":")
        if scheme != "sqlite":
            raise self.document.error(
                ("store", "url"), "is no SQLite file, which this needs; see docs/postgresql.md"
            )
        return self.state_dir / path

    @property
    def upload_dir(self) -> Path:
        """Where uploaded files lie."""
        return self.upload.dir or self.state_dir / "spool"

    @property
    def threat_index(self) -> Path:
        """The index of the local database."""
        return self.state_dir / "index" / "threats"

    @property
    def feed_index(self) -> Path:
        """The directory with the index of all feeds."""
        return self.state_dir / "index" / "feeds"

    def index(self, searcher: str, keep: str) -> Path:
        """An index that a searcher keeps under a name."""
        return self.state_dir / "index" / f"{searcher}-{keep}"

    def data_dir(self, searcher: str) -> Path:
        """A searcher's own directory."""
        return self.state_dir / "searchers" / searcher


@frozen
class Documented:
    """
    A key of the file, for its documentation.

    :ivar name: in dotted form; C{<name>} stands for any name.
    :ivar default: as TOML writes it, or in words.
    """

    name: str
    default: str
    about: str


def documented() -> Iterator[Documented]:
    """Every key that the file may have."""
    tables: tuple[tuple[str, type], ...] = (
        ("", Settings),
        ("store.", Store),
        ("upload.", Upload),
        ("http.", Http),
        ("outbound.", OutboundSettings),
        ("matching.", Matching),
        ("searchers.", Searchers),
        ("searchers.<name>.", SearcherSettings),
        ("services.<name>.", ServiceSettings),
    )
    for prefix, cls in tables:
        for name, attribute in keys_of(cls).items():
            about = attribute.metadata["about"]
            yield Documented(prefix + name, default_of(attribute), about)
