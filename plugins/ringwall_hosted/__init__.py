"""Models and embedders behind any OpenAI-compatible server: a hosted API, vLLM, llama.cpp's server, Ollama."""

from ringwall_hosted.embeddings import HostedEmbeddings
from ringwall_hosted.model import HostedModel
from ringwall_hosted.server import Retries, Timeouts

__all__ = ["HostedEmbeddings", "HostedModel", "Retries", "Timeouts"]
