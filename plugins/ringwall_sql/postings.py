"""Which word stands how often in which chunks: one row for each word on each shelf, those of one ACL together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, pairwise
from struct import Struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from ringwall.data.lexical import rarity, saturation
from ringwall_sql.tables import POSTINGS, SHELF, SHELF_BITS, among, key, write
from ringwall_sql.view import Floats, Integers, Scores, View

ENTRY: Final = np.dtype([("slot", "<u2"), ("times", "<u4"), ("length", "<u4")])
_ENTRY: Final = Struct("<HII")
_LONGEST_WORD: Final = 64

_PUT: Final = sa.text(
    "INSERT INTO chunk_words (acl, word, shelf, entries) VALUES (:acl, :word, :shelf, :entries) "
    "ON CONFLICT (acl, word, shelf) DO UPDATE SET entries = excluded.entries"
)
_DROP: Final = sa.text("DELETE FROM chunk_words WHERE acl = :acl AND word = :word AND shelf = :shelf")

Words = Mapping[str, int]
Place = tuple[int, int]
"""An ACL, and one of its shelves."""


def as_kept(word: str) -> str:
    """The word as it is kept: a very long one by its key."""
    return word if len(word) <= _LONGEST_WORD else key(word)


def put(connection: sa.Connection, chunks: Iterable[tuple[int, int, Words]]) -> None:
    """Add the words of these chunks, each with its number and ACL."""
    places: dict[Place, list[tuple[int, Words]]] = defaultdict(list)
    for number, acl, words in chunks:
        places[acl, number >> SHELF_BITS].append((number % SHELF, words))
    for place, here in places.items():
        added = _entries(here)
        kept = _found(connection, place, added)
        _store(connection, place, {word: kept.get(word, b"") + added[word] for word in sorted(added)})


def take(connection: sa.Connection, chunks: Sequence[tuple[int, int, Words, int]]) -> None:
    """Remove the words of these chunks, each with its number, its ACL, and the length it was stored with.

    If a chunk's words are not what they were when it was stored, its shelf is searched through for them.
    """
    gone = {number for number, _, _, _ in chunks}
    missing = {number: length for number, _, _, length in chunks}
    places: dict[Place, set[str]] = defaultdict(set)
    for number, acl, words, _ in chunks:
        places[acl, number >> SHELF_BITS].update(map(as_kept, words))
    for place, taken in places.items():
        _remove(connection, place, _found(connection, place, taken), gone, missing)
    lost = {number >> SHELF_BITS for number, left in missing.items() if left}
    for place in places:
        if place[1] in lost:
            _remove(connection, place, _found(connection, place, None), gone, missing)


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
    for _, word, shelf, entries in rows:
        yield word, shelf, np.frombuffer(entries, ENTRY)


def _weighed(
    connection: sa.Connection, view: View, words: Iterable[str]
) -> Iterator[tuple[str, tuple[Integers, Floats]]]:
    """For each word the rows of the view where it stands, and what it adds there."""
    weigh: Any = saturation  # its arithmetic is that of arrays, too
    for word, (shelves, blobs) in _read(connection, view, words).items():
        entries = np.frombuffer(b"".join(blobs), ENTRY)
        sizes = [len(blob) // ENTRY.itemsize for blob in blobs]
        rows: Integers = np.repeat(view.first_rows(np.array(shelves)), sizes) + entries["slot"]
        times, lengths = entries["times"].astype(np.float64), entries["length"].astype(np.float64)
        yield word, (rows, rarity(len(rows), view.count) * weigh(times, lengths, view.mean))


def _read(connection: sa.Connection, view: View, words: Iterable[str]) -> dict[str, tuple[list[int], list[bytes]]]:
    """For each word the shelves of the view where it stands, and its entries there."""
    permitted, wanted = among(POSTINGS.c.acl, view.acls, connection), among(POSTINGS.c.word, words, connection)
    columns = POSTINGS.c.word, POSTINGS.c.shelf, POSTINGS.c.entries
    read: dict[str, tuple[list[int], list[bytes]]] = defaultdict(lambda: ([], []))
    for word, shelf, entries in connection.execute(sa.select(*columns).where(permitted, wanted)).all():
        shelves, blobs = read[word]
        shelves.append(shelf)
        blobs.append(entries)
    return read


def _entries(chunks: Sequence[tuple[int, Words]]) -> dict[str, bytes]:
    """The entries of each word that these chunks hold, in the order of the chunks, each given with its slot."""
    numbers: dict[str, int] = defaultdict(count().__next__)
    sizes = [len(words) for _, words in chunks]
    which = np.fromiter(map(numbers.__getitem__, chain.from_iterable(words for _, words in chunks)), np.intp)
    entries = np.empty(len(which), ENTRY)
    entries["slot"] = np.repeat(np.array([slot for slot, _ in chunks]), sizes)
    entries["times"] = np.fromiter(chain.from_iterable(words.values() for _, words in chunks), np.uint32)
    entries["length"] = np.repeat(np.array([sum(words.values()) for _, words in chunks]), sizes)
    few = which.astype(np.uint16) if len(numbers) < 1 << 16 else which  # of 16 bits the sort takes a tenth
    together = entries[np.argsort(few, kind="stable")].tobytes()
    bounds = np.cumsum([0, *np.bincount(which)]) * ENTRY.itemsize
    return {
        as_kept(word): together[start:end]
        for word, (start, end) in zip(numbers, pairwise(bounds.tolist()), strict=True)
    }


def _found(connection: sa.Connection, place: Place, words: Iterable[str] | None) -> dict[str, bytes]:
    """The entries of these words at a place; None: of all."""
    acl, shelf = place
    rows = sa.select(POSTINGS.c.word, POSTINGS.c.entries).where(POSTINGS.c.acl == acl, POSTINGS.c.shelf == shelf)
    if words is not None:
        rows = rows.where(among(POSTINGS.c.word, words, connection))
    return {row.word: row.entries for row in connection.execute(rows)}


def _remove(
    connection: sa.Connection, place: Place, rows: Mapping[str, bytes], gone: set[int], missing: dict[int, int]
) -> None:
    """Drop the entries of `gone` from these rows, and count in `missing` what was dropped."""
    left: dict[str, bytes] = {}
    for word, entries in rows.items():
        staying = b""
        for slot, times, length in _ENTRY.iter_unpack(entries):
            number = place[1] * SHELF + slot
            if number in gone:
                missing[number] -= times
            else:
                staying += _ENTRY.pack(slot, times, length)
        if len(staying) < len(entries):
            left[word] = staying
    _store(connection, place, left)


def _store(connection: sa.Connection, place: Place, rows: Mapping[str, bytes]) -> None:
    acl, shelf = place
    full = [(acl, word, shelf, entries) for word, entries in rows.items() if entries]
    write(connection, _PUT, ("acl", "word", "shelf", "entries"), full)
    write(connection, _DROP, ("acl", "word", "shelf"), [(acl, word, shelf) for word, kept in rows.items() if not kept])
