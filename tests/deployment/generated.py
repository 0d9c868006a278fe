"""Rules and questions for property tests: few names, many ways to overlap."""

from __future__ import annotations

from hypothesis import strategies as st

from ringwall.deployment.base import Verdict
from ringwall.deployment.expectations import Question
from ringwall.principal import Principal

ROLES = [f"r{n}" for n in range(4)]
TENANTS = ["acme", "globex"]
IDS = ["user:ana", "user:bo", "doc:menu.md", "web:a"]
TOOLS = ["tool:a", "tool:ab", "tool:b"]

_ENDS = st.sampled_from(["", "", *(f" in {tenant}" for tenant in TENANTS)])
_HOLDERS = st.sampled_from(
    [*(f"role:{role}" for role in ROLES), *IDS[:3], "collection:x", "public", "*", "*:*", "user:*", "doc:*", "u*", "*a"]
)
_INCLUSIONS = st.builds(
    lambda pair, end: f"role r{min(pair)} includes r{max(pair)}{end}",  # to a higher number only: no circles
    st.lists(st.integers(0, 3), min_size=2, max_size=2, unique=True),
    _ENDS,
)
_MEMBERS = st.builds(
    "member {} role:{}{}".format,
    st.sampled_from(["user:ana", "user:bo", "user:*", "*", "doc:*"]),
    st.sampled_from(ROLES),
    _ENDS,
)
_GRANTS = st.builds(
    "grant {} {}{}".format,
    st.sampled_from(["role:r0", "role:r3", "user:bo", "*:*", "doc:*"]),
    st.sampled_from(["collection:x", "collection:y"]),
    _ENDS,
) | st.builds("grant {} user:ana{}".format, st.sampled_from(["user:bo", "*:*", "doc:*"]), _ENDS)
RULES = st.builds(
    "{} {} {} {}{}{}".format,
    st.sampled_from([*Verdict, Verdict.ALLOW]),
    _HOLDERS,
    st.sampled_from(["ask", "call", "call", "c*", "*"]),
    st.sampled_from(["tool:a", "tool:a*", "tool:*", "*", "*b", "t*b", "tool:b"]),
    st.sampled_from(["", ' because "so it is"']),
    _ENDS,
)
TEXTS = st.lists(st.one_of(RULES, RULES, _MEMBERS, _INCLUSIONS, _GRANTS), max_size=12)
PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(IDS),
    st.sampled_from(["", *TENANTS]),
    st.frozensets(st.sampled_from(ROLES), max_size=2),
)
QUESTIONS = st.builds(
    Question,
    PRINCIPALS,
    st.sampled_from(["ask", "call"]),
    st.sampled_from(TOOLS),
    st.lists(st.sampled_from(IDS[2:]), max_size=2).map(tuple),
)
