"""One tree of errors.  Each class says what went wrong in one line; commands turn it into
a message on stderr and its exit code, drivers into `FAILURE <text>`.
"""


class GridmadError(Exception):
    """Anything this package raises on purpose."""

    exit_code = 1


class UsageError(GridmadError):
    """The command line or a configuration file is wrong."""

    exit_code = 2


class DriverError(GridmadError):
    """One request cannot be served; its text is what the sender reads after FAILURE."""


class TransientError(DriverError):
    """The back end is out of reach or slow for now; what was last known still holds.

    Never becomes a FAILURE where gwd would take that for the end of a host or a job.
    """


class NotSubmittedError(TransientError):
    """The resource is out of reach, and has certainly not taken any of these jobs."""


class CredentialError(NotSubmittedError):
    """There is no credential to work with: it is missing, unsafe, unreadable or over.

    Raised before anything is sent, and transient, for credentials are renewed.
    """


class UnknownHostError(DriverError):
    """The information system does not know this host (any more)."""

    def __init__(self, host: str) -> None:
        super().__init__(f"no host {host} is known here")


class UnknownJobError(DriverError):
    """No job belongs to this contact or job id."""

    def __init__(self, job: object) -> None:
        super().__init__(f"no job {job} is known here")


class UrlError(DriverError):
    """A file's URL cannot be read."""


class DescriptionError(DriverError):
    """A job description cannot be read."""


class MissingDependencyError(DriverError):
    """A driver's library is not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed: pip install 'gridmad[{extra}]'")
