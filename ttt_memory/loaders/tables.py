"""CSV and TSV: one document a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.lines import text_lines
from ttt_memory.loaders.records import record_document
from ttt_memory.types import Document


def read(file: SourceFile) -> Iterator[Document]:
    """A document for each row that is not empty: `row` counted from 1 after the header, `line` of the file.

    The first row is the header where its cells are filled, differ, and none is a number; else columns are numbered.

    Raises:
        InvalidDocumentError: not UTF-8, a cell or line that is too long, a NUL.
    """
    rows = _rows(file)
    first = next(rows, None)
    if first is None:
        raise InvalidDocumentError(f"{file.path.name} is empty.", path=str(file.path))
    header = [cell.strip() for cell in first[1]]
    number = 0
    if not _is_header(header):
        header = [f"column {place}" for place in range(1, len(first[1]) + 1)]
        number, document = 1, _row(file, header, first, 1)
        if document:
            yield document
    for row in rows:
        number += 1
        if document := _row(file, header, row, number):
            yield document


def _rows(file: SourceFile) -> Iterator[tuple[int, list[str]]]:
    """Line of the file where a row ends, and its cells; blank rows left out."""
    lines = text_lines(file, newline="")
    head = next(lines, "")
    if "\0" in head:
        raise InvalidDocumentError(f"{file.path.name} is not text.", why="it holds NUL, as binary files do")

    def all_lines() -> Iterator[str]:
        yield head
        yield from lines

    delimiter = "\t" if file.suffix == ".tsv" else max(",;\t|", key=_outside_quotes(head).count)
    reader = csv.reader(all_lines(), delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InvalidDocumentError(
            f"{file.path.name} is not a table: line {reader.line_num}.", why=str(error), path=str(file.path)
        ) from error


def _row(file: SourceFile, header: list[str], row: tuple[int, list[str]], number: int) -> Document | None:
    line, cells = row
    names = header + [f"column {place}" for place in range(len(header) + 1, len(cells) + 1)]
    return record_document(file, dict(zip(names, cells, strict=False)), {"row": number, "line": line})


def _is_header(cells: list[str]) -> bool:
    return all(cells) and len(set(cells)) == len(cells) and not any(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])
