"""`msgpeek doctor`: the way to a broker, checked step by step, each with what to do."""

import secrets
import socket
import ssl
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from gridmad.peek.broker import Endpoint, Login, expand
from gridmad.peek.channel import connect
from gridmad.peek.conversation import ANSWER_TIME, Conversation
from gridmad.peek.errors import AuthenticationError, BrokerError, PeekError
from gridmad.peek.frame import HEADER_LENGTH, MAX_BODY, MAX_RAW, Codec, FrameType
from gridmad.peek.profiles import Role
from gridmad.peek.stream import Destinations, Templates, new_client, new_stream

Verdict = Literal["ok", "FAILED", "skipped"]

STEPS: Final = (
    "resolve",
    "connect",
    "tls",
    "login",
    "server",
    "heart-beat",
    "control",
    "data",
    "round trip",
    "largest",
)
HEARTBEAT: Final = 1000
"""Milliseconds: what the broker is asked to send a sign of life each."""
ROUND_TRIPS: Final = 5
FEW_DAYS: Final = 14
"""Days that a certificate still has when it is time to think of the next."""


@dataclass(frozen=True)
class Check:
    """The verdict on one step of the way to one broker."""

    broker: str
    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    exit_code: int = 0


def examine(endpoints: Sequence[Endpoint], login: Login, templates: Templates) -> Iterator[Check]:
    """Each step for each broker, as it is known.  Never raises for what a broker does."""
    for endpoint in endpoints:
        yield from _resolve(endpoint, login, templates)


def _resolve(endpoint: Endpoint, login: Login, templates: Templates) -> Iterator[Check]:
    try:
        answers = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        yield Check(
            str(endpoint), "resolve", "FAILED", reason or "no host name",
            "check the name given to -H, and this machine's DNS", BrokerError.exit_code,
        )  # fmt: skip
        yield from _skip(str(endpoint), "connect", "the name has no address")
        return
    found = ", ".join(dict.fromkeys(str(answer[4][0]) for answer in answers))
    yield Check(str(endpoint), "resolve", "ok", found)
    for address in expand([endpoint]):
        yield from _Examination(address, login, templates).run()


def _skip(broker: str, first: str, why: str) -> Iterator[Check]:
    """The steps from `first` on, which cannot be made."""
    for what in STEPS[STEPS.index(first) :]:
        yield Check(broker, what, "skipped", why)


