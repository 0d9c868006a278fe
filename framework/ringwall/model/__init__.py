"""The model ring: providers of replies. Both bridges to LangChain are in `ringwall.model.langchain`."""

from __future__ import annotations

from ringwall.model.base import (
    ANY_TOOL,
    Ability,
    Alternative,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    Price,
    Reply,
    RequestedCall,
    Sampling,
    TokenProbability,
    ToolSpec,
    Usage,
)
from ringwall.model.reply import collect
from ringwall.model.router import Router
from ringwall.model.scripted import ScriptedModel, call

__all__ = [
    "ANY_TOOL",
    "Ability",
    "Alternative",
    "Delta",
    "Location",
    "ModelInfo",
    "ModelProvider",
    "ModelRequest",
    "Price",
    "Reply",
    "RequestedCall",
    "Router",
    "Sampling",
    "ScriptedModel",
    "TokenProbability",
    "ToolSpec",
    "Usage",
    "call",
    "collect",
]
