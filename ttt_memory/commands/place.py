"""Which memory a command is about, and the options that say so: `--db`, `--tenant`, `--model`, `--json`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, get_type_hints

import typer

from ttt_memory.commands.endpoints import embedder_from_environment
from ttt_memory.commands.progress import verb_bar
from ttt_memory.commands.stopping import stoppable
from ttt_memory.errors import TenantNotFoundError
from ttt_memory.settings import default_url

if TYPE_CHECKING:
    from ttt_memory.memory import CompressedMemory

DB_HELP = "File or database URL of the store [env: TTT_MEMORY_DB]. Default: a file in your data directory."
TENANT_HELP = "Whose memory [env: TTT_MEMORY_TENANT]. Default: default."
MODEL_HELP = "Base model for a new memory: a name, folder or GGUF file [env: TTT_MEMORY_MODEL]."
JSON_HELP = "Print JSON for programs."

_SHARED: dict[str, tuple[Any, Any]] = {
    "db": (Annotated[str | None, typer.Option("--db", help=DB_HELP, show_default=False)], None),
    "tenant": (Annotated[str | None, typer.Option("--tenant", help=TENANT_HELP, show_default=False)], None),
    "model": (Annotated[str | None, typer.Option("--model", help=MODEL_HELP, show_default=False)], None),
    "as_json": (Annotated[bool, typer.Option("--json", help=JSON_HELP)], False),
}


@dataclass(frozen=True)
class Place:
    """A tenant of a store, and how to print about it. None is what nobody named."""

    db: str | None = None
    tenant: str | None = None
    model: str | None = None
    as_json: bool = False

    def override(self, db: str | None, tenant: str | None, model: str | None, as_json: bool) -> Self:
        """This place with what stands after the command instead of what stands before it."""
        return replace(
            self,
            db=db or self.db,
            tenant=tenant or self.tenant,
            model=model or self.model,
            as_json=as_json or self.as_json,
        )

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the store."""
        if self.db is None:
            return default_url()
        return self.db if "://" in self.db else f"sqlite:///{Path(self.db).expanduser()}"

    @property
    def name(self) -> str:
        """The tenant's name."""
        return self.tenant or "default"

    @contextlib.contextmanager
    def open(self, *, create: bool = False, replay: bool = False) -> Iterator[CompressedMemory]:
        """The memory, open, with Ctrl-C made safe for all that is done with it; see `open_memory`."""
        with self.open_memory(create=create, replay=replay) as memory, stoppable():
            yield memory

    def open_memory(self, *, create: bool = False, replay: bool = False) -> CompressedMemory:
        """The memory, open.

        Args:
            create: make the store and the tenant where they are new; otherwise TenantNotFoundError.
            replay: first let the weights read what an interruption left unread.
        """
        if not create:
            self.require()
        from ttt_memory.memory import CompressedMemory

        with stoppable(), verb_bar("taking up what is unread") as step:
            return CompressedMemory.open(
                self.url,
                tenant=self.name,
                model=self.model,
                embedder=embedder_from_environment(),
                replay=replay,
                progress=step,
            )

    def embedder(self) -> str | None:
        """What the tenant's passages were embedded by, as it remembers it."""
        from ttt_memory.ledger import Ledger

        with Ledger.open(self.url) as ledger:
            return ledger.tenant(self.name).head().embedder

    def require(self) -> None:
        """Raise TenantNotFoundError unless the tenant exists; creates nothing."""
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        from ttt_memory.ledger import Ledger

        with contextlib.suppress(ArgumentError):  # Ledger.open says it better
            url = make_url(self.url)
            if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
                raise TenantNotFoundError(
                    f"There is no memory at {url.database} yet.",
                    fix=f"Make one: ttt-memory ingest FILE --db {self.db or url.database}",
                    tenant=self.name,
                )
        with Ledger.open(self.url) as ledger:
            names = ledger.tenants()
        if self.name not in names:
            raise TenantNotFoundError(
                f"There is no tenant {self.name!r} in this store.",
                fix=f"Name one with --tenant; there are: {', '.join(names) or 'none yet'}.",
                tenant=self.name,
            )


def verb(app: typer.Typer, name: str, *, examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function whose first parameter is a Place a command, with the options that choose the place."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in list(inspect.signature(function).parameters.values())[1:]]
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for key, (kind, default) in _SHARED.items()
        ]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)

        @functools.wraps(function)
        def command(
            context: typer.Context, *, db: str | None, tenant: str | None, model: str | None, as_json: bool, **own: Any
        ) -> None:
            given = context.find_object(Place) or Place()
            function(given.override(db, tenant, model, as_json), **own)

        parameters = [context, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *shared]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        lines = "\n".join(f"  {example.strip()}" for example in examples.strip().splitlines())
        app.command(name, epilog=f"\b\nExamples:\n{lines}")(command)
        return function

    return register
