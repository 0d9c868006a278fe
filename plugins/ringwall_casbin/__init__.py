"""Policies in casbin's language: RBAC with domains, from files or a database."""

from ringwall_casbin.policy import CasbinPolicy

__all__ = ["CasbinPolicy"]