class _Examination:
    """The steps from connecting on, for one address."""

    def __init__(self, endpoint: Endpoint, login: Login, templates: Templates) -> None:
        self._endpoint = endpoint
        self._login = login
        self._templates = templates

    def run(self) -> Iterator[Check]:
        """All steps; those behind one that everything needs are skipped where it fails."""
        for steps in (self._connect, self._tls, self._talk):
            failed = False
            for check in steps():
                yield check
                failed = failed or check.verdict == "FAILED"
                last = check.what
            if failed and last in ("connect", "tls", "login"):
                yield from _skip(
                    str(self._endpoint), STEPS[STEPS.index(last) + 1], f"{last} failed"
                )
                return
        yield from self._permissions()

    def _ok(self, what: str, detail: str) -> Check:
        return Check(str(self._endpoint), what, "ok", detail)

    def _failed(self, what: str, error: PeekError, remedy: str) -> Check:
        return Check(str(self._endpoint), what, "FAILED", str(error), remedy, error.exit_code)

    def _connect(self) -> Iterator[Check]:
        began = time.monotonic()
        try:
            socket.create_connection((self._endpoint.host, self._endpoint.port), 10).close()
        except OSError as error:
            reason = (
                "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
            )
            remedy = "check the port (-P), that the broker runs, and firewalls on the way"
            yield self._failed("connect", BrokerError(reason), remedy)
            return
        yield self._ok("connect", f"port {self._endpoint.port} in {_milliseconds(began)}")

    def _tls(self) -> Iterator[Check]:
        if not self._endpoint.tls:
            yield Check(str(self._endpoint), "tls", "skipped", "stomp+ssl:// was not asked for")
            return
        try:
            channel = connect(self._endpoint, self._login, ANSWER_TIME)
        except AuthenticationError as error:
            remedy = "--ca must name the authority of the broker, -H the name in its certificate"
            yield self._failed("tls", error, remedy)
            return
        except BrokerError as error:
            yield self._failed("tls", error, "is this the TLS port? stomp:// goes without TLS")
            return
        try:
            assert isinstance(channel.socket, ssl.SSLSocket)
            version = channel.socket.version()
            certificate = channel.socket.getpeercert() or {}
        finally:
            channel.close()
        name = self._endpoint.name or self._endpoint.host
        yield self._ok("tls", f"{version}, {name} is proved, {_validity(certificate)}")

    def _talk(self) -> Iterator[Check]:
        began = time.monotonic()
        try:
            conversation = Conversation(self._endpoint, self._login, heartbeat=HEARTBEAT)
        except AuthenticationError as error:
            yield self._failed(
                "login", error, "check -U and the password, or --certificate, --vhost"
            )
            return
        except BrokerError as error:
            remedy = "is it the STOMP port of a broker? (usually 61613, with TLS 61614)"
            yield self._failed("login", error, remedy)
            return
        with conversation:
            who = (
                self._login.user or "the certificate"
                if self._login.certificate
                else self._login.user
            )
            yield self._ok("login", f"as {who or 'anonymous'} in {_milliseconds(began)}")
            server = conversation.server or "a server without a name"
            detail = f"{server}, STOMP {conversation.version}, as {conversation.profile.name}"
            if conversation.version == "1.2":
                yield self._ok("server", detail)
            else:
                yield self._failed(
                    "server", BrokerError(detail), "a broker with STOMP 1.2 is needed"
                )
            yield self._heartbeat(conversation)

    def _heartbeat(self, conversation: Conversation) -> Check:
        remedy = "without them a loss is noticed late: let the broker send heart-beats"
        if not conversation.heartbeat:
            return self._failed("heart-beat", BrokerError("the broker sends none"), remedy)
        patience = 2.0 * conversation.heartbeat / 1000 + 0.5
        began = time.monotonic()
        try:
            # A greater promise than this is not worth the wait.
            came = conversation.await_heartbeat(began + min(patience, 2 * ANSWER_TIME))
        except PeekError as error:
            return self._failed("heart-beat", error, remedy)
        agreed = f"each {conversation.heartbeat} ms"
        if not came:
            waited = time.monotonic() - began
            silence = BrokerError(f"{agreed} agreed on, none came in {waited:.1f} s")
            return self._failed("heart-beat", silence, remedy)
        return self._ok("heart-beat", f"{agreed}, one came after {_milliseconds(began)}")

    def _permissions(self) -> Iterator[Check]:
        destinations = Destinations(new_stream(), self._templates)
        data = destinations.data(new_client())
        codec = Codec(destinations.stream)
        yield from self._probe("control", destinations.control, codec, with_more=False)
        yield from self._probe("data", data, codec, with_more=True)

    def _probe(
        self, what: str, destination: str, codec: Codec, *, with_more: bool
    ) -> Iterator[Check]:
        """Send to a destination and get it back; then how fast and how large, if `with_more`."""
        remedy = (
            f"the login needs the right to make, write to and read {destination.rpartition('/')[2]}"
            if destination.startswith("/queue/")
            else f"the login needs the right to write to and read {destination}"
        )
        step = what
        try:
            with Conversation(self._endpoint, self._login) as conversation:
                # As data: so the broker forgets the queue of a probe by itself.
                conversation.subscribe(what, destination, Role.DATA)
                _send_and_receive(conversation, destination, codec, 1)
                yield self._ok(what, f"sent to and received from {destination}")
                if not with_more:
                    return
                step, remedy = "round trip", "the broker loses or withholds messages"
                times = [
                    _send_and_receive(conversation, destination, codec, 1024)
                    for _ in range(ROUND_TRIPS)
                ]
                yield self._ok(step, f"{statistics.median(times) * 1000:.1f} ms (median)")
                step = "largest"
                remedy = f"the broker must take messages of {MAX_BODY // 1024} KiB"
                taken = _send_and_receive(conversation, destination, codec, MAX_BODY)
                yield self._ok(
                    step, f"{MAX_BODY // 1024} KiB there and back in {taken * 1000:.0f} ms"
                )
        except PeekError as error:
            yield self._failed(step, error, remedy)
            if with_more and step != "largest":
                yield from _skip(
                    str(self._endpoint), STEPS[STEPS.index(step) + 1], f"{step} failed"
                )


def _send_and_receive(
    conversation: Conversation, destination: str, codec: Codec, length: int
) -> float:
    """Seconds for a body of about `length` bytes (all of MAX_BODY) to come back unharmed.

    BrokerError where it does not.
    """
    body = b""
    while len(body) < length:
        size = min(MAX_RAW, max(16, min(length, MAX_BODY - len(body)) - HEADER_LENGTH))
        if len(body) + HEADER_LENGTH + size > MAX_BODY:
            break
        body += codec.frame(
            FrameType.PROBE,
            secrets.token_bytes(size),
            epoch=0,
            sequence=0,
            time=time.time_ns() // 1_000_000,
        )
    began = time.monotonic()
    conversation.send(destination, Role.DATA, body)
    end = began + ANSWER_TIME
    while (message := conversation.receive(end)) is not None:
        if message.body == body:
            return time.monotonic() - began
        if codec.decode(message.body):
            continue
        raise BrokerError("what came back is not what was sent")
    raise BrokerError(f"nothing came back within {ANSWER_TIME:g} s")


def _validity(certificate: Mapping[str, object]) -> str:
    until = certificate.get("notAfter")
    if not isinstance(until, str):
        return "no end of its validity"
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC)
    days = (end - datetime.now(UTC)).days
    return f"valid for {days} days" + (": renew it soon" if days < FEW_DAYS else "")


def _milliseconds(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"
