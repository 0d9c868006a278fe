"""Signs of prompt injection: an additional signal, never a permission.

Whoever writes an attack can word it otherwise; what holds against a hijacked model are labels and the policy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, Literal

from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling

_ABOUT: Final = r"(?:\w+\W+){0,4}?"
SIGNS: Final[Mapping[str, re.Pattern[str]]] = {
    kind: re.compile(pattern, re.IGNORECASE)
    for kind, pattern in {
        "override": rf"\b(?:ignore|disregard|forget|override|bypass)\W+{_ABOUT}"
        r"(?:instructions?|prompts?|rules|guidelines|directives|context|above|safety)\b",
        "new_orders": r"\b(?:new|updated|real|actual|important)\W+(?:instructions?|orders|task|directive)s?\s*[:!]"
        r"|\bbefore you (?:can )?(?:solve|answer|continue|do)\b[^.\n]{0,60}\b(?:must|please|first)\b",
        "role": r"<\|?(?:im_start|im_end|system|assistant|endoftext|information|important)\|?>|\[/?(?:INST|SYS)\]"
        r"|<<SYS>>|^\s*#{0,3}\s*(?:system|assistant|developer)\s*(?:message|prompt)?\s*:",
        "persona": rf"\b(?:you are|act as|pretend to be|behave as)\W+{_ABOUT}"
        r"(?:dan\b|unrestricted|jailbroken|no longer|without (?:any )?(?:rules|restrictions|filters))",
        "prompt_theft": rf"\b(?:reveal|print|repeat|show|output|leak)\W+{_ABOUT}"
        r"(?:system prompt|initial instructions|prompt above)",
        "secrecy": r"\bdo not (?:tell|mention|inform|alert|notify|reveal)\b[^.\n]{0,40}\b(?:user|anyone|this|human)\b",
        "carry_out": r"\b(?:send|post|forward|upload|e-?mail|transmit|exfiltrate)\b[^.\n]{0,80}"
        r"(?:https?://|\bto\s+\S+@\S+|\b(?:password|secret|token|credential|api key|conversation|iban)s?\b)",
        "image_request": r"!\[[^\]\n]*\]\([^)\n]*\?[^)\n]*(?:\{|%7b|=)",
        "unseen": r"[\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]{2,}",
    }.items()
}


class Injection(Guard):
    """Looks for signs of injection in what tools return, and in what others than the user wrote into a prompt.

    It only `tell`s the journal; with `mark` the run's label gains the source `guard:injection`, of which the policy
    says what it may cause (`ask guard:injection call tool:*`; nothing, if no rule speaks of it); with `refuse` the
    text does not pass. The text is never changed, and a text without signs is no safer than before.
    """

    name = "injection"

    def __init__(
        self,
        at: Collection[Crossing] = (Crossing.PROMPT, Crossing.RESULT),
        *,
        act: Literal["tell", "mark", "refuse"] = "mark",
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.crossings = frozenset(at)
        self._act = act
        self._signs = {**SIGNS, **{kind: re.compile(sign, re.IGNORECASE) for kind, sign in (more or {}).items()}}

    async def inspect(self, passing: Passing) -> Ruling:
        found = Counter({kind: len(sign.findall(_foreign(passing))) for kind, sign in self._signs.items()})
        found = +found
        some = bool(found)
        return Ruling(passing.text, found, refused=some and self._act == "refuse", suspect=some and self._act == "mark")


def _foreign(passing: Passing) -> str:
    """What of a text others than the user, the app and the model wrote."""
    if passing.crossing is not Crossing.PROMPT:
        return passing.text
    if passing.role in ("system", "ai") or passing.label.influence <= {passing.principal.id}:
        return ""
    question = next(iter(passing.words()), "")
    return passing.text.replace(question, " ") if question else passing.text


__all__ = ["SIGNS", "Injection"]
