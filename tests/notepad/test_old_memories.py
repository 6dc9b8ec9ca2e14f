"""A memory of the first release, whose passages have no token vectors and no headings, goes on working."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from tests.notepad.helpers import Pad, finish
from ttt_memory.ledger import Ledger
from ttt_memory.ledger.schema import VERSION_TABLE
from ttt_memory.ledger.schema import passages as passage_table
from ttt_memory.notepad import late
from ttt_memory.notepad.embedders import Embedder, load_embedder

TEXTS = ["The kettle in the harbour office is blue.", "My sister adopted two kittens.", "The boat leaves at nine."]


def strip(pad: Pad) -> None:
    """Make the passages what the first release wrote."""
    with pad.ledger._write() as (connection, _):
        connection.execute(update(passage_table).values(token_vectors=None))


def test_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with Ledger.open(url) as ledger:
        Pad(ledger.tenant("a"), load_embedder("hash")).put(TEXTS[0])
        with ledger.store.write() as connection:
            connection.exec_driver_sql("ALTER TABLE ttt_passages DROP COLUMN token_vectors")
            connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    with Ledger.open(url) as ledger:
        pad = Pad(ledger.tenant("a"), load_embedder("hash"))
        assert pad.search("blue kettle")[0].text == TEXTS[0]
        pad.put(TEXTS[1])
        assert pad.verify() == pad.ledger.verify() == []


@pytest.mark.parametrize("old", [1, 3], ids=["mixed", "all old"])
def test_old_passages_are_found_among_new_ones(ledger: Ledger, minilm: Embedder, old: int) -> None:
    pad = Pad(ledger.tenant("a"), minilm)
    for text in TEXTS[:old]:
        pad.write(text, metadata={"speaker": "Ada"})
    strip(pad)
    for text in TEXTS[old:]:
        pad.write(text, metadata={"speaker": "Ada"})
    pad.refresh()
    for question, text in zip(
        ["What colour is the kettle?", "Which pets?", "When does the boat go?"], TEXTS, strict=True
    ):
        assert pad.search(question)[0].text == text
    assert pad.verify() == []


def test_preparing_them_anew_gives_them_token_vectors(ledger: Ledger, minilm: Embedder) -> None:
    pad = Pad(ledger.tenant("a"), minilm)
    document = pad.put(TEXTS[0])
    strip(pad)
    pad.ledger.replace_passages(document, finish(pad.prepare(TEXTS[0])))
    pad.refresh()
    (data,) = pad.ledger.token_vectors(pad.ledger.passages_of([document])).values()
    assert data[0] == late.VERSION
    assert pad.search("blue kettle")[0].text == TEXTS[0]
    assert pad.verify() == []
