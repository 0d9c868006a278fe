"""The data ring: documents with their readers, and searches that never see past them."""

from ringwall.data.admit import Pending, Readers
from ringwall.data.base import (
    Chunk,
    Condition,
    DocumentStore,
    Embeddings,
    Match,
    Operator,
    Query,
    Scalar,
    StoreOfRecord,
    Vector,
)
from ringwall.data.embedding_cache import CachedEmbeddings
from ringwall.data.folder import read_folder
from ringwall.data.frontmatter import front_matter_readers
from ringwall.data.fuse import fuse
from ringwall.data.ingest import Ingestor
from ringwall.data.manifest import Manifest
from ringwall.data.memory import MemoryStore
from ringwall.data.outcome import Ingested, IngestReport, Outcome, Refused, Relabelled, Removed, Unchanged
from ringwall.data.readers import BesideIt, ByPath, ByPermission, first_of
from ringwall.data.retrieve import Retriever, Rewriter, Trail
from ringwall.data.splitting import Passage, Splitter, TextSplitter, split
from ringwall.data.stages import Decay, Mmr, Neighbours, Rerank, Reranker, Search, Stage
from ringwall.data.workers import Workers

__all__ = [
    "BesideIt",
    "ByPath",
    "ByPermission",
    "CachedEmbeddings",
    "Chunk",
    "Condition",
    "Decay",
    "DocumentStore",
    "Embeddings",
    "IngestReport",
    "Ingested",
    "Ingestor",
    "Manifest",
    "Match",
    "MemoryStore",
    "Mmr",
    "Neighbours",
    "Operator",
    "Outcome",
    "Passage",
    "Pending",
    "Query",
    "Readers",
    "Refused",
    "Relabelled",
    "Removed",
    "Rerank",
    "Reranker",
    "Retriever",
    "Rewriter",
    "Scalar",
    "Search",
    "Splitter",
    "Stage",
    "StoreOfRecord",
    "TextSplitter",
    "Trail",
    "Unchanged",
    "Vector",
    "Workers",
    "first_of",
    "front_matter_readers",
    "fuse",
    "read_folder",
    "split",
]
