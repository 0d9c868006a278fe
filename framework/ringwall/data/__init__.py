"""The data ring: documents with their readers, and searches that never see past them."""

from ringwall.data.base import Chunk, DocumentStore, Embeddings, Match, Query, Scalar, Vector
from ringwall.data.frontmatter import front_matter_readers
from ringwall.data.fuse import fuse
from ringwall.data.ingest import Ingested, Ingestor, IngestReport, Readers, Refused, read_folder
from ringwall.data.memory import MemoryStore
from ringwall.data.retrieve import Retriever
from ringwall.data.splitting import Passage, Splitter, TextSplitter, split

__all__ = [
    "Chunk",
    "DocumentStore",
    "Embeddings",
    "IngestReport",
    "Ingested",
    "Ingestor",
    "Match",
    "MemoryStore",
    "Passage",
    "Query",
    "Readers",
    "Refused",
    "Retriever",
    "Scalar",
    "Splitter",
    "TextSplitter",
    "Vector",
    "front_matter_readers",
    "fuse",
    "read_folder",
    "split",
]
