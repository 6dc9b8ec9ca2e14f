"""Real texts for the tests on the real model."""

import json
import lzma
import pydoc
import random
import re
from pathlib import Path


def pydoc_text(*modules: str) -> str:
    """The standard library's own documentation, as `pydoc` prints it."""
    return "\n\n".join(pydoc.plain(pydoc.render_doc(name)) for name in modules)


def paragraphs(text: str) -> list[str]:
    """Blocks between lines that are blank but for pydoc's bars."""
    return [part for part in re.split(r"\n[\s|]*\n", text) if part.strip(" |\n")]


def books(data: Path, count: int) -> list[str]:
    """Whole validation books, their hard-wrapped lines joined."""
    found = []
    with lzma.open(data / "books/val-000.jsonl.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            found.append(re.sub(r"(?<!\n)\n(?!\n)", " ", json.loads(line)["text"]))
            if len(found) == count:
                return found
    return found


KINDS = ["passcode", "ticket number", "serial number", "locker code", "booking reference"]
FIRST = "Ada Bela Carl Dora Emil Fay Gus Hana Ivo June".split()
LAST = """Abbot Birch Corey Dunne Elgin Frost Gable Holt Irwin Jarvis Kemp Lunt Moss Nolan Orr Pryce Quill Rudd Stone
Tait""".split()
NAMES = [f"{first} {last}" for first in FIRST for last in LAST]


def needles(count: int, seed: int = 7) -> list[tuple[str, str, str]]:
    """(kind, name, code): facts that nothing but the text tells."""
    draw = random.Random(seed)
    names = draw.sample(NAMES, count)
    codes = ["".join(draw.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=3)) + f"-{draw.randint(1000, 9999)}" for _ in names]
    assert len(set(codes)) == count
    return [(draw.choice(KINDS), name, code) for name, code in zip(names, codes, strict=True)]


def haystack(blocks: list[str], facts: list[tuple[str, str, str]], seed: int = 8) -> str:
    """The blocks with one sentence for each fact, evenly spread."""
    draw = random.Random(seed)
    places = sorted(draw.sample(range(1, len(blocks)), len(facts)))
    out = list(blocks)
    for place, (kind, name, code) in zip(reversed(places), reversed(facts), strict=True):
        out.insert(place, f"The {kind} for {name} is {code}.")
    return "\n\n".join(out)
