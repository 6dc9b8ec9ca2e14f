"""How the MCP server may be started: what `ttt-memory mcp` refuses, and what is missing where the SDK is."""

import re
import socket
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="mcp is not installed: pip install 'ttt-memory[mcp]'")

from ttt_adapters.mcp import serve
from ttt_adapters.mcp.http import is_loopback, listen, security
from ttt_adapters.mcp.tools import TOOLS

from ttt_memory.cli import main
from ttt_memory.errors import InvalidInputError, MissingExtraError

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "mcp.md"


def test_without_a_token_only_this_machine_may_connect():
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(InvalidInputError, match="TTT_MEMORY_MCP_TOKEN"):
            listen(host, 0, token=None)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert is_loopback(host)
    with listen("127.0.0.1", 0, token=None) as taken:
        assert taken.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_a_typed_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInputError, match="--port") as error:
            listen("127.0.0.1", port, token=None)
        assert error.value.context == {"host": "127.0.0.1", "port": port}


def test_rebinding_protection_is_never_off():
    for names in ((), ("memory.example.org",)):
        settings = security(names)
        assert settings.enable_dns_rebinding_protection
        assert "*" not in settings.allowed_hosts
        assert {"localhost", "127.0.0.1:*", *names} <= set(settings.allowed_hosts)
        assert {f"https://{name}" for name in names} <= set(settings.allowed_origins)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--json"], 2, "--json"),
        (["--transport", "pigeon"], 2, "pigeon"),
        (["--port", "99999"], 2, "65535"),
        (["--transport", "http", "--host", "0.0.0.0"], 1, "TTT_MEMORY_MCP_TOKEN"),
    ],
)
def test_refusals_come_before_anything_is_opened(arguments, code, words, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TTT_MEMORY_MCP_TOKEN", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["mcp", "--db", str(tmp_path / "memory.db"), "--model", "tiny", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (code, "")
    assert words in err
    assert not (tmp_path / "memory.db").exists()


def test_without_the_sdk_the_error_names_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name == "mcp" or name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingExtraError, match=r"ttt-memory\[mcp\]"):
        serve("sqlite://", tenant="a", model="tiny")


def test_the_page_has_every_tool_and_no_other():
    named = set(re.findall(r"^\| `(memory_[a-z]+)`", PAGE.read_text(), re.MULTILINE))
    assert named == {name for name, _, _ in TOOLS}
