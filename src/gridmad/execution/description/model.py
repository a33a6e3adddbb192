"""The one model of a job that all dialects are read into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that is brought before the job runs, or taken away after it.

    `name` is its path in the job's directory.  `url` is its other place, as it was written:
    a URL, or a path on the side that submits; empty if the description names none.
    """

    name: str
    url: str = ""
    is_executable: bool = False


@dataclass(frozen=True, slots=True)
class JobDescription:
    """What a job runs and what it asks for.

    Paths are as they were written: relative ones are relative to `directory`, that to the
    job's home on the resource.  `environment` keeps the order; of a name given twice the
    last one counts.
    """

    executable: str
    arguments: Sequence[str] = ()
    directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    inputs: Sequence[StagedFile] = ()
    copies: Sequence[StagedFile] = ()
    """Inputs that a driver has brought to the resource already: each `url` is a path there; a
    relative one is that of a file which is the job's own, where the job begins."""
    outputs: Sequence[StagedFile] = ()
    count: int = 1
    """Processes; where only nodes are asked for, those of all nodes."""
    nodes: int | None = None
    processes_per_node: int | None = None
    job_type: str = ""
    """`single`, `multiple`, `mpi`, or what else the dialect says."""
    queue: str = ""
    project: str = ""
    name: str = ""
    program: str = ""
    """What the job is there to run, where `executable` is only what starts that."""
    max_wall_time: int | None = None
    """Minutes."""
    max_cpu_time: int | None = None
    """Minutes."""
    max_memory: int | None = None
    """MB."""
    min_memory: int | None = None
    """MB."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """What the dialect said beyond this model, by its name."""
