"""A small memory for async tests."""

from pathlib import Path

from ttt_memory import AsyncCompressedMemory


async def open_tiny(folder: Path, tenant: str = "a", **options) -> AsyncCompressedMemory:
    return await AsyncCompressedMemory.open(f"sqlite:///{folder / 'memory.db'}", tenant=tenant, model="tiny", **options)
