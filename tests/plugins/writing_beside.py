"""A process that writes into a store while another searches it: `python writing_beside.py DATABASE`.

It adds ten documents, one by one, then takes the readers of the first five away; after each step it says so.
"""

from __future__ import annotations

import asyncio
import sys

from ringwall.data.contract import chunk
from ringwall.principal import ACL, PUBLIC
from ringwall_sql import SqlDocuments


async def main() -> None:
    store = SqlDocuments(sys.argv[1])
    for n in range(10):
        await store.upsert([chunk(f"new {n}", ACL.of(PUBLIC))])
        print(f"new {n}", flush=True)  # noqa: T201
    for n in range(5):
        await store.set_readers([f"new {n}"], ACL.of("role:staff"))
        print(f"hid {n}", flush=True)  # noqa: T201
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
