"""Public API, settings, formats and documentation cannot drift apart."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import ttt_memory
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, name
from ttt_memory import CompressedMemory, errors, types
from ttt_memory.ledger import schema
from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.notepad import filters
from ttt_memory.settings import Settings

TEXTS = {name(page): page.read_text(encoding="utf-8") for page in PAGES}
GUIDES = {page: text for page, text in TEXTS.items() if page.startswith("how-to/") or page == "quickstart"}
RUN = {name(page): "\n".join(b.code for b in blocks(page) if b.language == "python") for page in PAGES}
VERBS = sorted(n for n, v in vars(CompressedMemory).items() if not n.startswith("_") and not isinstance(v, property))


def code_words(text: str) -> set[str]:
    """Names between back-ticks, and those of arguments in code."""
    quoted = " ".join(re.findall(r"`([^`\n]+)`", text))
    return set(re.findall(r"\w+", quoted)) | set(re.findall(r"\b(\w+)=", text))


def error_classes() -> Iterator[type]:
    for thing in vars(errors).values():
        if inspect.isclass(thing) and issubclass(thing, errors.TTTMemoryError):
            yield thing


def test_everything_exported_is_in_the_reference() -> None:
    shown = set(re.findall(r"^::: ttt_memory\.(\w+)$", TEXTS["api"], re.MULTILINE))
    assert shown == set(ttt_memory.__all__) - {"errors"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_used_and_explained_with_all_its_arguments(verb: str) -> None:
    pages = [page for page in GUIDES if re.search(rf"\.{verb}\(", RUN[page])]
    if verb == "open":
        pages = ["how-to/opening"]
    assert pages, f"no page runs {verb}"
    known = set().union(*(code_words(GUIDES[page]) for page in pages))
    parameters = set(inspect.signature(getattr(CompressedMemory, verb)).parameters) - {"self"}
    positional = {"source", "question", "query", "document_id", "snapshot", "label", "path", "text"}
    assert parameters - positional <= known, f"{verb}: {parameters - positional - known} in none of {pages}"


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_names_that_the_pages_use_exist(page: str) -> None:
    homes: dict[str, Any] = {
        "memory": CompressedMemory,
        "CompressedMemory": CompressedMemory,
        "answer": types.Answer,
        "receipt": types.Receipt,
        "errors": errors,
    }
    for home, attribute in re.findall(r"`(memory|CompressedMemory|answer|receipt|errors)\.([a-z]\w+)", TEXTS[page]):
        if attribute in ("db", "py"):  # files
            continue
        known = set(dir(homes[home])) | set(getattr(homes[home], "model_fields", ()))
        assert attribute in known, f"{home}.{attribute}"
    for attribute in re.findall(r"stats\(\)\.(\w+)", TEXTS[page]):
        assert attribute in types.Stats.model_fields
    known_errors = {c.__name__ for c in error_classes()} | {"ValueError", "LookupError", "ImportError"}
    named = set(re.findall(r"`(?:errors\.)?([A-Z]\w+Error)\b", TEXTS[page]))
    assert named <= known_errors, named - known_errors


@pytest.mark.parametrize(
    ("page", "value"),
    [
        ("how-to/ingesting", types.Receipt),
        ("how-to/ingesting", types.Document),
        ("how-to/asking", types.Answer),
        ("how-to/asking", types.Citation),
        ("how-to/forgetting", types.ForgetReport),
        ("how-to/costs", types.Estimate),
        ("how-to/costs", types.Stats),
        ("how-to/verifying", types.VerifyReport),
        ("how-to/verifying", types.Finding),
        ("how-to/opening", types.Progress),
    ],
    ids=lambda item: getattr(item, "__name__", item),
)
def test_every_field_of_a_result_is_explained(page: str, value: Any) -> None:
    names = set(getattr(value, "model_fields", None) or value._fields)
    pieces = code_words(TEXTS[page]) | set(re.findall(r"\w+", RUN[page]))
    assert names <= pieces, names - pieces


def test_every_error_has_a_row_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)`", TEXTS["errors"], re.MULTILINE)
    assert sorted(rows) == sorted(c.__name__ for c in error_classes())


def test_the_format_page_has_every_table_and_column() -> None:
    rows = dict(re.findall(r"^\| `(ttt_\w+)` \| [^|]* \| ([^|]*) \|$", TEXTS["format"], re.MULTILINE))
    assert set(rows) == {*schema.metadata.tables, schema.VERSION_TABLE}
    for table, columns in rows.items():
        if table in schema.metadata.tables:
            named = re.findall(r"`(\w+)`", columns)
            assert named == [column.name for column in schema.metadata.tables[table].columns], table


def test_the_settings_page_has_every_variable_and_default() -> None:
    used = set()
    for path in [*(ROOT / "ttt_memory").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        used |= set(re.findall(r"\bTTT_MEMORY_[A-Z_]+\b", path.read_text(encoding="utf-8")))
    named = set(re.findall(r"\bTTT_MEMORY_[A-Z_]+\b", TEXTS["settings"]))
    assert named == used
    assert str(Settings.checkpoint_tokens) in TEXTS["settings"]
    assert f"{Settings.max_state_bytes >> 30} GiB" in TEXTS["settings"]
    assert len(fields(Settings)) == 3


def test_every_filter_operator_is_listed() -> None:
    table = TEXTS["how-to/documents"]
    assert set(re.findall(r"`(\$\w+)`", table)) == {*filters._OPERATORS, "$and", "$or"}


def test_the_numbers_of_the_fold_are_those_of_the_code() -> None:
    defaults = {f.name: f.default for f in fields(ModelConfig)}
    page = TEXTS["concepts"]
    assert f"at most {defaults['segment_tokens']:,} predicted tokens" in page
    assert f"every {InnerConfig().mini_batch} predicted tokens" in page
    picture = (DOCS / "segment.svg").read_text(encoding="utf-8")
    for number in (defaults["segment_tokens"], defaults["context_tokens"], InnerConfig().mini_batch):
        assert f"{number:,}" in picture


def test_every_example_is_shown() -> None:
    examples = {path.name for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("demo")}
    assert set(re.findall(r'--8<-- "examples/(\w+\.py)"', TEXTS["examples"])) == examples


def test_every_page_is_in_the_navigation_once() -> None:
    """Decisions are in the list that their own page is."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"(\S+\.md)$", config[config.index("\nnav:") :], re.MULTILINE)
    listed += [f"decisions/{page}" for page in re.findall(r"\]\((\d+[^)]*\.md)\)", TEXTS["decisions/README"])]
    assert sorted(listed) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)


def test_nothing_is_fetched_from_elsewhere() -> None:
    """No font, script, picture or inventory of another host in the configuration, the pages or the pictures."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config
    assert "http" not in config
    for page, text in TEXTS.items():
        assert not re.search(r"!\[[^]]*\]\(http|<(script|link|img|iframe)\b", text), page
    for picture in DOCS.glob("*.svg"):
        assert not re.search(r"(href|src)=|@import|url\(h", picture.read_text(encoding="utf-8")), picture.name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_built_site_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """What a browser would fetch by itself: scripts, styles, pictures. (`make check` builds it strictly, too.)"""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert ended.returncode == 0, ended.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES) - 1
    for page in pages:
        html = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]*?src=[\"']?([^\"' >]+)", html)
        fetched += re.findall(r"<link[^>]*?href=[\"']?([^\"' >]+)", html)
        away = [url for url in fetched if url.startswith(("http:", "https:", "//"))]
        assert not away, (page.name, away)
        assert page.name == "404.html" or any(url.endswith("iframe-worker.js") for url in fetched), page.name
    assert (tmp_path / "site" / "search" / "search_index.js").exists(), "the search works on pages opened as files"
