"""The doctor's verdicts on real brokers: healthy ones, and each kind of trouble."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridmad.peek.channel import Endpoint, Login
from gridmad.peek.doctor import STEPS, Check, examine
from gridmad.peek.stream import Templates
from tests.services.pki import Authority
from tests.services.rabbitmq import RabbitMQ
from tests.services.stomp_server import LIMITED_LOGIN, LIMITED_PASSWORD, StompServer

LOCALHOST = "127.0.0.1"


def verdicts(
    server: StompServer, *, tls: bool = False, templates: Templates | None = None, **login: object
) -> dict[str, Check]:
    given = {"user": server.login, "password": server.password, **login}
    endpoint = Endpoint("localhost", server.tls_port, True) if tls else plain(server.stomp_port)
    checks = list(examine([endpoint], Login(**given), templates or Templates()))  # type: ignore[arg-type]
    assert [check.what for check in checks] == list(STEPS)
    return {check.what: check for check in checks}


def plain(port: int) -> Endpoint:
    return Endpoint(LOCALHOST, port, False)


def failed(checks: dict[str, Check]) -> list[str]:
    return [check.what for check in checks.values() if check.verdict == "FAILED"]


def test_a_broker_in_good_health(broker: StompServer) -> None:
    checks = verdicts(broker)
    assert [check.what for check in checks.values() if check.verdict != "ok"] == ["tls"]
    assert checks["tls"].verdict == "skipped"
    assert not any(check.exit_code for check in checks.values())
    assert checks["server"].detail.lower().startswith(broker.name)


def test_a_broker_with_tls(broker: StompServer) -> None:
    checks = verdicts(broker, tls=True, ca=broker.ca)
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert "TLSv1." in checks["tls"].detail
    assert "localhost is proved, valid for 29 days" in checks["tls"].detail


def test_another_authority(broker: StompServer, tmp_path: Path) -> None:
    checks = verdicts(broker, tls=True, ca=Authority(tmp_path).ca)
    assert failed(checks) == ["tls"]
    assert checks["tls"].exit_code == 126
    assert "--ca" in checks["tls"].remedy
    assert checks["login"].verdict == "skipped"


def test_a_wrong_password(broker: StompServer) -> None:
    checks = verdicts(broker, password="a-wrong-one")
    assert failed(checks) == ["login"]
    assert checks["login"].exit_code == 126
    assert checks["largest"].verdict == "skipped"
    assert "a-wrong-one" not in str(checks)


def test_a_certificate_as_login(rabbitmq: RabbitMQ) -> None:
    certificate = rabbitmq.client_certificate
    checks = verdicts(
        rabbitmq, tls=True, ca=rabbitmq.ca, user=None, password=None,
        certificate=certificate.certificate, key=certificate.key,
    )  # fmt: skip
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert "certificate" in checks["login"].detail


def test_no_permission_for_control(activemq: StompServer) -> None:
    checks = verdicts(
        activemq,
        user=LIMITED_LOGIN,
        password=LIMITED_PASSWORD,
        templates=Templates(control="/queue/forbidden.<id>"),
    )
    assert failed(checks) == ["control"]
    assert checks["control"].exit_code == 126
    assert "forbidden" in checks["control"].remedy
    assert checks["largest"].verdict == "ok"


def test_no_permission_for_data(broker: StompServer) -> None:
    checks = verdicts(
        broker,
        user=LIMITED_LOGIN,
        password=LIMITED_PASSWORD,
        templates=Templates(data="/queue/forbidden.<id>.<client>"),
    )
    assert "data" in failed(checks)
    assert checks["data"].exit_code == 126
    assert checks["login"].verdict == "ok"
    assert checks["round trip"].verdict == checks["largest"].verdict == "skipped"


def test_the_port_of_tls_without_tls(broker: StompServer) -> None:
    checks = {
        check.what: check for check in examine([plain(broker.tls_port)], Login(), Templates())
    }
    assert failed(checks) == ["login"]
    assert checks["login"].exit_code == 125
    assert "stomp+ssl://" in checks["login"].detail


def test_the_plain_port_with_tls(broker: StompServer) -> None:
    endpoint = Endpoint("localhost", broker.stomp_port, True)
    checks = {check.what: check for check in examine([endpoint], Login(), Templates())}
    assert failed(checks) == ["tls"]
    assert "stomp://" in checks["tls"].remedy


def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind((LOCALHOST, 0))
        port = reserved.getsockname()[1]
        checks = {check.what: check for check in examine([plain(port)], Login(), Templates())}
    assert failed(checks) == ["connect"]
    assert checks["connect"].exit_code == 125
    assert "-P" in checks["connect"].remedy


def test_an_unknown_name() -> None:
    endpoint = Endpoint("nowhere.invalid", 61613, False)
    checks = {check.what: check for check in examine([endpoint], Login(), Templates())}
    assert failed(checks) == ["resolve"]
    assert [*checks] == list(STEPS)


@pytest.fixture
def chatterbox() -> Iterator[tuple[int, list[bytes]]]:
    """A server that says the first of a list to whoever connects, and closes."""
    words = [b""]
    server = socket.create_server((LOCALHOST, 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    if connection.recv(4096):
                        connection.sendall(words[0])
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], words
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail\r\n", b"\x00" * 1000, b"\xff" * 200_000,
     b"CONNECTED\n" + b"a:b\n" * 100_000, b"CONNECTED\nversion:1.0\n\n\0",
     b"ERROR\nmessage:\x1b[31mno\n\nat you\0"],
)  # fmt: skip
def test_what_is_no_stomp_server(chatterbox: tuple[int, list[bytes]], answer: bytes) -> None:
    port, words = chatterbox
    words[0] = answer
    checks = {check.what: check for check in examine([plain(port)], Login(), Templates())}
    assert failed(checks)[0] in ("login", "server")
    assert checks["largest"].verdict in ("skipped", "FAILED")
    assert all(len(check.detail) < 600 for check in checks.values())
