"""The tools: what a model may do with a memory. The tenant is never among their arguments, and no tool reads files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from ttt_adapters.mcp.progress import reported
from ttt_memory import Answer, AsyncCompressedMemory, Document, DocumentInfo, ForgetReport, Passage, Stats
from ttt_memory.errors import InvalidInputError
from ttt_memory.types import Mode

Where = Annotated[
    dict[str, Any] | None,
    Field(description='Filter on metadata, e.g. {"kind": "ticket", "priority": {"$gte": 3}}.'),
]
AsOf = Annotated[datetime | None, Field(description="Only what was observed until then (ISO 8601; UTC).")]
Limit = Annotated[int, Field(ge=1, le=50, description="How many at most.")]


class Remembered(BaseModel):
    """What became of the text; `created` is False where it was there already, `surprise` is in nats per token."""

    document_id: str
    created: bool
    learned: bool
    tokens: int
    position: int
    surprise: float | None


class Found(BaseModel):
    """Passages, best first."""

    passages: list[Passage]


class DocumentPage(BaseModel):
    """Documents in the order in which they came; `next_after` is None on the last page."""

    documents: list[DocumentInfo]
    next_after: int | None


class Excerpt(BaseModel):
    """A document with a part of its text: characters `start` to `end` of `document.characters`."""

    document: DocumentInfo
    start: int
    end: int


class Tools:
    """The tools of one memory; every public method is one, and its docstring is what a model reads about it."""

    def __init__(self, memory: AsyncCompressedMemory) -> None:
        self._memory = memory

    async def memory_ingest(
        self,
        context: Context[Any, Any],
        text: Annotated[str, Field(min_length=1, description="The text, kept verbatim.")],
        metadata: Annotated[
            dict[str, Any] | None, Field(description='JSON values to filter by later, e.g. {"kind": "note"}.')
        ] = None,
        observed_at: Annotated[
            datetime | None, Field(description="When it was true or was said (ISO 8601; UTC). Default: now.")
        ] = None,
        stream: Annotated[
            str | None, Field(description="The conversation or log that this text continues. Needs `sequence`.")
        ] = None,
        sequence: Annotated[int | None, Field(ge=0, description="The place in the stream: 0, 1, 2 and so on.")] = None,
        origin: Annotated[Literal["user", "model"], Field(description="`model` for text that you wrote.")] = "user",
        learn: Annotated[
            bool, Field(description="False: searchable only; nothing is learned, and forgetting it costs nothing.")
        ] = True,
    ) -> Remembered:
        """Remember a text: verbatim, searchable at once, and learned. The same text again is recognised, not doubled.

        Learning takes about a second for a page; progress is reported.
        """
        if (stream is None) != (sequence is None):
            raise InvalidInputError(
                "A stream and a sequence go together.",
                why="without its place an append could not be told from a repeated call",
                fix="Give both, or neither for a document of its own.",
            )
        document = Document(text=text, stream=stream, sequence=sequence, origin=origin)
        async with reported(context) as step:
            receipt = await self._memory.ingest(
                document, metadata=metadata, observed_at=observed_at, learn=learn, progress=step
            )
        return Remembered(**receipt.model_dump(include=set(Remembered.model_fields)))

    async def memory_search(
        self,
        query: Annotated[str, Field(min_length=1, description="Words, a sentence, a name or a code.")],
        limit: Limit = 5,
        where: Where = None,
        as_of: AsOf = None,
    ) -> Found:
        """Find passages, best first. Each quotes its document to the character: `text` is document[start:end]."""
        return Found(passages=await self._memory.search(query, limit=limit, where=where, as_of=as_of))

    async def memory_ask(
        self,
        question: Annotated[str, Field(min_length=1, description="In plain words.")],
        mode: Annotated[
            Mode,
            Field(description="`hybrid` and `notepad` quote passages; `weights` is closed book: style and gist alone."),
        ] = "hybrid",
        limit: Limit = 5,
        where: Where = None,
        as_of: AsOf = None,
    ) -> Answer:
        """Answer a question from this memory, with citations. Trust what is cited; `grounded` says whether it is."""
        return await self._memory.ask(question, mode=mode, limit=limit, where=where, as_of=as_of)

    async def memory_documents(
        self,
        limit: Limit = 20,
        after: Annotated[int, Field(ge=0, description="`next_after` of the page before.")] = 0,
        where: Where = None,
    ) -> DocumentPage:
        """List what is remembered, oldest first, without the texts."""
        found = await self._memory.documents(where=where, limit=limit + 1, after=after)
        more = len(found) > limit
        return DocumentPage(documents=found[:limit], next_after=found[limit - 1].position if more else None)

    async def memory_get(
        self,
        document_id: Annotated[str, Field(description="From a passage, a citation or the list of documents.")],
        start: Annotated[int, Field(ge=0, description="First character.")] = 0,
        length: Annotated[int, Field(ge=1, le=50_000, description="Characters at most.")] = 10_000,
    ) -> Excerpt:
        """Read a remembered document, or a part of it, verbatim."""
        document = await self._memory.get(document_id)
        part = (document.text or "")[start : start + length]
        return Excerpt(document=document.model_copy(update={"text": part}), start=start, end=start + len(part))

    async def memory_forget(
        self,
        context: Context[Any, Any],
        document_ids: Annotated[list[str], Field(min_length=1, description="Whole documents, by their ids.")],
    ) -> ForgetReport:
        """Erase documents for good, and unlearn them: the memory becomes what it would be without them.

        Cannot be undone. Takes as long as reading again what was learned after them; progress is reported.
        """
        async with reported(context) as step:
            return await self._memory.forget(document_ids, progress=step)

    async def memory_status(self) -> Stats:
        """How much is remembered, whether all of it is learned, and the digest of the learned weights."""
        return await self._memory.stats()


READ = {"read_only_hint": True, "destructive_hint": False, "idempotent_hint": True, "open_world_hint": False}
ADD = {**READ, "read_only_hint": False}
ERASE = {**ADD, "destructive_hint": True}

TOOLS: Sequence[tuple[str, str, dict[str, bool]]] = (
    ("memory_ingest", "Remember a text", ADD),
    ("memory_search", "Find passages", READ),
    ("memory_ask", "Ask the memory", READ),
    ("memory_documents", "List documents", READ),
    ("memory_get", "Read a document", READ),
    ("memory_forget", "Forget documents", ERASE),
    ("memory_status", "State of the memory", READ),
)
"""Method, title for people, and what a client may assume: repeating a call changes nothing more, in every one."""
