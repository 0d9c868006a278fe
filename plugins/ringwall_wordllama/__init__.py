"""Static word embeddings that ship in a wheel: no download, no GPU, some thousand passages a second."""

from ringwall_wordllama.embeddings import WordLlamaEmbeddings

__all__ = ["WordLlamaEmbeddings"]
