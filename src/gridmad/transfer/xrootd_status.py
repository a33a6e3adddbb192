"""What a failed request of XRootD's client comes to: its status, as one of our errors.  No I/O.

Sources: XrdCl/XrdClStatus.hh for what the client finds itself, XProtocol/XProtocol.hh
(XErrorCode) for what servers answer.
"""

import re
from typing import Final

from gridmad.errors import DriverError, TransientError

NOT_FOUND: Final = 3011
"""A server's answer about a name that is not there."""

_ERROR_RESPONSE: Final = 400
"""The client's code for what a server answered."""
_LASTING: Final = frozenset({
    9,    # errInvalidArgs
    13,   # errNotSupported
    15,   # errNotImplemented
    204,  # errAuthFailed
    205,  # errQueryNotSupported
    302,  # errInvalidRedirectURL
})  # fmt: skip
"""What the client finds and will find again.  All else is a connection, a session or an answer
that was lost, or a host that could not be reached or looked up."""
_TRANSIENT_ANSWERS: Final = frozenset({
    3003,  # kXR_FileLocked
    3004,  # kXR_FileNotOpen: the server was started anew
    3007,  # kXR_IOError
    3008,  # kXR_NoMemory
    3012,  # kXR_ServerError
    3014,  # kXR_noserver
    3017,  # kXR_Cancelled
    3019,  # kXR_ChkSumErr: of what went over the network
    3020,  # kXR_inProgress
    3024,  # kXR_Overloaded
    3034,  # kXR_ReqTimedOut
    3035,  # kXR_TimerExpired
})  # fmt: skip
_SERVER_SAID: Final = re.compile(r"\[\w+\] (?:Server responded with an error: \[\d+\] )?")


class ServerError(DriverError):
    """A server's refusal."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class ConnectionLostError(TransientError):
    """There was no answer."""


def error_of(code: int, number: int, message: str) -> DriverError:
    """The error of a status: its code, the server's error number (errNo), and its text."""
    text = _SERVER_SAID.sub("", message).strip() or f"error {code}"
    if code == _ERROR_RESPONSE:
        return TransientError(text) if number in _TRANSIENT_ANSWERS else ServerError(number, text)
    return DriverError(text) if code in _LASTING else ConnectionLostError(text)
