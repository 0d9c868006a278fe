"""Local models: any GGUF file through llama.cpp, in this process, to chat, to embed, and to rerank."""

from __future__ import annotations

from ringwall_llama.core import Spent
from ringwall_llama.embeddings import GgufEmbeddings
from ringwall_llama.engine import Load, Overloaded
from ringwall_llama.files import GgufFiles
from ringwall_llama.provider import LlamaCpp
from ringwall_llama.reranker import GgufReranker
from ringwall_llama.tuning import tune

__all__ = ["GgufEmbeddings", "GgufFiles", "GgufReranker", "LlamaCpp", "Load", "Overloaded", "Spent", "tune"]
