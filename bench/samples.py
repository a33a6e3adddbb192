"""The data that several benches use."""

from bench.baselines.naive_daemon import HOST, QUEUE

REQUESTS = b"".join(
    b"MONITOR %d host%03d.example.org -\n" % (number % 1000, number % 1000)
    for number in range(2000)
)
"""64 KiB of requests, as one read brings them."""

ATTRIBUTES: tuple[dict[str, int | str], list[dict[str, int | str]]] = (HOST, [QUEUE])
"""24 names, 540 bytes: the sample of GridWay's developers' guide."""
