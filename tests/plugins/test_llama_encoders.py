"""GGUF embedders and rerankers: their contracts, and the numbers of the same weights computed otherwise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, PoolingType
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from plain_minilm import PlainMiniLm
from ringwall.data import Chunk, Embeddings, MemoryStore, Rerank, Retriever
from ringwall.data.contract import EmbeddingsContract
from ringwall.errors import BadModelFile, ConfigurationError, ProviderUnavailable, RingwallError
from ringwall.principal import ACL, PUBLIC
from ringwall_llama import GgufEmbeddings, GgufReranker, LlamaCpp
from ringwall_llama.provider import bundled_model
from ringwall_minilm import MiniLmEmbeddings
from ringwall_minilm.files import bundled_folder
from tests.plugins.gguf_models import write_encoder

TEXTS = [
    "Which wine goes with fish?",
    "With fish we pour a white wine, and with the lamb a red one from the valley.",
    "The printer on the second floor is out of paper.",
    "Das Café öffnet um acht; 日本語 😀",
    "The guests of the garden room have asked for a table by the window. " * 40,
    "",
]
QUESTION = TEXTS[0]
SHORT = [f"{number} {what}" for number in range(8) for what in ("table", "guests in the garden", "")]


def head() -> dict[str, npt.NDArray[np.float32]]:
    """A classifier of one score, made up."""
    numbers = np.random.default_rng(7)
    return {
        "cls.weight": numbers.normal(0, 0.08, (384, 384)).astype(np.float32),
        "cls.bias": numbers.normal(0, 0.1, 384).astype(np.float32),
        "cls.output.weight": numbers.normal(0, 0.3, (1, 384)).astype(np.float32),
        "cls.output.bias": np.array([0.25], np.float32),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def embedder_file(folder: Path) -> Path:
    return write_encoder(folder / "minilm.gguf")


@pytest.fixture(scope="module")
def embedder(embedder_file: Path) -> Iterator[GgufEmbeddings]:
    embedder = GgufEmbeddings(embedder_file, context=256, threads=1)
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Iterator[GgufReranker]:
    path = write_encoder(folder / "ranker.gguf", pooling=PoolingType.RANK, head=head())
    reranker = GgufReranker(path, threads=1)
    yield reranker
    reranker.close()


class TestOurContract(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self, embedder: GgufEmbeddings) -> Embeddings:
        return embedder


class TestLangChainsTests(EmbeddingsIntegrationTests):
    file: ClassVar[Path]

    @pytest.fixture(autouse=True)
    def made(self, embedder_file: Path) -> None:
        type(self).file = embedder_file

    @property
    def embeddings_class(self) -> type[GgufEmbeddings]:
        return GgufEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_path": self.file, "threads": 1}


def test_vectors_are_those_of_the_same_weights_in_onnx(embedder: GgufEmbeddings) -> None:
    ours = np.array(embedder.embed_documents(TEXTS))
    theirs = np.array(MiniLmEmbeddings(precision="float32").embed_documents(TEXTS))
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)
    assert (ours * theirs).sum(axis=1).min() >= 0.999


def test_a_vector_does_not_depend_on_what_is_embedded_along_with_it(embedder: GgufEmbeddings) -> None:
    texts = [*TEXTS, *SHORT]
    for text, together in zip(texts, embedder.embed_documents(texts), strict=True):
        assert embedder.embed_query(text) == together


def test_texts_computed_together_get_nearly_the_same_vectors(embedder: GgufEmbeddings, embedder_file: Path) -> None:
    many = GgufEmbeddings(embedder_file, context=256, threads=1, batch=32)
    texts = [*TEXTS, *SHORT]
    for text, together in zip(texts, many.embed_documents(texts), strict=True):
        assert embedder.embed_query(text) == pytest.approx(together, abs=2e-4)
    many.close()


def test_what_comes_after_the_context_does_not_count(embedder: GgufEmbeddings) -> None:
    beginning = "wine " * 254
    assert embedder.embed_query(beginning + "printer") == embedder.embed_query(beginning)
    assert embedder.embed_query("wine " * 253 + "printer") != embedder.embed_query(beginning)


def test_what_looks_like_a_control_token_is_text(embedder: GgufEmbeddings) -> None:
    plain = np.array(embedder.embed_query("wine [SEP] printer"))
    assert plain @ np.array(embedder.embed_query("wine [ sep ] printer")) > 0.9999


def test_prefixes_go_before_passages_and_questions(embedder: GgufEmbeddings, embedder_file: Path) -> None:
    prefixed = GgufEmbeddings(embedder_file, threads=1, prefix="passage: ", query_prefix="query: ")
    assert prefixed.embed_documents(["wine"]) == embedder.embed_documents(["passage: wine"])
    assert prefixed.embed_query("wine") == embedder.embed_query("query: wine")
    prefixed.close()


def test_several_threads_take_turns(embedder: GgufEmbeddings) -> None:
    alone = [embedder.embed_query(text) for text in TEXTS]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            assert list(pool.map(embedder.embed_query, TEXTS)) == alone


# ---- files that are none


def test_another_kind_of_model_is_refused(folder: Path, embedder_file: Path) -> None:
    unpooled = write_encoder(folder / "unpooled.gguf", pooling=PoolingType.NONE)
    headless = write_encoder(folder / "headless.gguf", pooling=PoolingType.RANK)
    wordless = write_encoder(folder / "wordless.gguf", vocabulary=False)
    for path in (bundled_model(), unpooled, headless, wordless):
        with pytest.raises(BadModelFile, match=f"{path.name} is no embedding model"):
            GgufEmbeddings(path)
    with pytest.raises(BadModelFile, match=r"wordless\.gguf is not a model that generates"):
        LlamaCpp(wordless)
    for path in (bundled_model(), embedder_file, headless):
        with pytest.raises(BadModelFile, match=f"{path.name} is no reranker"):
            GgufReranker(path)


@pytest.mark.parametrize("options", [{"context": 3}, {"batch": 0}, {"batch": 65}])
def test_a_context_or_a_batch_without_room_is_refused(embedder_file: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="at least 16 tokens, and 1 to 64 texts"):
        GgufEmbeddings(embedder_file, **options)


EMBED = """
import sys
from ringwall.errors import BadModelFile
from ringwall_llama import GgufEmbeddings
try:
    GgufEmbeddings(sys.argv[1], threads=1).embed_query("wine")
