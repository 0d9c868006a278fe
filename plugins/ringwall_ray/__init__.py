"""Bulk ingestion and re-embedding on Ray."""

from ringwall_ray.workers import RayWorkers

__all__ = ["RayWorkers"]
