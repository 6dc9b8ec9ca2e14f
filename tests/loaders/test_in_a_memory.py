"""Files through the memory's own `ingest`: what a citation, a filter and a second ingest then do."""

import pytest

from tests.loaders import builders
from tests.memory.helpers import open_tiny
from ttt_memory.loaders import load, place


def test_a_citation_can_say_page_twelve(tmp_path):
    pages = [f"Chapter {n}. Berth {n} is kept free for boat number {n * 7}." for n in range(1, 15)]
    (tmp_path / "handbook.pdf").write_bytes(builders.pdf(pages))
    with open_tiny(tmp_path) as memory:
        memory.ingest(load(tmp_path / "handbook.pdf"))
        answer = memory.ask("Which berth is kept free for boat number 84?")
        cited = memory.get(answer.citations[0].document_id)
        assert place(cited.metadata, cited.text, answer.citations[0].start) == "handbook.pdf, page 12"
        assert [hit.metadata["page"] for hit in memory.search("berth", where={"page": {"$gte": 13}}, limit=5)] in (
            [13, 14],
            [14, 13],
        )


@pytest.mark.parametrize("name", ["tickets.json", "chat.json", "app.log", "tickets.csv"])
def test_the_same_file_again_adds_nothing(tmp_path, name):
    data = next(data for sample, data in builders.SAMPLES.values() if sample == name)
    (tmp_path / name).write_bytes(data)
    with open_tiny(tmp_path) as memory:
        first = memory.ingest(load(tmp_path / name))
        again = memory.ingest(load(tmp_path / name))
        assert all(receipt.created for receipt in first)
        assert not any(receipt.created for receipt in again)
        assert [receipt.document_id for receipt in again] == [receipt.document_id for receipt in first]


def test_a_log_that_grew_and_rotated_adds_only_what_is_new(tmp_path):
    log = tmp_path / "app.log"
    log.write_bytes(builders.log(300))
    with open_tiny(tmp_path) as memory:
        memory.ingest(load(log), learn=False)
        log.rename(tmp_path / "app.log.1")
        (tmp_path / "app.log.1").write_bytes(builders.log(512))
        log.write_bytes(builders.log(10, start=512))
        receipts = memory.ingest(load(log.with_name("app.log.1")), learn=False)
        assert [receipt.created for receipt in receipts] == [False, True]


def test_fields_of_tickets_can_be_filtered(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(builders.jsonl(builders.TICKETS))
    with open_tiny(tmp_path) as memory:
        memory.ingest(load(tmp_path / "t.jsonl"))
        (hit,) = memory.search("pump lamp", where={"record.status": "closed"})
        assert hit.text.startswith("id: 18")
