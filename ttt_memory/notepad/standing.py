"""What a user told an assistant once and meant for good: standing instructions and preferences.

"Always show the type hints when I ask about Python" is what an assistant must know when it is asked how to read a file
in Python, though the question shares hardly a word with it. English only: in other languages nothing is recognised.
"""

from __future__ import annotations

import re

from ttt_memory.notepad.terms import term

_STANDING = re.compile(
    r"(?:^|[.!?]\s+)(?:please\s+)?(?:always|never|whenever|from now on)\b"
    r"|\bwhen(?:ever)? I ask\b|\bI (?:\w+ )?prefer\b|\bI(?:'d|’d| would) (?:rather|prefer)\b|\bmy preferences?\b",
    re.IGNORECASE | re.MULTILINE,  # a line is as good a beginning as a sentence
)
MARKERS = tuple(map(term, "always never whenever now ask prefer rather preference".split()))
"""Index terms of which whatever is standing holds one: who looks for it need not read any other text."""


def is_standing(text: str) -> bool:
    """Whether a text of a user holds an instruction or a preference that is meant to last.

    >>> is_standing("Thanks. Always give me metric units.")
    True
    >>> is_standing("I always forget the metric units.")
    False
    """
    return _STANDING.search(text) is not None
