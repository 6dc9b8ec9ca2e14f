"""Each verb as a user would type it, with good and with bad input."""

import pytest

from ttt_memory import CompressedMemory


@pytest.fixture
def filled(run, notes):
    """Ids of three ingested documents by file name."""
    done = run("ingest", notes, "--metadata", "kind=note", "--metadata", "priority=3", "--json").json
    assert [result["source"] for result in done["results"]] == ["orchard.md", "harbour.md", "lantern.txt"]
    return {result["source"]: result["receipt"]["document_id"] for result in done["results"]}


def test_ingest_takes_files_folders_patterns_and_standard_input(run, notes):
    ended = run("ingest", notes / "harbour.md", notes / "*.txt", notes / "**" / "*.md")
    assert ended.code == 0
    assert [line.split()[1] for line in ended.out.splitlines()] == ["harbour.md", "lantern.txt", "orchard.md"]
    assert "3 documents" in ended.err
    ended = run("ingest", "-", "--no-learn", stdin="Typed by hand.")
    assert "stored, not learned" in ended.out
    ended = run("ingest", notes, "-", stdin="Typed by hand.")
    assert ended.out.count("there already") == 4
    assert "0 documents" in ended.err
    assert [d["tokens"] > 0 for d in run("documents", "--json").json] == [True] * 4


def test_ingest_keeps_metadata_streams_and_times(run):
    for said in ("ok", "ok"):
        options = (
            "--stream",
            "house",
            "--metadata",
            "priority=3",
            "--metadata",
            "by=Ada",
            "--observed-at",
            "2026-01-31",
        )
        assert run("ingest", "-", *options, stdin=said).code == 0
    first, second = run("documents", "--json").json
    assert (first["stream"], first["sequence"], second["sequence"]) == ("house", 0, 1)
    assert first["metadata"] == {"priority": 3, "by": "Ada"}
    assert first["observed_at"] == "2026-01-31T00:00:00Z"


def test_ingest_reports_what_it_cannot_read_and_goes_on(run, notes, tmp_path):
    (notes / "bad.txt").write_bytes(b"caf\xe9 " * 10)
    (notes / "empty.md").write_text(" ")
    ended = run("ingest", notes / "bad.txt", tmp_path / "absent.txt", "*.nothing", notes / "harbour.md")
    assert ended.code == 1
    assert len(ended.out.splitlines()) == 1
    assert "3 failed" in ended.err
    for part in ("bad.txt", "absent.txt", "*.nothing"):
        assert part in ended.words
    ended = run("ingest", notes / "empty.md", "--json")
    assert ended.code == 1
    assert ended.json["results"][0]["error"]["type"] == "InvalidDocumentError"
    assert run("ingest", "-", stdin=b"\xff\xfe").code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("ingest",),
        ("ingest", "x", "--metadata", "no equals sign"),
        ("ingest", "x", "y", "--follow"),
        ("ask",),
        ("ask", "what?", "--limit", "many"),
        ("search", "x", "--where", "{not json"),
        ("forget",),
        ("forget", "id", "--where", "a=b"),
        ("chat", "--json"),
        ("nonsense",),
        ("search", "x", "--nonsense"),
    ],
    ids=" ".join,
)
def test_misspelt_commands_end_with_2_and_do_nothing(run, arguments, tmp_path):
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage:" in ended.err
    assert not (tmp_path / "memory.db").exists()


def test_ask_quotes_and_says_where(run, filled):
    ended = run("ask", "What is the door code?")
    assert ended.code == 0
    answer, quote = ended.out.splitlines()[:2]
    assert "kestrel-4471" in answer
    assert quote.startswith("[1] harbour.md, line 2 (")
    answer = run("ask", "What is the door code?", "--json", "--limit", "1").json
    assert [c["document_id"] for c in answer["citations"]] == [filled["harbour.md"]]
    written = run("ask", "The harbour?", "--mode", "weights")
    assert written.code == 0
    assert "nothing is quoted" in written.err
    assert run("ask", "The harbour?", "--answerer", "generate").code == 0


@pytest.mark.parametrize("options", [("--mode", "nope"), ("--answerer", "nope"), ("--limit", "0")])
def test_ask_refuses_unknown_ways(run, filled, options):
    ended = run("ask", "The harbour?", *options)
    assert (ended.code, ended.out.strip()) == (1, "")
    assert "Error:" in ended.err
    assert run("ask", " ").code == 1


