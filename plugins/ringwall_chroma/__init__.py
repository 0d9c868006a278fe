"""Documents in an embedded Chroma database, with their readers inside each query."""

from ringwall_chroma.store import ChromaStore

__all__ = ["ChromaStore"]
