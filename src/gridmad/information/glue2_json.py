"""The information document of ARC's REST interface: GLUE 2 as JSON, to entries.

A-REX makes the JSON of XML: one thing is no list, all values are texts, and nothing is no text
at all.  What a directory would hold as keys follows from what stands within what, and the jobs
in it are passed over.  Source: "ARC 6: REST interface technical description" 1.0, "Operations";
the XML rendering of GLUE 2.  No I/O happens here.
"""

import json
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gridmad.errors import TransientError
from gridmad.information.glue2_schema import SEARCHES
from gridmad.information.ldap import Entry

_GENERAL: Final = {
    "GLUE2ComputingService": "GLUE2Service",
    "GLUE2ComputingEndpoint": "GLUE2Endpoint",
    "GLUE2ComputingShare": "GLUE2Share",
    "GLUE2ComputingManager": "GLUE2Manager",
    "GLUE2ExecutionEnvironment": "GLUE2Resource",
    "GLUE2MappingPolicy": "GLUE2Policy",
    "GLUE2Benchmark": "GLUE2Benchmark",
}
"""The class that each is a kind of: attributes bear one of the two names."""
_ABOVE: Final = {
    "GLUE2ComputingService": ("AdminDomain", "glue2serviceadmindomainforeignkey"),
    "GLUE2ComputingEndpoint": ("ComputingService", "glue2endpointserviceforeignkey"),
    "GLUE2ComputingShare": ("ComputingService", "glue2shareserviceforeignkey"),
    "GLUE2ComputingManager": ("ComputingService", "glue2managerserviceforeignkey"),
    "GLUE2ExecutionEnvironment": ("ComputingManager", "glue2resourcemanagerforeignkey"),
    "GLUE2MappingPolicy": ("ComputingShare", "glue2mappingpolicyshareforeignkey"),
    "GLUE2Benchmark": ("ExecutionEnvironment", "glue2benchmarkexecutionenvironmentforeignkey"),
}
"""What each stands within, and the key that tells so in a directory."""
_ASSOCIATIONS: Final = {
    "ComputingEndpointID": "glue2shareendpointforeignkey",
    "ExecutionEnvironmentID": "glue2shareresourceforeignkey",
}


def _elements(object_class: str) -> dict[str, str]:
    """The names of a class's elements here, and of its attributes in a directory."""
    elements = {}
    for attribute in SEARCHES[object_class].attributes:
        for prefix in (object_class, _GENERAL[object_class]):
            name = attribute.removeprefix(prefix)
            if name != attribute and not name.endswith("ForeignKey"):
                elements[name] = attribute.lower()
                break
    return elements


_ELEMENTS: Final = {object_class: _elements(object_class) for object_class in SEARCHES}


def entries(document: bytes) -> Mapping[str, Sequence[Entry]]:
    """The entries of a document by object class.

    Raises TransientError for what is no document: it is empty until A-REX has written its first.
    """
    try:
        root = json.loads(document)
    except (ValueError, RecursionError):
        said = repr(document[:60].decode("utf-8", "replace")) if document.strip() else "nothing yet"
        raise TransientError(f"A-REX tells {said}") from None
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    left: deque[tuple[Any, Mapping[str, str]]] = deque([(root, {})])
    while left:
        value, above = left.popleft()
        for name, thing in _things(value):
            object_class = f"GLUE2{name}"
            inside = above
            if object_class in _GENERAL:
                found[object_class].append(_entry(object_class, thing, above))
            if identity := next(_texts(thing.get("ID")), ""):
                inside = {**above, name: identity}
            if name not in ("ComputingActivities", "Activities", "ComputingActivity"):
                left.append((thing, inside))
    return found


def _things(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What stands within a thing, with its kind."""
    if isinstance(value, dict):
        for name, inner in value.items():
            for thing in inner if isinstance(inner, list) else [inner]:
                if isinstance(thing, dict):
                    yield name, thing


def _texts(value: Any) -> Iterator[str]:
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and text.strip():
            yield text.strip()


def _entry(object_class: str, thing: Mapping[str, Any], above: Mapping[str, str]) -> Entry:
    values = {
        attribute: list(_texts(thing.get(name)))
        for name, attribute in _ELEMENTS[object_class].items()
    }
    container, key = _ABOVE[object_class]
    values[key] = [above[container]] if container in above else []
    if object_class == "GLUE2ComputingShare":
        for _, associations in _things({"": thing.get("Associations")}):
            for name, attribute in _ASSOCIATIONS.items():
                values[attribute] = list(_texts(associations.get(name)))
    return {
        name: [text.encode("utf-8", "replace") for text in texts]
        for name, texts in values.items()
        if texts
    }
