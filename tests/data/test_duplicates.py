"""What is there twice, or nearly: found, folded in results, and told with who may read which copy."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import cli
from ringwall.data import Chunk, Distinct, Ingestor, Match, MemoryStore, Retriever
from ringwall.data.alike import likeness, shingles
from ringwall.data.duplicates import Copies, duplicates
from ringwall.errors import InvalidInput
from ringwall.library import Library
from ringwall.principal import ACL, PUBLIC

EVERYONE, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")
READER = frozenset((PUBLIC,))
WORDS = [f"{a}{b}" for a in ("tro", "pi", "pe", "ca", "ee", "sal", "co", "ha") for b in ("ut", "ke", "rch", "rp", "l")]


def chunk(id: str, text: str, readers: ACL = EVERYONE) -> Chunk:
    return Chunk(id, id.partition("#")[0], text, readers)


async def holding(chunks: Sequence[Chunk]) -> MemoryStore:
    store = MemoryStore()
    await store.upsert(chunks)
    return store


def ids(found: Sequence[Copies]) -> list[list[str]]:
    return [[copy.id for copy in copies.copies] for copies in found]


def sentence(chooser: random.Random, length: int) -> list[str]:
    return [chooser.choice(WORDS) for _ in range(length)]


def changed(words: list[str], chooser: random.Random, times: int) -> list[str]:
    """The words with some others: at their end, so that each spoils as few runs as it can."""
    return [*words[: len(words) - times], *sentence(chooser, times)]


@st.composite
def planted(draw: st.DrawFn) -> list[str]:
    """Texts of all lengths, among them some that were made of others by changing a few words."""
    chooser = random.Random(draw(st.integers(0, 2**32)))
    texts = [sentence(chooser, draw(st.integers(0, 120))) for _ in range(draw(st.integers(1, 12)))]
    for _ in range(draw(st.integers(0, 12))):
        of = draw(st.sampled_from(texts))
        texts.append(changed(of, chooser, draw(st.integers(0, min(8, len(of))))))
    return [" ".join(text) for text in texts]


@settings(deadline=None, max_examples=150, derandomize=True)
@given(planted(), st.sampled_from([0.5, 0.8, 0.9, 1.0]))
async def test_pairs_at_the_threshold_are_found_and_no_others(texts: list[str], threshold: float) -> None:
    found = await duplicates(await holding([chunk(f"{n}#0", t) for n, t in enumerate(texts)]), threshold=threshold)
    groups = [{int(copy.id[:-2]) for copy in copies.copies} for copies in found]
    said = [shingles(text) for text in texts]
    for a, text in enumerate(said):
        alike = {b for b, other in enumerate(said) if a != b and likeness(text, other) >= threshold}
        (group,) = [group for group in groups if a in group] or [{a}]
        assert alike <= group
        assert bool(alike) is (len(group) > 1)  # and each is alike to one of its group, at least
    for copies, group in zip(found, groups, strict=True):
        assert copies.likeness >= threshold
        assert all(max(likeness(said[a], said[b]) for b in group - {a}) >= copies.likeness for a in group)


async def test_of_a_thousand_planted_pairs_at_most_a_few_are_missed() -> None:
    chooser, chunks, pairs = random.Random(3), [], 0
    for n in range(1000):
        words = sentence(chooser, 120)
        other = changed(words, chooser, 6)
        pairs += likeness(shingles(" ".join(words)), shingles(" ".join(other))) >= 0.9
        chunks += [chunk(f"a{n}", " ".join(words)), chunk(f"b{n}", " ".join(other))]
    found = await duplicates(await holding(chunks))
    assert pairs > 900  # by chance some words are the same
    assert pairs - 3 <= len(found) <= pairs
    assert all(a[1:] == b[1:] for a, b in ids(found))


async def test_thousands_of_versions_of_one_text_are_one_group() -> None:
    chooser = random.Random(9)
    words = sentence(chooser, 200)
    chunks = [chunk(f"{n:04}", " ".join([*words, "number", str(n)])) for n in range(1000)]
    (found,) = await duplicates(await holding(chunks))
    assert len(found.copies) == 1000


async def test_the_same_text_with_other_readers_comes_first() -> None:
    text = "the wage of the cook is one hundred and the cellar code is seven"
    store = await holding(
        [
            *(chunk(f"menu{n}#0", "trout with sage and butter and pike with mint and cream") for n in range(4)),
            chunk("wages#0", text, STAFF),
            chunk("minutes#3", text.upper(), EVERYONE),
            chunk("other#0", "nothing of all this is said anywhere else in this house", STAFF),
        ]
    )
    secret, menus = await duplicates(store)
    assert (ids([secret]), secret.have_other_readers, secret.likeness) == ([["minutes#3", "wages#0"]], True, 1.0)
    assert {copy.id: copy.readers for copy in secret.copies} == {
        "wages#0": frozenset((STAFF,)),
        "minutes#3": frozenset((EVERYONE,)),
    }
    assert (len(menus.copies), menus.have_other_readers) == (4, False)


async def test_whole_documents_are_compared_whatever_their_passages() -> None:
    chooser = random.Random(5)
    parts = [" ".join(sentence(chooser, 60)) for _ in range(4)]
    store = await holding(
        [
            *(chunk(f"a#{n}", part) for n, part in enumerate(parts)),
            *(chunk(f"b#{n}", part, STAFF) for n, part in enumerate(reversed(parts))),
            *(chunk(f"c#{n}", part) for n, part in enumerate(parts[:2])),
        ]
    )
    assert ids(await duplicates(store, of="documents")) == [["a", "b"]]
    assert ids(await duplicates(store, of="documents", threshold=0.45)) == [["a", "b", "c"]]


async def test_texts_without_words_and_scripts_without_spaces_are_texts_too() -> None:
    texts = ["", "", "!!", "??", "!!", "日本語のメニュー", "日本語のメニュー", "\ud800 a", "\ud800 a"]
    found = await duplicates(await holding([chunk(f"{n}#0", text) for n, text in enumerate(texts)]))
    assert sorted(ids(found)) == [["0#0", "1#0"], ["2#0", "4#0"], ["5#0", "6#0"], ["7#0", "8#0"]]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
async def test_a_threshold_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(InvalidInput):
        await duplicates(MemoryStore(), threshold=threshold)
    with pytest.raises(InvalidInput):
        Distinct(threshold)


LONG = "Trout from the pond is fried in butter with sage and served with a glass of white wine from the hills. " * 2


def versions(count: int, readers: ACL = EVERYONE) -> list[Chunk]:
    return [chunk(f"v{n}-{sorted(readers)[0]}#0", f"{LONG} Version {n}.", readers) for n in range(count)]


async def test_of_what_says_nearly_the_same_the_best_is_returned_and_others_take_the_places() -> None:
    others = [
        chunk(f"pike{n}#0", f"Pike {word} in its own way is no trout at all.") for n, word in enumerate(WORDS[:5])
    ]
    retriever = Retriever(await holding([*versions(30), *others]))
    plain = await retriever.retrieve("trout with sage", READER, 4)
    assert {m.chunk.document[0] for m in plain} == {"v"}
    folded = await retriever.retrieve("trout with sage", READER, 4, fold=Distinct())
    assert [m.chunk.document[0] for m in folded] == ["v", "p", "p", "p"]
    assert folded[0].chunk.id == plain[0].chunk.id


async def test_what_a_reader_may_not_read_folds_nothing() -> None:
    alone = Retriever(await holding(versions(3)))
    among = Retriever(await holding([*versions(3), *versions(50, STAFF)]))
    for fold in (Distinct(), Distinct(0.5)):
        expected = await alone.retrieve("trout with sage", READER, 4, fold=fold)
        found = await among.retrieve("trout with sage", READER, 4, fold=fold)
        assert found == expected
        assert len(found) == 1


@given(planted(), st.sampled_from([0.5, 0.9, 1.0]))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_a_fold_keeps_the_order_and_leaves_out_only_what_is_alike(texts: list[str], threshold: float) -> None:
    matches = [Match(chunk(f"{n}#0", text), -float(n)) for n, text in enumerate(texts)]
    kept = Distinct(threshold)(matches)
    assert kept == [match for match in matches if match in kept]
    said = [shingles(match.chunk.text) for match in kept]
    assert all(likeness(a, b) < threshold for n, a in enumerate(said) for b in said[:n])
    for n, match in enumerate(matches):
        if match not in kept:
            earlier = [m for m in matches[:n] if m in kept]
            assert any(likeness(shingles(match.chunk.text), shingles(m.chunk.text)) >= threshold for m in earlier)


async def _filled(folder: Path) -> None:
    library = Library.fill(folder, embeddings="none")
    ingestor = Ingestor(library.store, None)
    await ingestor.ingest([("hr/wages", LONG), ("[menu]", LONG), ("pike", "Pike with mint and cream.")], EVERYONE)
    await ingestor.ingest([("secret", LONG + "now")], STAFF)
    await library.close()


def test_the_command_line_tells_a_person_and_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(_filled(tmp_path / "library"))

    def typed(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ringwall", "data", "duplicates", str(tmp_path / "library"), *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0), capsys.readouterr().out

    status, out = typed()
    assert status == 1
    assert all(
        said in out for said in ("[menu]#0", "role:staff", "1 groups of copies, 1 of them with different readers")
    )
    status, out = typed("--json", "--other-readers", "--documents")
    (line,) = map(json.loads, out.splitlines())
    assert line["other_readers"] is True
    assert line["copies"][-1] == {"id": "secret", "readers": [["role:staff"]]}
    assert typed("--threshold", "1", "--other-readers")[0] == 0
