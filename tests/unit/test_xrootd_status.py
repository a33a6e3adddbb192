"""What statuses of XRootD's client come to."""

import pytest

from gridmad.errors import DriverError, TransientError
from gridmad.transfer.xrootd_status import ConnectionLostError, ServerError, error_of


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (1, "[ERROR] Retry"),
        (2, "[ERROR] Unknown error"),
        (3, "[ERROR] Invalid operation"),
        (5, "[ERROR] Error while polling descriptors"),
        (7, "[ERROR] Internal error"),
        (12, "[ERROR] OS Error: Too many open files"),
        (101, "[FATAL] Invalid address"),
        (102, "[ERROR] Socket error: connection reset by peer"),
        (103, "[ERROR] Socket timeout"),
        (104, "[ERROR] Socket disconnected"),
        (105, "[ERROR] Poller error"),
        (106, "[ERROR] Socket option error"),
        (107, "[ERROR] Stream disconnect"),
        (108, "[FATAL] Connection error"),
        (109, "[ERROR] Invalid session"),
        (110, "[ERROR] TLS error"),
        (201, "[ERROR] Invalid message"),
        (202, "[FATAL] Hand shake failed"),
        (203, "[FATAL] Login failed"),
        (206, "[ERROR] Operation expired"),
        (207, "[ERROR] Operation interrupted"),
        (301, "[ERROR] No more free SIDs"),
        (303, "[ERROR] Invalid response"),
        (306, "[ERROR] Redirect limit has been reached"),
    ],
)
def test_a_connection_that_is_lost_may_be_had_again(code: int, message: str) -> None:
    error = error_of(code, 0, message)
    assert isinstance(error, ConnectionLostError)
    assert isinstance(error, TransientError)
    assert str(error) == message.partition("] ")[2]


@pytest.mark.parametrize("code", [9, 13, 15, 204, 205, 302])
def test_what_the_client_will_find_again(code: int) -> None:
    error = error_of(code, 0, "[FATAL] Auth failed: No protocols left to try")
    assert type(error) is DriverError
    assert str(error) == "Auth failed: No protocols left to try"


@pytest.mark.parametrize("number", [3003, 3004, 3007, 3008, 3012, 3014, 3017, 3024, 3034, 3035])
def test_a_server_that_cannot_now(number: int) -> None:
    text = f"[ERROR] Server responded with an error: [{number}] try again"
    error = error_of(400, number, text)
    assert isinstance(error, TransientError)
    # The connection is sound.
    assert not isinstance(error, ConnectionLostError)
    assert str(error) == "try again"


@pytest.mark.parametrize("number", [3000, 3005, 3009, 3010, 3011, 3013, 3016, 3018, 3021, 3025])
def test_a_server_that_will_not(number: int) -> None:
    error = error_of(400, number, f"[ERROR] Server responded with an error: [{number}] no; ever ")
    assert isinstance(error, ServerError)
    assert not isinstance(error, TransientError)
    assert (error.number, str(error)) == (number, "no; ever")


def test_a_status_without_a_text() -> None:
    assert str(error_of(107, 0, "[ERROR] ")) == "error 107"
