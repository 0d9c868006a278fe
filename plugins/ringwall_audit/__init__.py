"""Signatures for checkpoints: Ed25519, with `cryptography`."""

from ringwall_audit.keys import PublicKey, SecretKey

__all__ = ["PublicKey", "SecretKey"]
