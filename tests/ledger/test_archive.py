"""An archive goes from one database to another and back, with its digests."""

from tests.memory.helpers import digest, open_tiny, text
from ttt_memory import CompressedMemory


def test_the_digest_is_the_same_in_another_database(url, tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest([text(1), text(2)])
        memory.snapshot("left")
        left = digest(memory)
        memory.restore(memory.snapshot("again"))
        memory.ingest(text(3))
        expected, archive = digest(memory), memory.export(tmp_path / "there.zip")
    with CompressedMemory.import_(archive, url, tenant="copy") as copy:
        assert digest(copy) == expected
        copy.restore("left")
        assert digest(copy) == left
        assert copy.verify(replay=True).ok
        back = copy.export(tmp_path / "back.zip")
    with CompressedMemory.import_(back, f"sqlite:///{tmp_path / 'back.db'}") as third:
        assert (third.tenant, digest(third)) == ("copy", left)
        third.ingest(text(3))
        assert digest(third) == expected
