"""Terms of the lexical index: words, and code-shaped tokens both whole and in parts.

`TERMS_VERSION` names these rules: stored postings were made by them, and a query is cut by the same ones. Terms are
NFKC, casefolded and without accents; scripts written without spaces give pairs of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache

TERMS_VERSION = 1
MAX_QUERY_TOKENS = 128
"""Further distinct tokens of a query are left out."""
MAX_TOKEN = 1_024
"""A run of letters beyond this is cut before it is looked at: no real word or key is longer."""

_STOP = """
a about again all also am an and any are aren't as at be been being but by can can't could couldn't did didn't do does
doesn't doing don't done for from get give got had hadn't has hasn't have having he her here hers him his how i if in
into is isn't it its it's just know let me mine my no nor not of off on once one only or other our ours out over own
please said same say she should so some such tell than that that's the their theirs them then there these they this
those to too up us very was wasn't we were weren't what what's when when's where where's which while who who's whom
whose why will with won't would you your yours
"""
STOP_WORDS = frozenset(_STOP.split())
"""Dropped from queries only, question words among them; documents keep every word."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_LEVELS = (re.compile(r"[/:@+&]"), re.compile(r"\."), re.compile(r"[-_]"))
_CODE = re.compile(r"\d|_|[a-z][A-Z]|[@/\\]")


@cache
def _tokens() -> re.Pattern[str]:
    """Word characters of every script (`\\w` leaves out combining vowel signs), joined by code's connectors."""
    marks = "".join(re.escape(chr(c)) for c in range(0x300, 0xFFFF) if unicodedata.category(chr(c)) in ("Mn", "Mc"))
    word = rf"[\w{marks}]"
    return re.compile(rf"{word}{{1,{MAX_TOKEN}}}(?:[-./:@+&'’]{word}{{1,{MAX_TOKEN}}})*")


def tokens(text: str) -> Iterator[str]:
    """Yield the whole tokens of a text as they are written (normalised to NFKC, case kept, possessive 's dropped)."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _ACCENTS.sub("", unicodedata.normalize("NFKD", text)))
    for match in _tokens().finditer(_THOUSANDS.sub("", text)):
        token = match.group().replace("’", "'")
        yield token[:-2] if token[-2:] in ("'s", "'S") else token


def terms(text: str) -> Iterator[str]:
    """Yield the terms of a text: each token whole, and in parts where it has any."""
    for token in tokens(text):
        yield from expand(token)


def count_terms(text: str) -> dict[str, int]:
    """Return how often each term occurs in a passage."""
    return dict(Counter(terms(text)))


def expand(token: str) -> tuple[str, ...]:
    """Return the distinct terms of one token, the whole one first.

    >>> expand("sk-live_AbC-42")
    ('sk-live_abc-42', 'sk', 'live', 'abc', '42')
    """
    if token.isascii() and token.isalpha() and (token[1:].islower() or len(token) == 1):
        return (term(token),)
    found = dict.fromkeys([term(token)])
    pieces = [token]
    if "'" in token:
        pieces = [piece for piece in token.split("'") if len(piece) > 1]
        found.update(dict.fromkeys(map(term, pieces)))
    for level in _LEVELS:
        pieces = [part for piece in pieces for part in level.split(piece) if part]
        found.update(dict.fromkeys(map(term, pieces)))
    for piece in pieces:
        if not piece.isascii():
            for run in _SPACELESS.findall(piece):
                found.update(dict.fromkeys(run[i : i + 2] for i in range(max(1, len(run) - 1))))
        elif not (piece.islower() or piece.isupper()):
            found.update(dict.fromkeys(map(term, _CAMEL.split(piece))))
    return tuple(found)


def term(word: str) -> str:
    """Return the index form of one word."""
    return _stem(word.casefold())


def _stem(word: str) -> str:
    """Take plural and verb endings off plain English-looking words; lighter than Porter, and as good by measurement."""
    if len(word) < 4 or not word.isalpha() or not word.isascii():
        return word
    if word[-1] == "s" and word[-2] not in "us":
        if word.endswith("ies") and word[-4] not in "ae":
            word = word[:-3] + "y"
        elif not (word.endswith("es") and word[-3] in "aeo"):
            word = word[:-1]
    if len(word) > 5:
        word = word[:-3] if word.endswith("ing") else word[:-2] if word.endswith("ed") else word
        if len(word) > 4 and word[-1] == "e":
            word = word[:-1]
    return word


def query_terms(query: str) -> tuple[dict[str, float], list[str]]:
    """Cut a query by the index's own rules.

    Returns:
        The weight of each term, stop words left out unless there is nothing else; and the whole terms of its
        code-shaped tokens.
    """
    found = list(dict.fromkeys(tokens(query)))[:MAX_QUERY_TOKENS]
    content = [token for token in found if token.casefold() not in STOP_WORDS] or found
    return {t: 1.0 for token in content for t in expand(token)}, [term(token) for token in content if is_code(token)]


def is_code(token: str) -> bool:
    """Whether a token is an identifier rather than a word: digits, underscores, camelCase, addresses, or many parts."""
    if token.isdigit():
        return len(token) >= 4
    return bool(_CODE.search(token)) or sum(token.count(c) for c in "-.:") >= 2
