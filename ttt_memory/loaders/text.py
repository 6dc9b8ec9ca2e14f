"""Plain text, Markdown, reStructuredText and source code: one document a file, kept verbatim."""

from __future__ import annotations

from collections.abc import Iterator

from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.limits import TEXT_BYTES
from ttt_memory.types import Document

PROSE = (".txt", ".text", ".rst", ".adoc", ".org", ".tex", ".srt", ".vtt", ".diff", ".patch", "")
MARKDOWN = (".md", ".markdown", ".mdx")
LANGUAGES = {
    ".py": "python", ".pyi": "python", ".toml": "toml", ".ini": "ini", ".cfg": "ini", ".conf": "ini", ".yaml": "yaml",
    ".yml": "yaml", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp", ".cu": "cuda", ".rs": "rust",
    ".go": "go", ".java": "java", ".kt": "kotlin", ".scala": "scala", ".swift": "swift", ".js": "javascript",
    ".mjs": "javascript", ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".vue": "vue", ".rb": "ruby",
    ".php": "php", ".pl": "perl", ".lua": "lua", ".r": "r", ".jl": "julia", ".cs": "csharp", ".fs": "fsharp",
    ".hs": "haskell", ".ml": "ocaml", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".clj": "clojure",
    ".dart": "dart", ".sh": "shell", ".bash": "shell", ".zsh": "shell", ".ps1": "powershell", ".sql": "sql",
    ".css": "css", ".scss": "css", ".xml": "xml", ".svg": "xml", ".proto": "protobuf", ".graphql": "graphql",
    ".tf": "terraform", ".cmake": "cmake", ".mk": "make", ".gradle": "gradle", ".properties": "properties",
    ".bat": "batch", ".env": "shell", ".lean": "lean", ".zig": "zig", ".nim": "nim", ".sol": "solidity",
}  # fmt: skip


def read(file: SourceFile) -> Iterator[Document]:
    """The file's text; the language of source code as metadata."""
    yield file.document(file.text(TEXT_BYTES), {"language": LANGUAGES.get(file.suffix)})
