"""The body of an HTTP answer, bounded: what a server claims of its length is not relied on."""

from typing import TYPE_CHECKING

from gridmad.errors import TransientError

if TYPE_CHECKING:
    import httpx


async def read_body(response: "httpx.Response", most: int) -> bytes:
    """All of it.  Raises TransientError for more than `most` bytes, and what httpx raises."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most:
            raise TransientError(f"{response.url.host} answered more than {most} bytes")
        parts.append(part)
    return b"".join(parts)
