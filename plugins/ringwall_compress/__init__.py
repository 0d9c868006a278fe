"""Smaller vectors: fewer dimensions, or fewer bits for each, of any embedder."""

from ringwall_compress.matryoshka import Matryoshka
from ringwall_compress.pca import Pca
from ringwall_compress.quantised import Quantised

__all__ = ["Matryoshka", "Pca", "Quantised"]
