"""What does not cost more the more was read: `ask(mode="weights")`, and the statements of a listing."""

import torch
from sqlalchemy import Engine, event
from torch.utils.flop_counter import FlopCounterMode

from tests.memory.helpers import open_tiny, text
from ttt_memory import Sampling
from ttt_memory.answerers import generate
from ttt_memory.model.tiny import tiny


def cost(memory):
    """(floating-point operations, state bytes, pieces written) of one closed-book answer."""
    handle = memory._handle
    sampling = Sampling(max_tokens=16, temperature=0.0)
    with FlopCounterMode(display=False) as counter:
        pieces = list(generate.answer(handle.model, handle.published.weights, "What was said?", [], sampling))
    return counter.get_total_flops(), handle.published.weights.nbytes, len(pieces) > 0


def test_flops_and_state_are_equal_after_1k_and_64k_tokens(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1, 160)[:1000])
        early = cost(memory)
        memory.ingest(text(2, 10_000)[:63_000])
        assert memory.stats().learned_tokens >= 64_000
        late = cost(memory)
    assert early[0] > 0
    assert early == late


def test_the_key_cache_stops_growing_at_the_window():
    model = tiny()
    sizes = []
    cache = model.net.empty_cache()
    ids = torch.from_numpy(model.tokenizer.encode("a river runs " * 400).astype("int64"))
    with torch.no_grad():
        for block in ids.split(500):
            _, cache = model.net.read(block[None], None, cache)
            layers = (*cache.prefix.layers, *cache.suffix.layers)
            sizes.append([(layer.recent.k.shape, layer.sinks.k.shape) for layer in layers])
    assert len(sizes) > 8
    assert all(size == sizes[0] for size in sizes)
    assert sizes[0][0][0][2] == model.config.window


def statements(memory) -> int:
    """SQL statements of one listing, on a handle that has not loaded its model."""
    seen = []

    def count(*_):
        seen.append(1)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        memory.documents()
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    return len(seen)


def test_a_listing_of_many_documents_takes_no_more_statements(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(0))
    with open_tiny(tmp_path, replay=False) as memory:
        few = statements(memory)
    with open_tiny(tmp_path) as memory:
        memory.ingest([text(n) for n in range(1, 8)])
    with open_tiny(tmp_path, replay=False) as memory:
        assert 0 < statements(memory) == few
