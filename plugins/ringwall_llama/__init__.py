"""Local models: any GGUF file through llama.cpp, in this process."""

from __future__ import annotations

from ringwall_llama.engine import Load, Overloaded, Spent
from ringwall_llama.provider import LlamaCpp

__all__ = ["LlamaCpp", "Load", "Overloaded", "Spent"]
