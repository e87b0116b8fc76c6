"""
HTTP Basic (RFC 7617): who may come in by a listener that has passwords.

To the platform 401 means that its whole service is to be disabled, so it is sent for two reasons
only: nobody has said who they are, or a comparison with passwords that were read whole has ended.
Whatever stands in the way of one is 503. A slow hash is computed once for each credential, in a
thread; after that it costs a digest.
"""

from __future__ import annotations

import binascii
from collections import Counter
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ctsd.errors import Unavailable
from ctsd.guesses import Delays, Remembered
from ctsd.interfaces.threads import InThread
from ctsd.passwords import Passwords
from ctsd.watching import Watched
from ctsd.web.answers import Answer, error_answer
from ctsd.web.request import Request
from ctsd.web.targets import Kind

_ASK = b'WWW-Authenticate: Basic realm="ctsd", charset="UTF-8"\r\n'

_CHALLENGE = Answer(401, error_answer(401, "credentials are needed").body, _ASK)
_WRONG = Answer(401, error_answer(401, "these credentials are wrong").body, _ASK)
_NOT_HERE = Answer(401, error_answer(401, "not with these credentials").body, _ASK)

# How often a credential is compared again because the file has changed meanwhile.
_COMPARISONS = 3


@frozen(kw_only=True)
class AuthLimits:
    """
    What bounds logins.

    :ivar threads: how many slow hashes are computed at once.
    :ivar max_hashes: how many credentials are compared, or wait for it; further ones are 503.
    :ivar max_hashes_per_address: how many of them may come from one address.
    :ivar max_wait_secs: how long a request waits for its comparison before it is 503.
    :ivar remember_secs: how long a good credential is good without another comparison.
    :ivar max_remembered: how many are remembered.
    :ivar tell_secs: how often the log tells the same of one user.
    :ivar max_credential_bytes: a longer C{Authorization} is nobody's.
    """

    threads: int = 2
    max_hashes: int = 64
    max_hashes_per_address: int = 16
    max_wait_secs: float = 2.5
    remember_secs: float = 3600.0
    max_remembered: int = 10_000
    tell_secs: float = 60.0
    max_credential_bytes: int = 4096


