"""Models and embedders behind a server: OpenAI-compatible, Anthropic's Messages, OpenAI's Responses."""

from ringwall_hosted.chat import OPENAI, ChatCompletions
from ringwall_hosted.embeddings import HostedEmbeddings
from ringwall_hosted.messages import Messages
from ringwall_hosted.model import HostedAnthropic, HostedModel, HostedResponses
from ringwall_hosted.responses import Responses
from ringwall_hosted.server import Retries, Timeouts

__all__ = [
    "OPENAI",
    "ChatCompletions",
    "HostedAnthropic",
    "HostedEmbeddings",
    "HostedModel",
    "HostedResponses",
    "Messages",
    "Responses",
    "Retries",
    "Timeouts",
]
