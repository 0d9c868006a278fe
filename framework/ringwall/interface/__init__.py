"""The interface ring: tools, and what runs them."""

from ringwall.interface.base import (
    CallContext,
    CallStatus,
    Effect,
    PreparedCall,
    Tool,
    ToolCall,
    ToolOutcome,
    ToolRunner,
)
from ringwall.interface.runner import LocalToolRunner

__all__ = [
    "CallContext",
    "CallStatus",
    "Effect",
    "LocalToolRunner",
    "PreparedCall",
    "Tool",
    "ToolCall",
    "ToolOutcome",
    "ToolRunner",
]
