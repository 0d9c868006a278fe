"""Signatures for checkpoints (Ed25519), and seals that let a journal forget (AES-256-GCM), with `cryptography`."""

from ringwall_audit.keys import PublicKey, SecretKey
from ringwall_audit.keystore import InMemoryKeys, Keys, SqliteKeys, SubjectKey
from ringwall_audit.sealing import AesSealer

__all__ = ["AesSealer", "InMemoryKeys", "Keys", "PublicKey", "SecretKey", "SqliteKeys", "SubjectKey"]
