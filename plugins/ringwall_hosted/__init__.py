"""Models behind any OpenAI-compatible chat-completions server: a hosted API, vLLM, llama.cpp's server."""

from ringwall_hosted.model import HostedModel
from ringwall_hosted.server import Retries, Timeouts

__all__ = ["HostedModel", "Retries", "Timeouts"]
