"""Text to shards: the normaliser, the readers, what is resumed and what is refused."""

from __future__ import annotations

import gzip
import json
import lzma
import textwrap

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from ttt_training.data.draws import Draws
from ttt_training.data.normalise import normalise
from ttt_training.data.records import BadRecords
from ttt_training.data.shards import open_shards
from ttt_training.data.sources import open_sources
from ttt_training.data.tokenise import prepare

from ttt_memory.errors import (
    CorruptionError,
    InvalidDocumentError,
    InvalidInputError,
    MissingExtraError,
    ModelMismatchError,
    NotFoundError,
)
from ttt_memory.model.tiny import tiny

words = st.text(st.characters(categories=("L",)), min_size=2, max_size=12)
OPENERS = {"xz": lzma.open, "gz": gzip.open, "zst": zstandard.open}


def tokenizer():
    return tiny().tokenizer


def lines(*records):
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records).encode()


# ------------------------------------------------------------------ the normaliser


@settings(deadline=None, max_examples=30)
@given(st.lists(words, min_size=40, max_size=120), st.integers(60, 90))
def test_wrapped_prose_becomes_one_line_a_paragraph(every, width):
    paragraphs = [" ".join(every), " ".join(reversed(every))]
    wrapped = ["\n".join(textwrap.wrap(p, width, break_on_hyphens=False)) for p in paragraphs]
    if any(len(line) < width - 11 for text in wrapped for line in text.split("\n")[:-1]):
        return  # a word of more than the slack went to the next line, as no typist would do
    assert normalise("\r\n\r\n\r\n".join(w.replace("\n", "\r\n") for w in wrapped)) == "\n\n".join(paragraphs)


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="-—\ufeff", codec="utf-8"), max_size=600))
def test_words_stay_as_they_are(text):
    assert normalise(text).split() == text.split()


VERSE = (
    "Tiger, tiger, burning bright\nIn the forests of the night,\nWhat immortal hand or eye\nCould frame thy symmetry?"
)
CODE = "def area(width, height):\n    # the product of both, in square metres\n    return width * height"


def test_verse_code_and_lists_inside_wrapped_prose_stay():
    prose = "\n".join(textwrap.wrap("A sentence of several words, which goes on and on until it is wrapped. " * 20, 70))
    items = "- the first item of a list that is rather long, so that it is full\n- the second item of it"
    text = "\n\n".join((prose, VERSE, prose, CODE, items))
    result = normalise(text)
    assert VERSE in result
    assert CODE in result
    assert items in result
    assert prose.replace("\n", " ") in result


def test_a_line_broken_at_a_hyphen_is_joined_without_a_space():
    text = "A line that runs to the full measure of its page and ends in a well-\nknown word that was broken"
    assert "well-known word" in normalise("\n\n".join([text] * 6))


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize("kind", ["", "xz", "gz", "zst"])
def test_every_compression_gives_the_same_documents(tmp_path, kind):
    content = lines({"text": "one"}, {"text": "zwei – 二"}, {"text": "three"})
    path = tmp_path / ("data.jsonl" + (f".{kind}" if kind else ""))
    with OPENERS.get(kind, open)(path, "wb") as file:
        file.write(content)
    (source,) = open_sources([path])
    read = list(source.records(BadRecords(0), "text"))
    assert [text for _, text in read] == ["one", "zwei – 二", "three"]
    assert all(0 < done <= source.size for done, _ in read)


def test_bad_records_are_named_by_file_and_line_and_limited(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(
        lines({"text": "good"}, "{not json", {"body": "x"}, {"text": 7}, {"text": "  "}, "[1]")
        + b'{"text": "\xff"}\n'
        + lines({"text": "also good"})
    )
    (source,) = open_sources([path])
    bad = BadRecords(6)
    assert [text for _, text in source.records(bad, "text")] == ["good", "also good"]
    assert [record.where for record in bad.seen] == [f"data.jsonl:{n}" for n in (2, 3, 4, 5, 6, 7)]
    with pytest.raises(InvalidDocumentError, match=r"data\.jsonl:7") as error:
        list(source.records(BadRecords(5), "text"))
    assert error.value.context["limit"] == 5


@pytest.mark.parametrize("kind", ["xz", "gz", "zst"])
def test_a_file_that_was_cut_gives_what_can_be_read_and_one_bad_record(tmp_path, kind):
    whole, cut = tmp_path / f"whole.jsonl.{kind}", tmp_path / f"cut.jsonl.{kind}"
    rng = np.random.default_rng(0)
    with OPENERS[kind](whole, "wb") as file:
        file.write(lines(*({"text": rng.bytes(3000).hex()} for _ in range(100))))
    cut.write_bytes(whole.read_bytes()[:-9000])
    (source,) = open_sources([cut])
    bad = BadRecords(1)
    texts = [text for _, text in source.records(bad, "text")]
    assert len(texts) < 100
    assert len(bad.seen) == 1
    assert bad.seen[0].where.startswith("cut.jsonl.")


def test_a_folder_gives_its_text_files_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "ignored.png").write_bytes(b"\x89PNG")
    (tmp_path / "z.txt").write_bytes(b"\xff\xfe\xff")
    (source,) = open_sources([tmp_path])
    bad = BadRecords(1)
    assert [text for _, text in source.records(bad, "text")] == ["first", "second"]
    assert [record.where for record in bad.seen] == ["z.txt"]


