"""The public surface: what is exported, typed and documented."""

import importlib.metadata
import inspect

import ttt_memory
from ttt_memory import CompressedMemory, errors

VERBS = {
    "open", "close", "ingest", "ask", "search", "score", "estimate", "documents", "get", "forget", "snapshot",
    "snapshots", "restore", "fork", "export", "import_", "rederive", "reindex", "stats", "verify", "gc", "tenant",
}  # fmt: skip


def test_exported_names_are_sorted_and_real():
    assert ttt_memory.__all__ == sorted(ttt_memory.__all__)
    for name in ttt_memory.__all__:
        assert getattr(ttt_memory, name) is not None


def test_version_is_the_distribution_s():
    assert importlib.metadata.version("ttt-memory") == ttt_memory.__version__


def test_the_verbs_are_the_designed_ones_and_documented():
    public = {name for name in vars(CompressedMemory) if not name.startswith("_")}
    assert public == VERBS
    for name in public:
        assert inspect.getdoc(inspect.getattr_static(CompressedMemory, name)), name


def test_no_verb_but_open_and_its_like_names_a_tenant():
    for name in VERBS - {"open", "import_", "fork", "tenant"}:
        assert "tenant" not in inspect.signature(getattr(CompressedMemory, name)).parameters, name


def test_every_error_says_what_why_and_what_to_do():
    classes = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, errors.TTTMemoryError)]
    assert len(classes) > 15
    for cls in classes:
        assert cls.__name__ in (errors.__doc__ or ""), f"{cls.__name__} is missing from the tree in errors.py"
        if cls is not errors.MissingExtraError:
            error = cls("It failed.", why="a reason", fix="a remedy", document_id="x")
            assert str(error) == "It failed.\nWhy: a reason\nWhat to do: a remedy"
            assert error.context == {"document_id": "x"}
    assert str(errors.MissingExtraError("psycopg", extra="postgres", needed_for="PostgreSQL")).endswith(
        "pip install 'ttt-memory[postgres]'"
    )
