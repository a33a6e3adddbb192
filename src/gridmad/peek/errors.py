"""What goes wrong between a job and who watches it, each with the exit code of `msgpeek`."""

from gridmad.errors import GridmadError


class PeekError(GridmadError):
    """The stream could not be shown for a reason of our own or of the broker."""

    exit_code = 125


class FrameError(PeekError):
    """What came is no frame or message of the protocol: counted, and never shown to users."""


class BrokerError(PeekError):
    """The broker cannot be reached, does not speak STOMP, or was lost for good."""


class JournalError(PeekError):
    """The client's file or its journal cannot be written, or another process has it."""


class AuthenticationError(PeekError):
    """The broker refused the login or a destination, or TLS did not prove who it is."""

    exit_code = 126


class JobLostError(PeekError):
    """The job side broke off while the command ran: a bug."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"a bug: {type(error).__name__}: {error} (--log-level debug shows where)")


class UnknownStreamError(PeekError):
    """No job side answers for this stream, and none has parked it."""

    exit_code = 127


class HeldError(PeekError):
    """Another client holds the stream."""

    exit_code = 75


class RevokedError(PeekError):
    """Another client took the stream over."""

    exit_code = 76


class StalledError(PeekError):
    """Nothing came from the job side for the client's time-out."""

    exit_code = 124
