"""Any LangChain `VectorStore` beside a store of record, if its filter can be trusted. Imported by who uses it."""

from ringwall.bridge.outside import Filter, dictionary_filter, function_filter
from ringwall.bridge.store import Bridged

__all__ = ["Bridged", "Filter", "dictionary_filter", "function_filter"]
