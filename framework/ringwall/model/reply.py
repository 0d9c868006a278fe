"""From a stream of deltas to a whole reply, and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

from ringwall.model.base import Delta, Reply, RequestedCall, Usage


async def collect(stream: AsyncGenerator[Delta, None], *, provider: str = "") -> Reply:
    """Return the whole of `stream` as one reply, and leave the stream closed whatever happens.

    `provider` is the name written into the reply. Raises what the stream raises.
    """
    texts: list[str] = []
    calls: tuple[RequestedCall, ...] = ()
    usage, finish = Usage(), "stop"
    try:
        async for delta in stream:
            texts.append(delta.text)
            calls += delta.calls
            usage = delta.usage or usage
            finish = delta.finish or finish
    finally:
        await stream.aclose()
    return Reply("".join(texts), calls, usage, finish, provider)


def words(text: str) -> Iterator[str]:
    """Cut `text` after each space; the pieces joined are the text again."""
    start = 0
    while (end := text.find(" ", start) + 1) > 0:
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
