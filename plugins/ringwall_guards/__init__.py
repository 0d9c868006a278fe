"""Guards: personal data, secrets, signs of injection, topics, shape and length."""

from ringwall_guards.injection import Injection
from ringwall_guards.pii import Pii, Pseudonyms
from ringwall_guards.secrets import Secrets
from ringwall_guards.shape import FitsSchema, MaxLength, Topics
from ringwall_guards.spans import Finder, Span

__all__ = ["Finder", "FitsSchema", "Injection", "MaxLength", "Pii", "Pseudonyms", "Secrets", "Span", "Topics"]
