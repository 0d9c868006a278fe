"""Rate limits counted by the library `limits`: in memory, in Redis, or wherever else it counts."""

from ringwall_limits.limiter import Limits

__all__ = ["Limits"]
