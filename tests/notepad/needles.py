"""Facts scattered in a long text, and the questions that only they answer."""

from __future__ import annotations

import pydoc
import random
from dataclasses import dataclass

LETTERS = "ABCDEFGHKLMNPRST"
KINDS = "passcode,serial number,licence key,locker code,ticket,access token,part number,room key".split(",")
FIRST = (
    "Amber Basil Cedar Dahlia Ember Fern Garnet Hazel Indigo Juniper Kestrel Linden Maple Nettle Opal Pepper Quill "
    "Rowan Saffron Thistle Umber Violet Willow Yarrow"
).split()
SECOND = (
    "Anchor Bridge Canyon Delta Engine Falcon Glacier Harbour Island Jetty Keep Lantern Meadow North Orchard".split()
)
PROSE = (
    "harbour morning letter window engine village captain winter garden stone river mountain evening market bridge "
    "sailor kitchen doctor story memory question answer silence journey shadow mirror carpet ladder candle pocket"
).split()


@dataclass(frozen=True)
class Needle:
    kind: str
    name: str
    code: str

    @property
    def fact(self) -> str:
        return f"The {self.kind} for {self.name} is {self.code}."

    @property
    def questions(self) -> tuple[str, str, str]:
        """By name, by code in a sentence, by the bare code."""
        return f"What is the {self.kind} for {self.name}?", f"What is {self.code}?", self.code


def needles(count: int, seed: int = 7) -> list[Needle]:
    """Facts about different things; kinds and parts of names come back all the time, pairs and codes never."""
    draw = random.Random(seed)
    names = draw.sample([f"{first} {second}" for first in FIRST for second in SECOND], count)
    codes = draw.sample(range(10_000, 100_000), count)
    shapes = ("{}-{:05d}", "{}_{:05d}", "{}{:05d}", "{}.{:05d}")
    return [
        Needle(
            draw.choice(KINDS), name, draw.choice(shapes).format("".join(draw.choices("ABCDEFGHKLMNPRST", k=2)), code)
        )
        for name, code in zip(names, codes, strict=True)
    ]


def haystack(facts: list[Needle], words: int, seed: int = 7) -> list[str]:
    """Documents of about `words` words in all, half generated prose, half Python's own documentation, facts between."""
    draw = random.Random(seed)
    modules = (
        "argparse",
        "asyncio.events",
        "collections",
        "datetime",
        "decimal",
        "email.message",
        "json",
        "logging",
        "pathlib",
    )
    manual = [line for name in modules for line in pydoc.render_doc(name, renderer=pydoc.plaintext).splitlines()]
    documents, units, size, read = [], [], 0, 0
    for number, needle in enumerate(facts):
        while size < (number + 1) * words / len(facts):
            if draw.random() < 0.5 and read < len(manual):
                unit = "\n".join(manual[read : read + 20]) + "\n"
                read += 20
            else:
                unit = " ".join(draw.choices(PROSE, k=draw.randint(6, 16))).capitalize() + ". "
            units.append(unit)
            size += len(unit.split())
        units.append(needle.fact + " ")
        if len(units) > 120:
            documents.append("".join(units))
            units = []
    documents.append("".join(units))
    return documents
