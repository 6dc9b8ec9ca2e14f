"""The main job on real input: two tenants read, ask, snapshot, restore, fork, forget and verify.

    python examples/demo.py                 # SmolLM2-135M, a store that is removed at the end
    python examples/demo.py --db demo.db    # keep the store
    python examples/demo.py --model tiny --quick    # seconds; shows the mechanics, its answers mean nothing

Every line with a tick is checked while the demo runs; it ends with status 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import demo_sources as sources
from demo_view import View, size

from ttt_memory import Citation, CompressedMemory, Document, Sampling, TTTMemoryError

SECRET = "KESTREL-4471"
QUESTIONS = (
    "Which number is the primary key of a book?",
    "How is a heap laid out in an array?",
    "What is the late fee, and who never pays?",
)


class Demo:
    """The story, told on one store. Ada reads documentation and keeps a chat; Grace keeps a service's log."""

    def __init__(self, url: str, *, model: str | None, quick: bool) -> None:
        self.url, self.model, self.quick = url, model, quick
        self.view = View()
        self.words = Sampling(max_tokens=16 if quick else 48, repetition_penalty=1.1)
        self.started = time.perf_counter()
        with self.view.timed("opening the model and the store"):
            self.ada, self.grace = self.open("ada"), self.open("grace")

    def open(self, tenant: str) -> CompressedMemory:
        """One tenant's memory."""
        return CompressedMemory.open(self.url, tenant=tenant, model=self.model)

    def run(self) -> list[str]:
        """Tell it. Returns the claims that did not hold."""
        parts = (self.read, self.familiarity, self.ask, self.isolation, self.time_travel, self.forget, self.verify)
        try:
            self.introduce()
            for part in parts:
                part()
            self.sum_up()
        finally:
            self.ada.close()
            self.grace.close()
        return self.view.failed

    def introduce(self) -> None:
        """Say what runs on what."""
        stats = self.ada.stats()
        machine = ", ".join(f"{key} {value}" for key, value in stats.backend.items())
        self.view.say(f"model {stats.model}, embedder {stats.embedder}; {os.cpu_count()} cores; {machine}")
        self.view.say(f"fast weights {size(stats.state_bytes)} a tenant, whatever it reads")

    def read(self) -> None:
        """Ingest: two tenants, three kinds of text."""
        view = self.view
        view.part("1. Read")
        view.say("Surprise: mean nats per token before learning it. Lower: more like what was read before.")
        view.say("Ada reads documentation of the standard library from this machine,")
        for document in sources.documentation(2 if self.quick else len(sources.MODULES)):
            self._ingest(self.ada, document)
        self.before_chat = self.ada.snapshot("before-chat")
        view.say("and then a chat: each sitting is appended to one stream.")
        self.sessions = {d.metadata["session"]: self._ingest(self.ada, d) for d in sources.chat()}
        view.say("Grace reads four days of her service's log.")
        *days, self.friday = sources.log()
        for document in days:
            self._ingest(self.grace, document)
        again = self.grace.ingest(days[0])
        view.check("the same day given again is recognised, not stored or learned twice", not again.created)

    def familiarity(self) -> None:
        """What learning did: loss on text that nobody has read."""
        view = self.view
        view.part("2. What the weights learned")
        view.say("Nats per token on text that neither has read; lower is more familiar. No passage is looked up.")
        texts = {"argparse, the next page": sources.unread_documentation(), "the log of Friday": self.friday.text}
        with view.timed("scoring unread text"), self.open("nobody") as nobody:
            readers = {"nobody (as shipped)": nobody, "Ada": self.ada, "Grace": self.grace}
            rows = [[name, *(f"{memory.score(t):.3f}" for memory in readers.values())] for name, t in texts.items()]
        view.table(["unread text", *readers], rows)

    def ask(self) -> None:
        """The three modes."""
        view, names = self.view, self._names(self.ada)
        view.part("3. Ask")
        view.say("hybrid: quotes the sentences that answer best, with their document and character offsets.")
        quotes = True
        with view.timed("asking (quotes)"):
            for question in QUESTIONS:
                answer = self.ada.ask(question)
                view.answer(question, answer, names, how="hybrid")
                quotes &= self._exact(self.ada, answer.citations)
        view.check("every quote stands in its document, character by character", quotes)
        view.console.print()
        view.say(
            "notepad, written: the base model reads the passages and writes. It has 135M parameters: trust the quotes."
        )
        with view.timed("asking (written)"):
            written = self.ada.ask(QUESTIONS[2], mode="notepad", answerer="generate", sampling=self.words)
        view.answer(QUESTIONS[2], written, names, how="notepad")
        view.console.print()
        view.say("weights: closed book, from the fast weights alone. It picks up style and jargon; it does not recall")
        view.say("facts, and at this size it makes them up. That is why it cites nothing and calls itself ungrounded.")
        with view.timed("asking (written)"):
            closed = self.ada.ask(QUESTIONS[2], mode="weights", sampling=self.words)
        view.answer(QUESTIONS[2], closed, names, how="weights")
        view.check("no citations, grounded is False", not closed.citations and not closed.grounded)

    def isolation(self) -> None:
        """Tenants do not see one another."""
        view = self.view
        view.part("4. Two tenants, one store")
        asked = (
            ("Ada", self.ada, f"side door code {SECRET}", SECRET),
            ("Grace", self.grace, f"side door code {SECRET}", SECRET),
            ("Grace", self.grace, "What does E-7731 mean?", "E-7731"),
            ("Ada", self.ada, "What does E-7731 mean?", "E-7731"),
        )
        found = [any(code in hit.text for hit in memory.search(query)) for _, memory, query, code in asked]
        for (name, _, query, _), hit in zip(asked, found, strict=True):
            view.say(f"  {name:<6} searches “{query}”: {'found' if hit else 'not there'}")
        view.check("each finds her own text and nothing of the other's", found == [True, False, True, False])

    def time_travel(self) -> None:
        """Snapshot, change, restore back and forward."""
        view, grace = self.view, self.grace
        view.part("5. Snapshot, change, restore")
        question, told = "What was the cause of E-7731 according to the postmortem?", "default of 150"
        thursday = grace.snapshot("thursday")
        view.say("Grace names this moment “thursday” and reads Friday's log.")
        self._ingest(grace, self.friday)
        friday = grace.snapshot("friday")
        view.answer(question, grace.ask(question), self._names(grace), how="hybrid, Friday")
        with view.timed("restoring"):
            grace.restore("thursday")
        view.check(
            "back on Thursday the weights are those of Thursday, bit for bit", grace.stats().digest == thursday.digest
        )
        view.check("and Friday's postmortem is not there", all(told not in hit.text for hit in grace.search(question)))
        with view.timed("restoring"):
            grace.restore(friday)
        view.check("forward again: Friday is back, nothing was read twice", grace.stats().digest == friday.digest)

    def forget(self) -> None:
        """Fork a memory that never read the private session, then forget it, and compare."""
        view, ada = self.view, self.ada
        view.part("6. Fork and forget")
        before = ada.stats().digest
        view.say("A fork from before the chat reads every sitting but the private one:")
        with ada.fork("ada-who-never-heard", at=self.before_chat) as other:
            for document in sources.chat():
                if document.metadata["session"] != sources.PRIVATE_SESSION:
                    self._ingest(other, document)
            expected = other.stats().digest
        view.check("the fork went its own way, Ada's memory did not move", expected != before == ada.stats().digest)
        private = self.sessions[sources.PRIVATE_SESSION]
        cost = ada.estimate(forget=private)
        view.say(
            f"Forgetting that sitting would replay {cost.tokens:,} tokens, about {cost.seconds:.0f} s. Ada forgets it:"
        )
        with view.timed("forgetting"), view.bar("forgetting") as progress:
            report = ada.forget(private, progress=progress)
        view.say(f"  {report.replayed_tokens:,} tokens replayed in {report.seconds:.1f} s.")
        found = [hit for hit in ada.search(f"side door code {SECRET}", limit=20) if SECRET in hit.text]
        view.check("the door code is not found any more", not found)
        view.check("the weights are, bit for bit, those of the fork that never heard it", report.digest == expected)

    def verify(self) -> None:
        """Check the stores; replay one from its first word."""
        view = self.view
        view.part("7. Verify")
        with view.timed("verifying"):
            kept = self.ada.verify()
            with view.bar("replaying") as progress:
                replayed = self.grace.verify(replay=True, progress=progress)
        view.check(f"Ada: {', '.join(kept.checks)} are sound", kept.ok)
        view.check(
            f"Grace: the same, and her log read again from the first word gives the same weights ({replayed.replayed})",
            replayed.ok,
        )
        for finding in (*kept.findings, *replayed.findings):
            view.say(f"  {finding.check} {finding.subject}: {finding.detail}")

    def sum_up(self) -> None:
        """Sizes and times."""
        view, both = self.view, (self.ada.stats(), self.grace.stats())
        view.part("Sizes and times")
        rows = [
            ["documents", *(f"{s.documents}" for s in both)],
            ["tokens learned", *(f"{s.learned_tokens:,}" for s in both)],
            ["text", *(size(s.text_bytes) for s in both)],
            ["passages", *(f"{s.passages}" for s in both)],
            ["fast weights in memory", *(size(s.state_bytes) for s in both)],
            ["snapshots, checkpoints", *(f"{s.snapshots}, {s.checkpoints}" for s in both)],
            ["digest of the weights", *(s.digest[:12] for s in both)],
        ]
        view.table(["", "Ada", "Grace"], rows)
        times = [[stage, f"{seconds:.1f} s"] for stage, seconds in view.seconds.items()]
        view.table(["", ""], [*times, ["all", f"{time.perf_counter() - self.started:.1f} s"]])
        view.say(f"The store, all tenants with checkpoints and indexes: {size(both[0].store_bytes)}.")

    def _ingest(self, memory: CompressedMemory, document: Document) -> str:
        name = document.metadata["name"]
        return self.view.read(name, lambda progress: memory.ingest(document, progress=progress)).document_id

    @staticmethod
    def _exact(memory: CompressedMemory, citations: tuple[Citation, ...]) -> bool:
        quoted = ((memory.get(c.document_id).text, c) for c in citations)
        return all(text is not None and text[c.start : c.end] == c.text for text, c in quoted)

    @staticmethod
    def _names(memory: CompressedMemory) -> dict[str, str]:
        return {document.id: document.metadata["name"] for document in memory.documents()}


def main() -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Two tenants read, ask, snapshot, restore, fork, forget and verify.")
    parser.add_argument("--db", type=Path, help="keep the store in this new SQLite file (default: a temporary one)")
    parser.add_argument("--model", help="smollm2-135m-ttt (default), smollm2-135m, tiny, a folder or a GGUF file")
    parser.add_argument("--quick", action="store_true", help="a third of the documentation, shorter written answers")
    options = parser.parse_args()
    if options.db and options.db.exists():
        parser.error(f"{options.db} exists already; give a new file")
    with tempfile.TemporaryDirectory(prefix="ttt-memory-demo-") as folder:
        path = (options.db or Path(folder) / "demo.db").absolute()
        try:
            failed = Demo(f"sqlite:///{path}", model=options.model, quick=options.quick).run()
        except TTTMemoryError as error:
            print(error, file=sys.stderr)
            return 1
    if options.db:
        print(f"Kept in {options.db}; tenants ada, grace, nobody, ada-who-never-heard.")
    if failed:
        print("NOT TRUE: " + "; ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