class BasicGate:
    """
    What is asked of every request on a listener with passwords.

    :param passwords: the file; its current content is what counts.
    :param in_thread: computes hashes.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        passwords: Watched[Passwords],
        in_thread: InThread,
        limits: AuthLimits | None = None,
        delays: Delays | None = None,
    ) -> None:
        limits = limits or AuthLimits()
        self._clock = clock
        self._passwords = passwords
        self._in_thread = in_thread
        self._limits = limits
        self._delays = delays or Delays(clock=clock)
        self._remembered = Remembered(
            clock=clock, max_age_secs=limits.remember_secs, max_count=limits.max_remembered
        )
        # Who waits for a comparison, by the credential's digest.
        self._comparing: dict[bytes, list[Deferred[tuple[Passwords, bool]]]] = {}
        # How many of these comparisons an address has asked for.
        self._addresses: Counter[str] = Counter()
        # When the log last told something of a user of the file; of nobody's users under "".
        self._told: dict[str, float] = {}
        passwords.taken = self._changed

    def _changed(self) -> None:
        """The file has other content: nothing that was compared before counts."""
        self._remembered.forget()
        self._told.clear()

    def __call__(self, request: Request) -> Answer | Deferred[Answer | None] | None:
        """
        The answer for who may not come in; None for who may.

        :raises Unavailable: there are no passwords to compare with.
        """
        target = request.target
        if target.kind is Kind.READY:
            return None
        header = request.head.headers.get(b"authorization")
        if header is None:
            return self._challenge()
        digest = self._remembered.digest(header)
        known = self._remembered.find(digest)
        if known is not None:
            return self._admit(request, known.user)
        credential = _credential(header, self._limits.max_credential_bytes)
        if credential is None:
            return self._challenge()
        return Deferred.fromCoroutine(self._judge(request, digest, *credential))

    def _challenge(self) -> Answer:
        if self._passwords.current is None:
            raise _nothing_to_compare_with()
        return _CHALLENGE

    def _admit(self, request: Request, user: str) -> Answer | None:
        """Whether this user may ask this service."""
        service = request.target.service
        allowed = request.site.users.get(service)
        if allowed is None or user in allowed:
            return None
        self._tell(user, f"not one of the users of service {service}")
        return _NOT_HERE

    async def _judge(
        self, request: Request, digest: bytes, user: bytes, password: bytes
    ) -> Answer | None:
        came_at = self._clock.seconds()
        address = getattr(request.getClientAddress(), "host", "a Unix socket")
        comparing = Deferred.fromCoroutine(self._compare(digest, user, password, address))
        try:
            known, good = await comparing.addTimeout(self._limits.max_wait_secs, self._clock)
        except DeferredTimeout:
            raise _too_many() from None
        if good:
            return self._admit(request, user.decode())
        held_secs = self._delays.wrong(address) - (self._clock.seconds() - came_at)
        if known:
            self._tell(user.decode(), f"a wrong password, from {address}")
        else:
            self._tell("", address)
        if held_secs > 0:
            await deferLater(self._clock, held_secs)
        return _WRONG

    async def _compare(
        self, digest: bytes, user: bytes, password: bytes, address: str
    ) -> tuple[bool, bool]:
        """
        Compare with the file as it is now, for somebody may have just written a new password.

        :return: whether the file has the user, and whether the password is right.
        :raises Unavailable: that can't be said now.
        """
        for _ in range(_COMPARISONS):
            passwords, good = await self._compared(digest, user, password, address)
            if not good:
                await self._passwords.look()
            if passwords is self._passwords.current:
                if good:
                    self._remembered.add(digest, user.decode())
                return passwords.knows(user), good
        raise Unavailable("the password file changes too often", retry_secs=5)

    def _compared(
        self, digest: bytes, user: bytes, password: bytes, address: str
    ) -> Deferred[tuple[Passwords, bool]]:
        """The same credential is compared once, however many requests come with it at once."""
        passwords = self._passwords.current
        if passwords is None:
            return fail(_nothing_to_compare_with())
        mine: Deferred[tuple[Passwords, bool]] = Deferred()
        waiting = self._comparing.get(digest)
        if waiting is not None:
            waiting.append(mine)
        elif (
            len(self._comparing) >= self._limits.max_hashes
            or self._addresses[address] >= self._limits.max_hashes_per_address
        ):
            mine.errback(_too_many())
        else:
            self._comparing[digest] = [mine]
            self._addresses[address] += 1
            done = self._in_thread(passwords.verify, user, password)
            done.addBoth(self._hashed, digest, passwords, address)
        return mine

    def _hashed(
        self, result: bool | Failure, digest: bytes, passwords: Passwords, address: str
    ) -> None:
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._log.failure("A password could not be compared", result)
        for each in self._comparing.pop(digest):
            if isinstance(result, Failure):
                each.errback(Unavailable("passwords can't be compared now"))
            else:
                each.callback((passwords, result))

    def _tell(self, user: str, why: str) -> None:
        now = self._clock.seconds()
        if now - self._told.get(user, now - self._limits.tell_secs) < self._limits.tell_secs:
            return
        self._told[user] = now
        if not user:
            self._log.warn("401 for {address}: no such user in the password file", address=why)
            return
        self._log.warn(
            "401 for user {user}: {why}. If this was the platform, it has disabled the service; "
            "once the password is right, enable it again under Administrator Settings, "
            "Threat Sources",
            user=user,
            why=why,
        )


def _nothing_to_compare_with() -> Unavailable:
    return Unavailable("there is no password file that could be read")


def _too_many() -> Unavailable:
    return Unavailable("too many logins at once", retry_secs=5)


def _credential(header: bytes, max_bytes: int) -> tuple[bytes, bytes] | None:
    """User and password in UTF-8; None when nobody says who they are."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic" or len(header) > max_bytes:
        return None
    try:
        decoded = binascii.a2b_base64(encoded.strip(), strict_mode=True)
    except binascii.Error:
        return None
    user, colon, password = decoded.partition(b":")
    if not colon:
        return None
    return _utf8(user), _utf8(password)


def _utf8(raw: bytes) -> bytes:
    """As UTF-8, in which passwords are hashed; clients of old send ISO-8859-1."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1").encode()
    return raw
