"""Which word stands how often in which chunks: one row for each word on each shelf."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from struct import Struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from ringwall.data.lexical import rarity, saturation
from ringwall_sql.tables import POSTINGS, SHELF, SHELF_BITS, among, batches, key, write
from ringwall_sql.view import Floats, Integers, Scores, View

ENTRY: Final = np.dtype([("slot", "<u2"), ("times", "<u4"), ("length", "<u4")])
_ENTRY: Final = Struct("<HII")
_LONGEST_WORD: Final = 64
_PAIRS_AT_ONCE: Final = 20_000

_IN_SQLITE: Final = sa.text(
    "SELECT p.word, p.shelf, p.entries FROM json_each(:pairs) AS pair CROSS JOIN chunk_words AS p "
    "WHERE p.word = json_extract(pair.value, '$[0]') AND p.shelf = json_extract(pair.value, '$[1]')"
)
_IN_POSTGRESQL: Final = sa.text(
    "SELECT p.word, p.shelf, p.entries FROM unnest(CAST(:words AS text[]), CAST(:shelves AS bigint[])) "
    "AS pair (word, shelf) JOIN chunk_words AS p ON p.word = pair.word AND p.shelf = pair.shelf"
)
_PUT: Final = sa.text(
    "INSERT INTO chunk_words (word, shelf, entries) VALUES (:word, :shelf, :entries) "
    "ON CONFLICT (word, shelf) DO UPDATE SET entries = excluded.entries"
)
_DROP: Final = sa.text("DELETE FROM chunk_words WHERE word = :word AND shelf = :shelf")

Words = Mapping[str, int]
Pair = tuple[str, int]


def as_kept(word: str) -> str:
    """The word as it is kept: a very long one by its key."""
    return word if len(word) <= _LONGEST_WORD else key(word)


def put(connection: sa.Connection, chunks: Iterable[tuple[int, Words]]) -> None:
    """Add the words of these chunks, each with its number."""
    shelves: dict[int, dict[str, list[bytes]]] = {}
    for number, words in chunks:
        shelf = shelves.setdefault(number >> SHELF_BITS, {})
        slot, length = number % SHELF, sum(words.values())
        packed = {times: _ENTRY.pack(slot, times, length) for times in set(words.values())}
        for word, times in words.items():
            entries = shelf.get(word)
            if entries is None:
                shelf[word] = [packed[times]]
            else:
                entries.append(packed[times])
    added = {(as_kept(w), number): b"".join(e) for number, shelf in shelves.items() for w, e in shelf.items()}
    for pairs in batches(sorted(added), _PAIRS_AT_ONCE):
        kept = {(word, shelf): entries for word, shelf, entries in _found(connection, pairs)}
        _store(connection, {pair: kept.get(pair, b"") + added[pair] for pair in pairs})


def take(connection: sa.Connection, chunks: Sequence[tuple[int, Words, int]]) -> None:
    """Remove the words of these chunks, each with its number and the length it was stored with.

    If a chunk's words are not what they were when it was stored, its shelf is searched through for them.
    """
    gone = {number for number, _, _ in chunks}
    missing = {number: length for number, _, length in chunks}
    pairs = {(as_kept(word), number >> SHELF_BITS) for number, words, _ in chunks for word in words}
    for some in batches(sorted(pairs), _PAIRS_AT_ONCE):
        _remove(connection, _found(connection, some), gone, missing)
    lost = {number >> SHELF_BITS for number, left in missing.items() if left}
    if lost:
        rows = connection.execute(sa.select(POSTINGS).where(among(POSTINGS.c.shelf, lost, connection)))
        _remove(connection, [(word, shelf, entries) for word, shelf, entries in rows], gone, missing)


Weights = dict[str, tuple[Integers, Floats]]
"""What each word adds to the score of which rows."""


def bm25(connection: sa.Connection, view: View, question: Mapping[str, float], known: Weights) -> Scores:
    """BM25 of every readable chunk that shares a word with the question, each word counting what it says.

    Rarity and mean length are those of the readable chunks. What is read is added to `known`, and not read again.
    """
    scores = np.zeros(view.rows)
    found = np.zeros(view.rows, dtype=bool)
    said = {as_kept(word): counts for word, counts in question.items()}
    known.update(_weighed(connection, view, said.keys() - known.keys()))
    for word, counts in said.items():
        if word in known:
            rows, weights = known[word]
            scores[rows] += counts * weights
            found[rows] = True
    return Scores(scores, found)


def entries_by_word(connection: sa.Connection) -> Iterator[tuple[str, int, npt.NDArray[Any]]]:
    """Every row: the word, the shelf, and its entries."""
    rows = connection.execution_options(yield_per=1000).execute(sa.select(POSTINGS))
    for word, shelf, entries in rows:
        yield word, shelf, np.frombuffer(entries, ENTRY)


def _weighed(
    connection: sa.Connection, view: View, words: Iterable[str]
) -> Iterator[tuple[str, tuple[Integers, Floats]]]:
    """For each word the rows of the view where it stands, and what it adds there."""
    weigh: Any = saturation  # its arithmetic is that of arrays, too
    for word, group in groupby(_read(connection, view, words), itemgetter(0)):
        _, shelves, blobs = zip(*group, strict=True)
        entries = np.frombuffer(b"".join(blobs), ENTRY)
        sizes = [len(blob) // ENTRY.itemsize for blob in blobs]
        rows: Integers = np.repeat(view.first_rows(np.array(shelves)), sizes) + entries["slot"]
        times, lengths = entries["times"].astype(np.float64), entries["length"].astype(np.float64)
        yield word, (rows, rarity(len(rows), view.count) * weigh(times, lengths, view.mean))


def _read(connection: sa.Connection, view: View, words: Iterable[str]) -> list[tuple[str, int, bytes]]:
    """The rows of these words on the shelves of the view, by word."""
    wanted = among(POSTINGS.c.word, words, connection)
    shelf: sa.ColumnElement[int] = POSTINGS.c.shelf
    if view.is_most and connection.dialect.name == "sqlite":
        shelf = sa.literal_column("+shelf", POSTINGS.c.shelf.type)  # walk a word's rows, do not look up each shelf
    permitted = among(shelf, view.shelves.tolist(), connection)
    rows = connection.execute(sa.select(POSTINGS).where(wanted, permitted)).all()
    return sorted(((word, shelf, entries) for word, shelf, entries in rows), key=itemgetter(0))


def _found(connection: sa.Connection, pairs: Sequence[Pair]) -> list[tuple[str, int, bytes]]:
    if connection.dialect.name == "sqlite":
        rows = connection.execute(_IN_SQLITE, {"pairs": json.dumps(pairs)})
    else:
        words, shelves = zip(*pairs, strict=True)
        rows = connection.execute(_IN_POSTGRESQL, {"words": list(words), "shelves": list(shelves)})
    return [(word, shelf, bytes(entries)) for word, shelf, entries in rows]


def _remove(
    connection: sa.Connection, rows: Iterable[tuple[str, int, bytes]], gone: set[int], missing: dict[int, int]
) -> None:
    """Drop the entries of `gone` from these rows, and count in `missing` what was dropped."""
    left: dict[Pair, bytes] = {}
    for word, shelf, entries in rows:
        staying = b""
        for slot, times, length in _ENTRY.iter_unpack(entries):
            number = shelf * SHELF + slot
            if number in gone:
                missing[number] -= times
            else:
                staying += _ENTRY.pack(slot, times, length)
        if len(staying) < len(entries):
            left[word, shelf] = staying
    _store(connection, left)


def _store(connection: sa.Connection, rows: Mapping[Pair, bytes]) -> None:
    full = [(*pair, entries) for pair, entries in rows.items() if entries]
    write(connection, _PUT, ("word", "shelf", "entries"), full)
    write(connection, _DROP, ("word", "shelf"), [pair for pair, entries in rows.items() if not entries])
