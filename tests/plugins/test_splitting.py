"""Splitting by tokens: never more than asked for, nothing lost, cut where the structure says."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import tree_sitter_python
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ringwall import ACL, App, Principal, Rules, ScriptedModel
from ringwall.cli import app as command_line
from ringwall.data import ByKind, Ingestor, Manifest, MemoryStore, Passage, Query, Splitter, split
from ringwall.errors import ConfigurationError, InvalidInput, UnknownPlugin
from ringwall.library import Library
from ringwall.principal import PUBLIC
from ringwall_files import read_files
from ringwall_files.formats import FORMATS
from ringwall_llama.provider import bundled_model
from ringwall_minilm import MiniLmEmbeddings
from ringwall_splitting import TokenSplitter, by_tokens
from ringwall_splitting.kinds import CODE, PLAIN
from ringwall_wordllama import WordLlamaEmbeddings

Count = Callable[[str], int]
OPEN = ACL.of(PUBLIC)
ROWS = "".join(f"| dish {number} | {number} |\n" for number in range(60))
TABLE = f"| name | price |\n| --- | --- |\n{ROWS}"


@cache
def wordllama() -> WordLlamaEmbeddings:
    return WordLlamaEmbeddings()


@cache
def minilm() -> MiniLmEmbeddings:
    return MiniLmEmbeddings()


def size_in_bytes(text: str) -> int:
    return len(text.encode()) + 2


def words(text: str) -> int:
    return len(text.split())


COUNTS: dict[str, Count] = {
    "wordllama": lambda text: wordllama().tokens(text),
    "minilm": lambda text: minilm().tokens(text),
    "bytes": size_in_bytes,
}
KINDS = ["a.md", "a.txt", "a.csv", "a.py", "a.html"]

snippets = st.sampled_from(
    [
        "word",
        "Unglaubwürdigkeit",
        "é😀",
        "한국어",
        "﷽",
        "# Menu\n",
        "## Wines\n",
        "Title\n===\n",
        "```python\n",
        "~~~\n",
        "| a | b |\n",
        "| --- | --- |\n",
        "a,b\n",
        '"x\n',
        "def f(x):\n",
        "    return 1\n",
        "\n",
        "\r\n",
        "\n\n",
        ". ",
        " ",
        "\t",
        "\x0c",
        "\u200b",
        "x" * 700,
        "- item\n",
        "  - nested\n",
    ]
)
texts = st.lists(snippets, max_size=80).map("".join) | st.text(max_size=300)


def check(text: str, passages: list[Passage], count: Count, size: int) -> None:
    """What holds for every text: within the size, where it says, in order, nothing but white space between."""
    end = 0
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text == passage.text.strip() != ""
        assert count(passage.text) <= size
        assert passage.start >= end
        assert not text[end : passage.start].strip()
        end = passage.end
    assert not text[end:].strip()


@settings(deadline=None)  # the first one loads a model
@example(text="a\n\n" * 300, size=40, kind="a.md", counts="wordllama")
@example(text=TABLE, size=64, kind="a.md", counts="minilm")
@given(
    text=texts, size=st.integers(32, 300), kind=st.sampled_from(KINDS), counts=st.sampled_from(["minilm", "wordllama"])
)
def test_no_passage_has_more_tokens_than_asked_for_and_nothing_is_lost(
    text: str, size: int, kind: str, counts: str
) -> None:
    count = COUNTS[counts]
    check(text, by_tokens(count, size).of(kind)(text), count, size)


@settings(deadline=None)
@given(text=texts, size=st.integers(32, 100), kind=st.sampled_from(KINDS))
def test_it_holds_for_a_count_that_grows_when_texts_are_joined(text: str, size: int, kind: str) -> None:
    def count(text: str) -> int:
        return words(text) + (words(text) // 10) ** 2

    check(text, by_tokens(count, size).of(kind)(text), count, size)


PATHOLOGICAL = {
    "one word": "x",
    "one line": "some words of one line ",
    "newlines": "\n",
    "blanks": "a" + " " * 1000,
    "short lines": "a\n",
    "short paragraphs": "a\n\n",
    "quotes": ">",
    "brackets": "[",
    "backticks": "`",
    "fences": "```\n",
    "headings": "# h\n",
    "tables": "| a | b |\n| --- | --- |\n",
    "sums": "1+",
    "emoji": "😀",
    "nothing to see": "\u200b",
    "csv": '"',
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
@pytest.mark.parametrize("kind", ["a.md", "a.py"])
def test_time_grows_with_the_length_and_no_faster(name: str, kind: str) -> None:
    cut = by_tokens(size_in_bytes, 256).of(kind)

    def seconds(length: int) -> float:
        text = PATHOLOGICAL[name] * (length // len(PATHOLOGICAL[name]))
        gc.disable()  # nor does it count what else is in this process: how much there is to collect, other threads
        began = time.thread_time()
        passages = cut(text)
        spent = time.thread_time() - began
        gc.enable()
        check(text, passages, size_in_bytes, 256)
        return spent

    assert seconds(80_000) < 24 * max(seconds(10_000), 0.01)  # 8 times as long; with squares it would be 64


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        "\n" * 1_000_000,
        "```\n" + "a line of code\n" * 20_000,
        "| a | b |\n| --- | --- |\n" + "| one | two |\n" * 20_000,
        "".join("  " * depth + "- deeper\n" for depth in range(2_000)),
    ],
    ids=["a line of 5 MB", "a million newlines", "an unclosed fence", "a huge table", "deep nesting"],
)
def test_huge_texts_are_cut(text: str) -> None:
    check(text, by_tokens(size_in_bytes, 400).of("a.md")(text), size_in_bytes, 400)


@pytest.mark.parametrize("counts", ["minilm", "wordllama"])
def test_passages_are_filled(counts: str) -> None:
    numbers = random.Random(0)
    sentence = [" ".join(numbers.choices(TABLE.split() + dir(str), k=12)) + "." for _ in range(300)]
    passages = TokenSplitter(COUNTS[counts], 256)(" ".join(sentence))
    filled = [COUNTS[counts](passage.text) for passage in passages[:-1]]
    assert sum(filled) / len(filled) > 0.8 * 256


def cut(text: str, size: int = 40, kind: str = "a.md") -> list[Passage]:
    """Cut by words, which are easy to count."""
    return by_tokens(words, size).of(kind)(text)


def prose(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


def test_a_heading_opens_a_passage_and_never_ends_one() -> None:
    text = f"# Menu\n\n{prose(25)}\n\n## Wines\n\n{prose(25)}\n\nBeer\n----\n\n{prose(30)}"
    assert [p.text.split("\n")[0] for p in cut(text)] == ["# Menu", "## Wines", "Beer"]


def test_the_highest_heading_in_the_second_half_opens_the_next_passage() -> None:
    text = f"# A\n\n{prose(18)}\n\n# B\n\n{prose(6)}\n\n## C\n\n{prose(30)}"
    assert [p.text.split("\n")[0] for p in cut(text)] == ["# A", "# B", "## C"]


def test_a_passage_says_what_all_of_it_stands_under() -> None:
    text = f"{prose(30)}\n\n# Menu #\n\n{prose(30)}\n\n## Red *wines*\n\n{prose(60)}"
    said = [p.metadata.get("heading") for p in cut(text)]
    assert said == [None, "Menu", "Menu > Red *wines*", "Menu > Red *wines*"]
    (both,) = cut("# Menu\n\n## Red\n\nMerlot\n\n## White\n\nRiesling")
    assert both.metadata == {"heading": "Menu"}


def test_a_paragraph_that_does_not_fit_is_cut_after_a_sentence() -> None:
    passages = cut(" ".join(f"Sentence {n} has {prose(12, 'quite')} words." for n in range(20)))
    assert len(passages) > 5
    assert all(p.text.startswith("Sentence") and p.text.endswith("words.") for p in passages)


def test_what_looks_like_a_heading_in_a_fence_is_none() -> None:
    text = f"# Real\n\n```sh\n# a comment\n{prose(30)}\n```\n\n{prose(30)}"
    assert [p.metadata for p in cut(text)] == [{"heading": "Real"}] * 2


@pytest.mark.parametrize("fence", ["```", "~~~~"])
def test_a_fenced_block_stays_whole_where_it_fits(fence: str) -> None:
    block = f"{fence}python\n{prose(15)}\n\n# no heading\n\n{prose(15)}\n{fence}"
    assert block in [p.text for p in cut(f"{prose(25)}\n\n{block}\n\n{prose(25)}")]


def test_a_table_stays_whole_where_it_fits() -> None:
    table = "| a | b |\n| --- | --- |\n" + "| c | d |\n" * 5
    passages = cut(f"{prose(25)}\n\n{table}\n{prose(25)}")
    assert table.strip() in [p.text for p in passages]
    assert not any("columns" in p.metadata for p in passages)


def test_a_table_that_does_not_fit_is_cut_between_rows_and_each_piece_knows_its_columns() -> None:
    first, *others = cut(f"# Menu\n\n{TABLE}\n{prose(5, 'after')}")
    assert first.metadata == {"heading": "Menu"}
    assert len(others) > 5
    assert all(p.metadata == {"heading": "Menu", "columns": "| name | price |"} for p in others)
    lines = [line for p in (first, *others) for line in p.text.splitlines()]
    assert [line for line in lines if "dish" in line] == ROWS.splitlines()


def test_a_row_that_is_too_large_alone_is_cut_within() -> None:
    text = f"| a | b |\n|---|---|\n| {prose(90, 'x')} | y |\n| c | d |\n"
    passages = cut(text)
    check(text, passages, words, 40)
    assert passages[-1].metadata["columns"] == "| a | b |"


def test_a_csv_file_is_a_table_whose_rows_may_have_several_lines() -> None:
    rows = "".join(f'{number},"two words\nand a\n""third"" line"\n' for number in range(30))
    first, *others = cut(f"id,said\n{rows}", kind="A.CSV")
    assert first.text.startswith("id,said\n")
    assert others
    assert all(p.text[0].isdigit() and p.metadata == {"columns": "id,said"} for p in others)


def test_python_is_cut_along_its_syntax() -> None:
    functions = [f"@cached\ndef number_{n}(a, b):\n    # one\n\n    return [a + b, {n}]\n" for n in range(20)]
    passages = cut("\n\n".join(functions), 60, "a.py")
    assert len(passages) > 3
    assert all(p.text.startswith("@cached\ndef") for p in passages)


def test_a_language_that_is_given_is_cut_along_its_syntax_and_another_is_plain_text() -> None:
    code = "\n".join(f"def f{n}():\n    a = 1\n\n    b = 2\n\n    return a + b\n" for n in range(20))
    given_one = by_tokens(words, 40, languages={".gd": tree_sitter_python.language()})
    assert all(p.text.startswith("def") for p in given_one.of("a.gd")(code))
    assert cut(code, kind="a.rb") == cut(code, kind="a.txt")
    assert "heading" not in cut("# a comment", kind="a.rb")[0].metadata


def test_no_source_code_that_is_read_counts_as_markdown() -> None:
    assert {suffix for suffix, module in FORMATS.items() if module == "plain"} - {".md"} <= {*CODE, *PLAIN}


def test_a_gguf_counts_with_its_own_tokenizer() -> None:
    from llama_cpp import Llama

    model = Llama(str(bundled_model()), vocab_only=True, verbose=False)

    def count(text: str) -> int:
        return len(model.tokenize(text.encode(), add_bos=True))

    text = Path("docs/howto/ingest-files.md").read_text(encoding="utf-8")
    passages = TokenSplitter(count, 100)(text)
    model.close()
    assert len(passages) > 10


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 32"):
        TokenSplitter(words, 31)


def test_a_character_with_more_tokens_than_a_passage_may_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'x' has 50 tokens"):
        TokenSplitter(lambda text: 50 * text.count("x"), 40)("words and an x")


async def test_another_size_or_kind_cuts_anew_and_the_same_does_not(tmp_path: Path) -> None:
    def ways() -> list[Splitter | ByKind]:
        python = TokenSplitter(words, 4000)
        return [
            by_tokens(words, 4000),
            by_tokens(words, 4001),
            ByKind({".py": python}),
            ByKind({".rb": python}),
            python,
            split,
        ]

    manifest = Manifest(tmp_path / "manifest.db")
    store = MemoryStore()
    for one, same in zip(ways(), ways(), strict=True):
        report = await Ingestor(store, splitter=one, manifest=manifest).ingest([("a.md", "trout")], OPEN)
        assert report.ingested
        report = await Ingestor(store, splitter=same, manifest=manifest).ingest([("a.md", "trout")], OPEN)
        assert report.unchanged
    manifest.close()


async def test_what_files_give_is_cut_by_its_kind_and_says_what_it_stands_under(tmp_path: Path) -> None:
    (tmp_path / "menu.csv").write_text("dish,price\n" + "".join(f"dish {n},{n}\n" for n in range(60)))
    (tmp_path / "page.html").write_text(f"<h1>Menu</h1><table><tr><th>a<th>b</tr>{'<tr><td>c<td>d</tr>' * 60}</table>")
    (tmp_path / "code.py").write_text("# no heading\n" + "x = 1\n" * 100)
    store = MemoryStore()
    report = await Ingestor(store, splitter=by_tokens(words, 60)).ingest(read_files(tmp_path), OPEN)
    assert not report.refused
    said = {
        name: {key: match.chunk.metadata.get(key) for key in ("heading", "columns")}
        for name, asked in (("menu.csv", "dish 59"), ("page.html", "c d"), ("code.py", "x"))
        for match in await store.search(Query(asked), frozenset((PUBLIC,)), 50)
        if match.chunk.document == name and match.chunk.start > 150
    }
    assert said == {
        "menu.csv": {"heading": None, "columns": "| dish | price |"},
        "page.html": {"heading": "Menu", "columns": "| a | b |"},
        "code.py": {"heading": None, "columns": None},
    }


async def test_a_model_reads_what_a_passage_stands_under_but_not_for_those_who_may_not_read_the_passage() -> None:
    echo = ScriptedModel(lambda request: f'"Menu > Wines" {request.messages[-1].content}')
    async with App(policy=Rules("allow user:* ask app:app"), model=echo) as app:
        ingestor = Ingestor(app.documents, splitter=by_tokens(words, 40))
        await ingestor.ingest([("a.md", f"# Menu\n\n## Wines\n\n{TABLE}")], ACL.of("user:ana"))
        answer = await app.ask("What is dish 59?", as_=Principal.user("ana"))
        assert "] Menu > Wines\n| name | price |\n| dish" in answer.text
        assert answer.unfounded == ()
        answer = await app.ask("What is dish 59?", as_=Principal.user("bo"))
        assert answer.text == '"Menu > Wines" What is dish 59?'
        assert answer.unfounded == ("Menu > Wines",)


class TestTheCommandLine:
    def test_passages_have_at_most_so_many_tokens(self, tmp_path: Path) -> None:
        (tmp_path / "menu.md").write_text(f"# Menu\n\n{prose(500, 'trout')}")
        command = ["ingest", str(tmp_path / "menu.md"), "--library", str(tmp_path / "library"), "--readers", "public"]
        done = CliRunner().invoke(command_line, [*command, "--passage-tokens", "64"])
        assert done.exit_code == 0, done.output
        assert "1 ingested" in done.output

        async def passages() -> list[str]:
            library = Library(tmp_path / "library")
            found = [chunk.text async for batch in library.store.scan() for chunk in batch]
            await library.close()
            return found

        found = asyncio.run(passages())
        assert len(found) > 10
        assert all(wordllama().tokens(text) <= 64 for text in found)
        again = CliRunner().invoke(command_line, [*command, "--passage-tokens", "64"])
        assert "1 unchanged" in again.output
        again = CliRunner().invoke(command_line, [*command, "--passage-tokens", "65"])
        assert "1 ingested" in again.output

    def test_an_embedder_that_does_not_count_is_said_to(self, tmp_path: Path) -> None:
        (tmp_path / "menu.md").write_text("trout")
        command = ["ingest", str(tmp_path / "menu.md"), "--library", str(tmp_path / "library"), "--readers", "public"]
        done = CliRunner().invoke(command_line, [*command, "--passage-tokens", "64", "--embeddings", "none"])
        assert isinstance(done.exception, ConfigurationError)

    def test_without_the_extra_its_name_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        for name in [name for name in sys.modules if name.startswith("ringwall_splitting")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
        (tmp_path / "menu.md").write_text("trout")
        command = ["ingest", str(tmp_path / "menu.md"), "--library", str(tmp_path / "library"), "--readers", "public"]
        done = CliRunner().invoke(command_line, [*command, "--passage-tokens", "64"])
        assert isinstance(done.exception, UnknownPlugin)
        assert "ringwall[splitting]" in str(done.exception)
