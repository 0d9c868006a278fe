"""Local models: any GGUF file through llama.cpp, in this process."""

from __future__ import annotations

from ringwall_llama.engine import Load, Overloaded, Spent
from ringwall_llama.files import GgufFiles
from ringwall_llama.provider import LlamaCpp
from ringwall_llama.tuning import tune

__all__ = ["GgufFiles", "LlamaCpp", "Load", "Overloaded", "Spent", "tune"]
