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
    Section,
    Sections,
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
from ringwall.data.receiving import InProcess, MayReceive, receiver_of
from ringwall.data.retrieve import Retriever, Rewriter, Trail
from ringwall.data.splitting import ByKind, CountsTokens, Passage, Splitter, TextSplitter, split
from ringwall.data.stages import Decay, Distinct, Fold, Mmr, Neighbours, Rerank, Reranker, Search, Stage
from ringwall.data.workers import Workers

__all__ = [
    "BesideIt",
    "ByKind",
    "ByPath",
    "ByPermission",
    "CachedEmbeddings",
    "Chunk",
    "Condition",
    "CountsTokens",
    "Decay",
    "Distinct",
    "DocumentStore",
    "Embeddings",
    "Fold",
    "InProcess",
    "IngestReport",
    "Ingested",
    "Ingestor",
    "Manifest",
    "Match",
    "MayReceive",
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
    "Section",
    "Sections",
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
    "receiver_of",
    "split",
]