def test_search_finds_filters_and_says_when_there_is_nothing(run, filled):
    ended = run("search", "kestrel-4471", "--where", "kind=note", "--where", '{"priority": {"$gte": 3}}')
    assert "harbour.md" in ended.out.splitlines()[0]
    assert filled["harbour.md"] in ended.out
    ended = run("search", "kestrel-4471", "--where", "kind=letter")
    assert (ended.code, ended.out, ended.words) == (0, "", "Nothing found.")
    assert run("search", "kestrel-4471", "--as-of", "2020-01-01", "--json").json == []
    ended = run("search", "x", "--where", '{"a": {"$bad": 1}}', "--json")
    assert ended.code == 1
    assert ended.json["error"]["type"] == "InvalidFilterError"


def test_documents_and_get(run, filled, notes):
    assert [line.split()[1] for line in run("documents").out.splitlines()[1:]] == list(filled.values())
    assert [d["id"] for d in run("documents", "--after", "1", "--limit", "1", "--json").json] == [filled["harbour.md"]]
    assert run("get", filled["harbour.md"]).out == (notes / "harbour.md").read_text()
    assert run("get", filled["harbour.md"], "--json").json["text"] == (notes / "harbour.md").read_text()
    ended = run("get", "nope")
    assert (ended.code, ended.out) == (1, "")


def test_forget_asks_and_erases(run, filled):
    ended = run("forget", filled["harbour.md"])
    assert ended.code == 2
    assert "--yes" in ended.words
    for reply in ("n\n", "\n", "", "maybe\n"):
        ended = run("forget", filled["harbour.md"], stdin=reply, typed=True)
        assert ended.code == 1
        assert "Nothing was forgotten" in ended.err
    ended = run("forget", filled["harbour.md"], "--yes")
    assert ended.code == 0
    assert "Forgot 1 document" in ended.err
    assert "kestrel" not in run("search", "kestrel-4471", "--json").out
    assert run("forget", filled["harbour.md"], "--yes").code == 1
    report = run("forget", "--where", "kind=note", "--yes", "--json").json
    assert len(report["documents"]) == 2
    assert run("documents", "--json").json == []


def test_snapshots_restore_log_and_fork(run, filled, notes):
    assert "full" in run("snapshot", "full").out
    assert run("snapshot", "full").code == 1
    (notes / "later.md").write_text("Thunder came later.")
    assert run("ingest", notes / "later.md").code == 0
    assert [line.split()[-1] for line in run("log").out.splitlines()][3] == "documents)"
    assert [entry["kind"] for entry in run("log", "--json").json] == ["document"] * 3 + ["snapshot", "document"]
    assert len(run("log", "--limit", "2").out.splitlines()) == 2
    assert run("snapshots").out.splitlines()[1].split()[1] == "full"
    assert run("snapshots", "--json").json[0]["documents"] == 3
    ended = run("restore", "full")
    assert "3 documents" in ended.err
    assert len(run("documents", "--json").json) == 3
    assert run("restore", "nope").code == 1
    ended = run("fork", "copy", "--at", "full")
    assert "'copy' with 3 documents" in ended.err
    assert len(run("documents", "--tenant", "copy", "--json").json) == 3
    assert run("fork", "copy").code == 1


def test_stats_and_verify(run, filled, tmp_path):
    stats = run("stats", "--json").json
    assert stats["documents"] == 3
    assert stats["digest"] in run("stats").out
    ended = run("verify", "--replay")
    assert ended.code == 0
    assert stats["digest"] in ended.out
    import sqlite3

    with sqlite3.connect(tmp_path / "memory.db") as store:
        store.execute("UPDATE ttt_passages SET start_char=start_char+1 WHERE ordinal=0")
    ended = run("verify", "--json")
    assert ended.code == 1
    assert ended.json["findings"]
    assert run("verify").out.splitlines()[-1][0].isdigit()


def test_export_and_import_keep_the_digest(run, filled, tmp_path):
    digest = run("stats", "--json").json["digest"]
    archive = tmp_path / "memory.ttt"
    assert str(archive) in run("export", archive).err
    assert run("export", archive).code == 1
    other = ("--db", tmp_path / "elsewhere.db")
    assert run("import", archive, *other, "--json").json["digest"] == digest
    assert run("import", archive, *other).code == 1
    assert "'third'" in run("import", archive, *other, "--tenant", "third").err
    archive.write_bytes(b"not an archive")
    ended = run("import", archive, "--db", tmp_path / "new.db", "--json")
    assert ended.code == 1
    assert ended.json["error"]["type"] == "CorruptionError"