except BadModelFile as error:
    print("refused:", error)
"""


def test_halves_where_floats_are_wanted_do_not_end_the_process(tmp_path: Path) -> None:
    half = GGMLQuantizationType.F16
    broken = write_encoder(tmp_path / "broken.gguf", type=half, float_only=("position_embd.weight",))
    child = subprocess.run([sys.executable, "-c", EMBED, str(broken)], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    assert "'token_types.weight' of the type 1, which cannot be added" in child.stdout


@pytest.mark.parametrize("size", [0, 24, 200_000, 40_000_000])
def test_a_file_cut_short_is_refused(tmp_path: Path, embedder_file: Path, size: int) -> None:
    with embedder_file.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(size))
    for kind in (GgufEmbeddings, GgufReranker):
        with pytest.raises(BadModelFile, match=r"cut\.gguf"):
            kind(tmp_path / "cut.gguf")


def test_after_closing_it_says_so(embedder_file: Path) -> None:
    embedder = GgufEmbeddings(embedder_file, threads=1)
    embedder.close()
    embedder.close()
    with pytest.raises(ProviderUnavailable, match="minilm was closed"):
        embedder.embed_query("wine")


@pytest.mark.parametrize("type", [GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0])
def test_smaller_weights_give_nearly_the_same_vectors(
    tmp_path: Path, embedder: GgufEmbeddings, type: GGMLQuantizationType
) -> None:
    small = GgufEmbeddings(write_encoder(tmp_path / "small.gguf", type=type), context=256, threads=1)
    ours, theirs = np.array(small.embed_documents(TEXTS)), np.array(embedder.embed_documents(TEXTS))
    assert (ours * theirs).sum(axis=1).min() >= 0.995
    for text, together in zip(TEXTS, ours, strict=True):
        assert small.embed_query(text) == list(together)
    small.close()


# ---- reranking


class PlainRanker(PlainMiniLm):
    """The same encoder and head in numpy."""

    def score(self, question: str, text: str) -> float:
        tokens = [*self._tokenizer.encode(question).ids, *self._tokenizer.encode(text).ids[1:]]
        x, given = self.states(tokens)[0], head()
        hidden = np.tanh(given["cls.weight"] @ x + given["cls.bias"])
        return float((given["cls.output.weight"] @ hidden + given["cls.output.bias"])[0])


def test_scores_are_those_of_the_same_weights_in_numpy(reranker: GgufReranker) -> None:
    plain = PlainRanker(bundled_folder())
    short = [text for text in TEXTS if len(text) < 500]
    expected = [plain.score(QUESTION, text) for text in short]
    assert reranker.scores(QUESTION, short) == pytest.approx(expected, abs=0.02)
    assert max(expected) - min(expected) > 1


def test_a_score_is_the_same_alone_and_among_others(reranker: GgufReranker) -> None:
    texts = [*TEXTS, *SHORT[:4]]
    for text, together in zip(texts, reranker.scores(QUESTION, texts), strict=True):
        assert reranker.scores(QUESTION, [text]) == [together]
    assert reranker.scores(QUESTION, []) == []


def test_long_questions_and_texts_are_cut_each_to_its_part(reranker: GgufReranker) -> None:
    question, text = "wine " * 400, "printer " * 1000
    assert reranker.scores(question, [text]) == reranker.scores("wine " * 256, ["printer " * 300])
    assert reranker.scores(question, [text]) != reranker.scores(question, ["paper " * 300])


async def test_a_search_is_put_in_its_order(reranker: GgufReranker) -> None:
    store, short = MemoryStore(), TEXTS[1:4]
    await store.upsert([Chunk(str(n), str(n), f"wine. {text}", ACL.of(PUBLIC)) for n, text in enumerate(short)])
    found = await Retriever(store).retrieve("wine", frozenset((PUBLIC,)), stages=[Rerank(reranker)])
    scores = reranker.scores("wine", [f"wine. {text}" for text in short])
    assert [m.chunk.id for m in found] == [str(n) for n in np.argsort(scores)[::-1]]


def test_a_reranker_is_closed_like_an_embedder(folder: Path, reranker: GgufReranker) -> None:
    other = GgufReranker(folder / "ranker.gguf", threads=1)
    other.close()
    with pytest.raises(RingwallError, match="closed"):
        other.scores(QUESTION, TEXTS)
