"""The rules between rooms (DESIGN: arrows never run back up), read from the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "ttt_memory": ROOT / "ttt_memory",
    "ttt_kernels": ROOT / "kernels/ttt_kernels",
    "ttt_training": ROOT / "training/ttt_training",
    "ttt_adapters": ROOT / "adapters/ttt_adapters",
}
ALWAYS = {"ttt_memory.errors"}
# What a room may import of ours; a room not listed (the top of ttt_memory) may import all rooms of ttt_memory.
MAY_IMPORT = {
    "ttt_kernels": {"ttt_kernels"},
    "ttt_memory.model": {"ttt_memory.model", "ttt_kernels", "ttt_memory.artifacts", "ttt_memory.cache_folder"},
    "ttt_memory.ledger": {"ttt_memory.ledger"},
    "ttt_memory.snapshots": {"ttt_memory.snapshots"},
    "ttt_memory.notepad": {"ttt_memory.notepad", "ttt_memory.ledger", "ttt_memory.types", "ttt_memory.artifacts"},
    "ttt_memory.loaders": {"ttt_memory.loaders", "ttt_memory.types"},
    "ttt_memory.answerers": {"ttt_memory.answerers", "ttt_memory.model", "ttt_memory.notepad", "ttt_memory.types"},
    "ttt_training": {"ttt_training", "ttt_memory.model", "ttt_kernels"},
    "ttt_adapters": {"ttt_adapters", "ttt_memory"},
}
# Third-party packages that a room may import at module level (others only inside functions, or not at all).
LIGHT = {"torch", "numpy", "safetensors", "tiktoken", "regex", "triton"}  # tiktoken brings regex


def modules():
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *[p for p in parts if p != "__init__"])), path


def imports(path, *, module_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    if module_level_only:
        nodes = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def room_of(module):
    matching = [room for room in MAY_IMPORT if module == room or module.startswith(room + ".")]
    return max(matching, key=len, default=None)


def within(name, allowed):
    return any(name == a or name.startswith(a + ".") for a in allowed)


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda v: v if isinstance(v, str) else "")
def test_imports_follow_the_house(module, path):
    room = room_of(module)
    for name in imports(path):
        ours = name.split(".")[0] in PACKAGES
        if ours and room and not within(name, MAY_IMPORT[room] | ALWAYS):
            pytest.fail(f"{module} imports {name}; the room {room} may import {sorted(MAY_IMPORT[room])}")
        if ours and room is None:
            assert name.startswith("ttt_memory"), f"{module} imports {name}"


@pytest.mark.parametrize("room", ["ttt_kernels", "ttt_memory.model", "ttt_training"])
def test_rooms_that_run_on_bare_machines_import_few_packages(room):
    for module, path in modules():
        if room_of(module) == room:
            for name in imports(path, module_level_only=True):
                top = name.split(".")[0]
                assert top in LIGHT or top in PACKAGES or top in sys.stdlib_module_names, f"{module} imports {name}"


def test_no_pickle_and_no_foreign_torch_load():
    for module, path in modules():
        for name in imports(path):
            assert name.split(".")[0] not in {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, module
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}, module
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), module
                assert node.value.value is False, module


def test_importing_the_package_is_light():
    code = "import sys, ttt_memory; print([m for m in ('torch', 'faiss', 'sqlalchemy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_model_runs_without_database_or_validation_packages():
    code = (
        "import sys\n"
        "for name in ('pydantic', 'sqlalchemy', 'faiss', 'typer', 'rich', 'alembic', 'zstandard', 'platformdirs'):\n"
        "    sys.modules[name] = None\n"
        "from ttt_memory.model.tiny import tiny\n"
        "from ttt_memory.model.fold import read, segments\n"
        "import ttt_training\n"
        "model = tiny(); tokens = model.tokenizer.encode('hello ' * 20)\n"
        "state = model.initial_state()\n"
        "for segment in segments(tokens, tokens[:0], model.config, append=False):\n"
        "    for _ in read(model, state, segment): pass\n"
        "print('ok')"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout.strip() == "ok", out.stderr
