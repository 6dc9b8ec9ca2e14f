"""Documents out of files: JSON Lines (plain or compressed), folders of text, Hugging Face datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ttt_memory.errors import InvalidInputError, NotFoundError
from ttt_training.data.compression import SUFFIXES, lines_of
from ttt_training.data.records import BadRecord, Report, Unusable, text_of_line, usable

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text")
JSON_LINES = tuple(f".jsonl{suffix}" for suffix in SUFFIXES)
HUB = "hf:"
_QUOTED = 120


class Source(Protocol):
    """A place that documents come from, always in the same order."""

    @property
    def identity(self) -> str:
        """Hex digest of everything that the documents depend on."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def size(self) -> int:
        """Bytes, files or records, for progress."""

    def records(self, report: Report, field: str) -> Iterator[tuple[int, str]]:
        """(units of `size` read so far, text) of every usable record; the others go to `report`."""


def open_sources(specs: Iterable[str | Path]) -> list[Source]:
    """A source for every file, folder or `hf:NAME[:SPLIT]`.

    Raises:
        NotFoundError: a path does not exist.
        InvalidInputError: a file of another kind, a folder without text, or nothing at all.
        MissingExtraError: a Hugging Face dataset, and `datasets` is not installed.
    """
    found = [_open(spec) for spec in specs]
    if not found:
        raise InvalidInputError("No training data was given.", fix="Name at least one file, folder or hf:NAME.")
    return found


def _open(spec: str | Path) -> Source:
    path = Path(spec).expanduser()
    if str(spec).startswith(HUB) or (path / "dataset_info.json").is_file():
        from ttt_training.data.huggingface import HuggingFaceDataset

        return HuggingFaceDataset(str(spec))
    if not path.exists():
        raise NotFoundError(
            f"There is no training data at {str(spec)!r}.", fix="Give a file, a folder or hf:NAME.", path=str(path)
        )
    if path.is_dir() or path.suffix.lower() in TEXT_SUFFIXES:
        return TextFiles(path)
    if path.name.lower().endswith(JSON_LINES):
        return JsonLines(path)
    raise InvalidInputError(
        f"{path.name} is not a kind of file that training reads.",
        fix=f"Give {', '.join((*JSON_LINES, *TEXT_SUFFIXES))}, a folder of text files, or hf:NAME.",
        path=str(path),
    )


class JsonLines:
    """A file with one JSON object a line, `.jsonl` and `.jsonl.xz|.gz|.zst`. `size` is in bytes of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name, self.size = path.name, path.stat().st_size

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the file's bytes."""
        return _digest_of([self._path], self._path.parent)

    def records(self, report: Report, field: str) -> Iterator[tuple[int, str]]:
        """See Source. A file that is cut or damaged gives what can be read, then one bad record."""
        number = 0
        with self._path.open("rb") as raw:
            try:
                for number, line in enumerate(lines_of(raw, self._path), 1):
                    if line.strip():
                        text = text_of_line(line, field)
                        if isinstance(text, Unusable):
                            report(BadRecord(f"{self.name}:{number}", text.why))
                        else:
                            yield raw.tell(), text
            except OSError as error:
                report(BadRecord(f"{self.name}:{number + 1}", f"the rest cannot be read: {error}"))


class TextFiles:
    """A text file, or every text file of a folder in the order of their paths: one document each. `size` is in files.

    Raises InvalidInputError for a folder without text files.
    """

    def __init__(self, path: Path) -> None:
        every = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        self._root = path.parent if path.is_file() else path
        self._files = [p for p in every if p.suffix.lower() in TEXT_SUFFIXES]
        if not self._files:
            raise InvalidInputError(
                f"The folder {path.name!r} holds no text files.",
                fix=f"Text files end with {', '.join(TEXT_SUFFIXES)}.",
                path=str(path),
            )
        self.name, self.size = path.name, len(self._files)

    @cached_property
    def identity(self) -> str:
        """SHA-256 over the files' paths and bytes."""
        return _digest_of(self._files, self._root)

    def records(self, report: Report, field: str) -> Iterator[tuple[int, str]]:
        """See Source; `field` has no meaning here."""
        for done, path in enumerate(self._files, 1):
            try:
                text = usable(path.read_text(encoding="utf-8"), "the text")
            except (UnicodeDecodeError, OSError) as error:
                text = Unusable(str(error)[:_QUOTED])
            if isinstance(text, Unusable):
                report(BadRecord(path.relative_to(self._root).as_posix(), text.why))
            else:
                yield done, text


def _digest_of(files: list[Path], root: Path) -> str:
    sha = hashlib.sha256()
    for path in files:
        sha.update(path.relative_to(root).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()
