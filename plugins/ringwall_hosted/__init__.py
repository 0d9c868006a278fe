"""Models behind any OpenAI-compatible chat-completions server: a hosted API, vLLM, llama.cpp's server."""

from ringwall_hosted.model import HostedModel, Retries, Timeouts

__all__ = ["HostedModel", "Retries", "Timeouts"]