def test_sources_that_cannot_be_used(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError):
        open_sources([tmp_path / "absent.jsonl"])
    for spec in (tmp_path / "image.png", tmp_path / "empty"):
        with pytest.raises(InvalidInputError):
            open_sources([spec])
    with pytest.raises(InvalidInputError):
        open_sources([])


def test_hugging_face_datasets(tmp_path):
    try:
        import datasets
    except ImportError:
        with pytest.raises(MissingExtraError, match="datasets"):
            open_sources(["hf:some/dataset"])
        return
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines({"text": "one"}, {"text": None}, {"text": "two"}))
    made = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    made.save_to_disk(str(tmp_path / "set"))
    (source,) = open_sources([tmp_path / "set"])
    bad = BadRecords(1)
    assert [text for _, text in source.records(bad, "text")] == ["one", "two"]
    assert [record.where for record in bad.seen] == ["set:2"]


# ------------------------------------------------------------------ shards


def documents(count, seed=0):
    draws = Draws(seed)
    return ["".join(chr(97 + draws.below(26)) for _ in range(1 + draws.below(400))) for _ in range(count)]


def jsonl(path, texts):
    path.write_bytes(lines(*({"text": text} for text in texts)))
    return path


def test_shards_hold_every_document_and_no_more(tmp_path):
    texts = documents(60)
    shards = prepare([jsonl(tmp_path / "d.jsonl", texts)], tokenizer(), tmp_path, shard_tokens=1500)
    assert len(list(shards.folder.glob("*.bin"))) > 3
    assert [tokenizer().decode(shards.document(i)) for i in range(len(shards))] == texts
    assert shards.tokens == sum(map(len, texts))
    assert list(shards.line_ends) == [10]
    with pytest.raises((ValueError, RuntimeError)):
        shards.document(0)[0] = 1
    with pytest.raises(NotFoundError):
        shards.document(60)


def test_what_was_tokenised_is_found_again_and_other_content_is_not(tmp_path):
    path = jsonl(tmp_path / "d.jsonl", documents(20))
    calls = []
    first = prepare([path], tokenizer(), tmp_path, progress=lambda *a: calls.append(a))
    assert len(calls) == 20
    again = prepare([path], tokenizer(), tmp_path, progress=lambda *a: calls.append(a))
    assert len(calls) == 20
    assert again.key == first.key
    assert prepare([jsonl(path, documents(20, seed=1))], tokenizer(), tmp_path).key != first.key


@pytest.mark.parametrize("stop_at", [1, 9, 23, 40])
def test_an_interrupted_call_goes_on_and_ends_with_the_same_bytes(tmp_path, stop_at):
    texts = [*documents(20), "   ", *documents(20, seed=1)]
    data = [jsonl(tmp_path / "a.jsonl", texts), jsonl(tmp_path / "b.jsonl", documents(10, seed=2))]
    whole = prepare(data, tokenizer(), tmp_path / "whole", shard_tokens=2000)
    calls = []

    def stop(*place):
        calls.append(place)
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(data, tokenizer(), tmp_path / "cut", shard_tokens=2000, progress=stop)
    rest = []
    mended = prepare(data, tokenizer(), tmp_path / "cut", shard_tokens=2000, progress=lambda *a: rest.append(a))
    assert len(rest) <= 50
    assert stop_at < 12 or len(rest) < 50  # finished shards were not made again
    names = sorted(p.name for p in whole.folder.iterdir())
    assert sorted(p.name for p in mended.folder.iterdir()) == names
    assert all((whole.folder / n).read_bytes() == (mended.folder / n).read_bytes() for n in names)


def test_damaged_or_foreign_shards_are_refused(tmp_path, monkeypatch):
    shards = prepare([jsonl(tmp_path / "d.jsonl", documents(5))], tokenizer(), tmp_path)
    monkeypatch.setattr(type(tokenizer()), "fingerprint", "another")
    with pytest.raises(ModelMismatchError):
        shards.require(tokenizer())
    with (shards.folder / "00000.bin").open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(CorruptionError):
        open_shards(shards.folder)
    with pytest.raises(NotFoundError):
        open_shards(tmp_path / "nowhere")


def test_data_without_a_document_is_refused(tmp_path):
    with pytest.raises(InvalidInputError):
        prepare([jsonl(tmp_path / "d.jsonl", ["  "])], tokenizer(), tmp_path)