def test_reading_creates_neither_store_nor_tenant(run, notes, tmp_path):
    for verb in (("search", "x"), ("ask", "x"), ("documents",), ("stats",), ("forget", "x"), ("snapshot",)):
        ended = run(*verb)
        assert ended.code == 1
        assert "ttt-memory ingest" in ended.words
    assert not (tmp_path / "memory.db").exists()
    run("ingest", notes)
    ended = run("search", "x", "--tenant", "typo")
    assert ended.code == 1
    assert "there are: default" in ended.words


def test_places_are_named_before_after_or_by_the_environment(run, notes, tmp_path, monkeypatch):
    monkeypatch.setenv("TTT_MEMORY_TENANT", "from-env")
    assert run("ingest", notes / "harbour.md").code == 0
    assert run("--tenant", "before", "ingest", notes / "harbour.md").code == 0
    assert run("--tenant", "before", "ingest", notes / "harbour.md", "--tenant", "after").code == 0
    assert run("--json", "stats", "--tenant", "after").json["tenant"] == "after"
    assert run("stats", "--json").json["tenant"] == "from-env"
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with CompressedMemory.open(url, tenant="before", replay=False) as memory:
        assert len(memory.documents()) == 1
    assert run("stats", "--db", url, "--tenant", "before", "--json").json["documents"] == 1
    monkeypatch.delenv("TTT_MEMORY_DB")
    assert run("ingest", notes / "harbour.md").code == 0
    assert (tmp_path / "data" / "memory.db").exists()
    assert run("stats", "--db", "mongodb://nowhere/x").code == 1


def test_doctor_says_what_is_missing_and_how_to_mend_it(run, own_cache, tmp_path):
    ended = run("doctor")
    assert ended.code == 1
    assert "-> ttt-memory model pull smollm2-135m" in ended.out
    assert "will be made by the first ingest" in ended.out
    checks = {check["name"]: check for check in run("doctor", "--json").json["checks"]}
    assert checks["torch"]["state"] == "ok"
    assert checks["minilm"]["fix"] == "ttt-memory model pull minilm"
    ended = run("doctor", "--db", tmp_path / "no" / "folder" / "memory.db", "--json")
    assert [c["fix"] for c in ended.json["checks"] if c["name"] == "store"] == [f"mkdir -p '{tmp_path}/no/folder'"]


def test_a_document_cannot_drive_the_terminal(run, monkeypatch):
    from ttt_memory.commands.output import shown

    assert shown("a\x1b[31mb\x9bc\rd\te\n") == "a\ufffd[31mb\ufffdc\ufffdd\te\n"
    run("ingest", "-", stdin="The colour is \x1b[31mred.")
    assert "\x1b" not in run("ask", "What is the colour?").out
    assert "\x1b" not in run("search", "colour").out
    (document,) = run("documents", "--json").json
    assert "\x1b" in run("get", document["id"]).out, "a pipe gets the text verbatim"


def test_verbs_that_need_no_base_model_load_none(run, filled, tmp_path, monkeypatch):
    digest = run("stats", "--json").json["digest"]
    assert run("ingest", "-", "--no-learn", stdin="Only to be found.").code == 0
    assert run("snapshot", "now").code == 0

    def refuse(_spec):
        pytest.fail("the base model was loaded")

    monkeypatch.setattr("ttt_memory.handle.load_model", refuse)
    assert "kestrel-4471" in run("search", "kestrel-4471").out
    for mode in ("hybrid", "notepad"):
        assert "kestrel-4471" in run("ask", "What is the door code?", "--mode", mode).out
    assert "surprise" in run("documents").out
    assert "kestrel-4471" in run("get", filled["harbour.md"]).out
    assert "snapshot now" in run("log").out
    assert "now" in run("snapshots").out
    stats = run("stats")
    assert digest in stats.out
    assert "not learned yet" not in stats.err, "what is not to be learned is not waited for"
    assert run("export", tmp_path / "a.zip").code == 0
    with pytest.raises(pytest.fail.Exception):
        run("ask", "The door code?", "--mode", "weights")
