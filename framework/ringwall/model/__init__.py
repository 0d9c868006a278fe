"""The model ring: providers of replies. The bridges to and from LangChain are in `ringwall.model.langchain`."""

from __future__ import annotations

from ringwall.model.base import (
    Ability,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    Price,
    Reply,
    RequestedCall,
    Sampling,
    ToolSpec,
    Usage,
)
from ringwall.model.reply import collect
from ringwall.model.scripted import ScriptedModel, call

__all__ = [
    "Ability",
    "Delta",
    "Location",
    "ModelInfo",
    "ModelProvider",
    "ModelRequest",
    "Price",
    "Reply",
    "RequestedCall",
    "Sampling",
    "ScriptedModel",
    "ToolSpec",
    "Usage",
    "call",
    "collect",
]
