"""What is said of a failure: what was to be done, where, and why it was not."""

import contextlib
from collections.abc import Iterator

from gridmad.errors import CredentialError, DriverError, MissingDependencyError, TransientError


class ToldError(DriverError):
    """An error that says already what was to be done, and where."""


class TransientToldError(ToldError, TransientError):
    """One that may be over in a moment."""


@contextlib.contextmanager
def about(verb: str, place: object) -> Iterator[None]:
    """Add to a DriverError what was to be done and where, if it does not say so yet.

    That there is no credential or no library has nothing to do with the place.
    """
    try:
        yield
    except (CredentialError, MissingDependencyError, ToldError):
        raise
    except DriverError as error:
        kind = TransientToldError if isinstance(error, TransientError) else ToldError
        raise kind(f"cannot {verb} {place}: {error}") from None
