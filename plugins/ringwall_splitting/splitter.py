"""Packs the parts of a text into passages of so many tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Final, Protocol

from semantic_text_splitter import TextSplitter

from ringwall.data import Passage, Scalar
from ringwall.errors import InvalidInput
from ringwall_splitting.structure import Part, Structure, markdown

_STRETCH: Final = 16
"""Characters that one token stands for at most; a run of blanks, or a word that no tokenizer knows, counts as more."""

_SMALLEST: Final = 32
"""Tokens that a passage may be asked to have: any character there is takes fewer."""

_WINDOW: Final = 2048
"""Characters that the library sees at a time: what it takes grows with the square of their number."""

_PIECE: Final = 256
"""Characters of the pieces that a part is cut into when it does not fit, at most: the fewer, the fuller passages."""

_SENTENCE_ENDS: Final = (".", "!", "?", ":", ";", "…", "。")

_LOOK: Final = 100
"""Characters of white space that are looked at before a place where one might cut."""

# Ranks: headings are below zero, lines count their indentation twice, and these come after all of them.
_LEVELS: Final = 7
_SENTENCE: Final = 1000
_WORD: Final = 2000


class Chunker(Protocol):
    """One of `semantic_text_splitter`'s: pieces of a text with the place where each begins."""

    def chunk_indices(self, text: str, /) -> list[tuple[int, str]]: ...


@dataclass(frozen=True, slots=True)
class _Atom:
    """A stretch that is not cut. The lower the `rank`, the better to cut before it; `opens`: not after it."""

    start: int
    end: int
    part: Part
    weight: int
    rank: int
    opens: bool = False


