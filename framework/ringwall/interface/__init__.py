"""The interface ring: tools, and what runs them."""

from ringwall.interface.base import (
    CallContext,
    CallStatus,
    Change,
    Effect,
    PreparedCall,
    Tool,
    ToolCall,
    ToolOutcome,
    ToolRunner,
)
from ringwall.interface.functions import FunctionTool, tool
from ringwall.interface.runner import LocalToolRunner

__all__ = [
    "CallContext",
    "CallStatus",
    "Change",
    "Effect",
    "FunctionTool",
    "LocalToolRunner",
    "PreparedCall",
    "Tool",
    "ToolCall",
    "ToolOutcome",
    "ToolRunner",
    "tool",
]
