"""The personalization ring: profiles and memories, each for its owner alone."""

from ringwall.personalization.base import Memory, MemoryStore, Profile, ProfileStore
from ringwall.personalization.memory import InMemoryMemories, InMemoryProfiles

__all__ = ["InMemoryMemories", "InMemoryProfiles", "Memory", "MemoryStore", "Profile", "ProfileStore"]