class TokenSplitter:
    """Passages of at most `size` tokens, as `tokens` counts them; nothing is repeated, and only white space left out.

    `tokens` is the count of whoever will read the passages, special tokens included: an embedder's `tokens`, or
    any function. It should take time proportional to the text. A passage has at most 16 characters for each token
    asked for, whatever it counts as.

    What `structure` calls a part stays whole where it fits: paragraphs, tables, fenced blocks. A part that does
    not fit is cut between its rows, or else where `chunker`, which is given a number of characters, would cut it:
    Unicode's sentences and words by default. Passages are filled, and cut before the highest heading in their second
    half, or else at a blank line, between lines of little indentation, or within a line; never right after a
    heading if it can be helped. Takes time proportional to the length of the text.

    Raises `InvalidInput` for less than 32 tokens, and for a text of which one character has more tokens than that.
    """

    def __init__(
        self,
        tokens: Callable[[str], int],
        size: int,
        *,
        structure: Structure = markdown,
        chunker: Callable[[int], Chunker] = TextSplitter,
    ) -> None:
        if size < _SMALLEST:
            raise InvalidInput(f"passages of {size} tokens", expected=f"at least {_SMALLEST}")
        self._tokens, self._size, self._parts, self._chunker = tokens, size, structure, chunker
        self._special = tokens("")
        self._blank = max(1 / _STRETCH, (tokens("a" + "\n" * 16 + "a") - tokens("aa")) / 16)
        self.recipe = f"{size} tokens, {structure.__name__}"

    def __call__(self, text: str) -> list[Passage]:
        """Cut a text into passages."""
        atoms = [atom for part in self._parts(text) for atom in self._atoms(text, part) if atom.start < atom.end]
        passages, first = [], 0
        while first < len(atoms):
            last = self._filled(text, atoms, first)
            passages.append(_passage(text, atoms[first:last]))
            first = last
        return passages

    def _filled(self, text: str, atoms: Sequence[_Atom], first: int) -> int:
        """Where the passage that begins with the atom `first` ends: it is the atoms before that one."""
        fits = self._sums(atoms, first)
        last = first + len(fits)
        if last < len(atoms):
            last = self._best(atoms, first, fits)
        start = atoms[first].start
        while last > first + 1 and (weight := self._weight(text[start : atoms[last - 1].end])) > self._size:
            room = fits[last - first - 1] * self._size / weight  # joined, they have more tokens than one by one
            fits = [fit for fit in fits if fit <= room] or fits[:1]
            last = self._best(atoms, first, fits)
        return last

    def _sums(self, atoms: Sequence[_Atom], first: int) -> list[float]:
        """What the atoms from `first` on weigh together: the first alone, with the next, and on as long as they fit."""
        total, end = float(self._special), atoms[first].start
        sums: list[float] = []
        for at in range(first, len(atoms)):
            atom = atoms[at]
            total += max(1, atom.weight - self._special) + self._blank * (atom.start - end)
            if sums and total > self._size:
                break
            sums.append(total)
            end = atom.end
        return sums

    def _best(self, atoms: Sequence[_Atom], first: int, sums: Sequence[float]) -> int:
        """The best place to end a passage among those that fit."""

        def cost(last: int) -> tuple[bool, bool, int, int]:
            early = sums[last - first - 1] < self._size / 2
            return atoms[last - 1].opens, early, atoms[last].rank, -last

        return min(range(first + 1, first + len(sums) + 1), key=cost)

    def _atoms(self, text: str, part: Part) -> Iterator[_Atom]:
        whole = self._atom(text, part, part.start, part.end)
        if whole.weight <= self._size:
            yield whole
        elif part.rows:
            for start, end in pairwise((part.start, *part.rows, part.end)):
                row = self._atom(text, part, start, end)
                yield from [row] if row.weight <= self._size else self._pieces(text, row)
        else:
            yield from self._pieces(text, whole)

    def _pieces(self, text: str, atom: _Atom, most: int = _PIECE) -> Iterator[_Atom]:
        """Pieces of at most so many characters, smaller where they have too many tokens."""
        chunker = self._chunker(min(most, self._size // 2))
        for start, end in _chunks(chunker, text, atom.start, atom.end):
            piece = self._atom(text, atom.part, start, end)
            if piece.weight <= self._size:
                yield piece
            elif end - start > 1:
                yield from self._pieces(text, piece, min(most, end - start) // 2)
            else:
                raise InvalidInput(
                    f"the character {text[start]!r} has {piece.weight} tokens", expected=f"no more than {self._size}"
                )

    def _atom(self, text: str, part: Part, start: int, end: int) -> _Atom:
        """What stands there, without the white space around it."""
        piece = text[start:end]
        start, end = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        opens = part.level > 0 or (bool(part.rows) and end <= part.rows[0])
        rank = part.level - _LEVELS if part.level else _rank(text, start)
        return _Atom(start, end, part, self._weight(text[start:end]), rank, opens)

    def _weight(self, text: str) -> int:
        """Its tokens; where it is too long for its tokens to be of interest, more than may be."""
        least = -(-len(text) // _STRETCH)
        return least if least > self._size else max(least, self._tokens(text))


def _chunks(chunker: Chunker, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the chunker cuts a stretch, window by window: the next begins with the last chunk of the one before."""
    while start < end:
        window = text[start : min(start + _WINDOW, end)]
        found = chunker.chunk_indices(window)
        ends = start + len(window)
        if ends < end and found and found[-1][0] > 0:
            ends = start + found.pop()[0]
        for at, piece in found:
            yield start + at, start + at + len(piece)
        start = ends


def _passage(text: str, atoms: Sequence[_Atom]) -> Passage:
    start, end, part = atoms[0].start, atoms[-1].end, atoms[0].part
    metadata: dict[str, Scalar] = {}
    if heading := _shared(atom.part.heading for atom in atoms):
        metadata["heading"] = " > ".join(heading)
    if part.rows and start >= part.rows[0]:
        metadata["columns"] = part.columns
    return Passage(text[start:end], start, end, metadata)


def _shared(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The headings that all stand under."""
    shared, *others = dict.fromkeys(paths)
    for path in others:
        shared = tuple([one for one, _ in takewhile(lambda both: both[0] == both[1], zip(shared, path, strict=False))])
    return shared


def _rank(text: str, at: int) -> int:
    """How good it is to cut before a place: before a line that stands far left, after a blank one, at its beginning."""
    before = text[max(0, at - _LOOK) : at]
    blanks = before[len(before.rstrip()) :]
    line = blanks.rfind("\n")
    if line < 0:
        return (_SENTENCE if before.rstrip().endswith(_SENTENCE_ENDS) else _WORD) if before.strip() else 0
    return 2 * (len(blanks) - line - 1) + (blanks.count("\n") == 1)
