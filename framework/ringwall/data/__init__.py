"""The data ring: documents with their readers, and searches that never see past them."""

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
from ringwall.data.frontmatter import front_matter_readers
from ringwall.data.fuse import fuse
from ringwall.data.ingest import Ingested, Ingestor, IngestReport, Readers, Refused, read_folder
from ringwall.data.memory import MemoryStore
from ringwall.data.retrieve import Retriever
from ringwall.data.splitting import Passage, Splitter, TextSplitter, split

__all__ = [
    "Chunk",
    "Condition",
    "DocumentStore",
    "Embeddings",
    "IngestReport",
    "Ingested",
    "Ingestor",
    "Match",
    "MemoryStore",
    "Operator",
    "Passage",
    "Query",
    "Readers",
    "Refused",
    "Retriever",
    "Scalar",
    "Splitter",
    "StoreOfRecord",
    "TextSplitter",
    "Vector",
    "front_matter_readers",
    "fuse",
    "read_folder",
    "split",
]
