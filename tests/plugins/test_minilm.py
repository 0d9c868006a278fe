"""all-MiniLM-L6-v2: LangChain's standard tests, ours, and agreement with the forward pass in plain numpy."""

from __future__ import annotations
