"""A search index with the readers inside: what may not be read is not searched."""

from ringwall_index.store import Indexed
from ringwall_index.vectors import AuthorisedVectors, Found, View

__all__ = ["AuthorisedVectors", "Found", "Indexed", "View"]
