"""What a transfer driver is asked to do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy the file at `source` to `destination`, both URLs as gwd wrote them."""

    source: str
    destination: str
    is_executable: bool = False
    """Set the execute bits of the copy."""
    job: str = ""
    """The job whose copy it is: jobs take turns."""
