"""The MCP server as its clients meet it: the SDK's own client, over stdio and over HTTP, to real processes.

Both processes serve the same store; the one on stdio the tenant `a`, the one over HTTP the tenant `b`.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import AsyncExitStack

import anyio
import pytest

pytest.importorskip("mcp", reason="mcp is not installed: pip install 'ttt-memory[mcp]'")

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.memory.helpers import text
from ttt_memory import CompressedMemory

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("mcp")]
COMMAND = [sys.executable, "-m", "ttt_memory", "mcp"]
TOKEN = "a-long-random-text"
SECONDS = 300
TOOLS = {"memory_ingest", "memory_search", "memory_ask", "memory_documents", "memory_get", "memory_forget",
         "memory_status"}  # fmt: skip


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mcp') / 'memory.db'}"


def environment(store: str, tenant: str, **more: str) -> dict[str, str]:
    named = {"TTT_MEMORY_DB": store, "TTT_MEMORY_MODEL": "tiny", "TTT_MEMORY_TENANT": tenant}
    return {**os.environ, **named, **more}


@pytest.fixture(scope="module")
def address(store):
    """Where the HTTP server listens, as it says itself."""
    with CompressedMemory.open(store, tenant="b", model="tiny"):
        pass  # two processes that make the same new store at once are another test's matter
    command = [*COMMAND, "--transport", "http", "--port", "0"]
    env = environment(store, "b", TTT_MEMORY_MCP_TOKEN=TOKEN)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        assert "'b'" in said, said + process.stderr.read()
        assert TOKEN not in said
        yield next(word for word in said.split() if word.startswith("http://127.0.0.1:"))
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, out) == (0, ""), err
        assert "Traceback" not in err


@pytest.fixture(scope="module")
async def clients(store, address, tmp_path_factory):
    wire = tmp_path_factory.mktemp("wire") / "stdout"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=SECONDS)
        )
        heard = f"{shlex.join(COMMAND)} | tee {shlex.quote(str(wire))}"
        stdio = StdioServerParameters(command="bash", args=["-c", heard], env=environment(store, "a"))
        yield {
            "stdio": await stack.enter_async_context(Client(stdio)),
            "http": await stack.enter_async_context(Client(streamable_http_client(address, http_client=http))),
        }
    lines = wire.read_text().splitlines()
    assert len(lines) > len(TOOLS)
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in lines), "stdout carries the protocol alone"


@pytest.fixture(params=["stdio", "http"])
def client(clients, request):
    return clients[request.param]


async def use(client: Client, tool: str, **arguments):
    """Structured result of a call that must succeed; the client itself checks it against the tool's schema."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


async def refused(client: Client, tool: str, **arguments):
    """The error of a call that must fail, which says what, and is the same for the model and for programs."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    error = result.structured_content["error"]
    assert error["what"]
    assert result.content[0].text.startswith(error["what"])
    return error


async def test_few_tools_with_safe_annotations_and_no_tenant(client):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS
    for name, tool in tools.items():
        hints = tool.annotations
        assert hints.read_only_hint == (name not in ("memory_ingest", "memory_forget"))
        assert hints.destructive_hint == (name == "memory_forget")
        assert hints.idempotent_hint
        assert hints.open_world_hint is False
        assert tool.title
        assert tool.description
        assert tool.output_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        arguments = tool.input_schema["properties"]
        assert not {name for name in arguments if "tenant" in name or "url" in name or "path" in name}
        assert all(value.get("description") for value in arguments.values())


async def test_ingest_with_progress_ask_with_citations_and_forget(client):
    seen = []

    async def show(done, total, message):
        seen.append((done, total, message))

    body = "The door code is kestrel-4471. " + text(3, 60)
    arguments = {"text": body, "metadata": {"kind": "note", "priority": 3}, "observed_at": "2026-01-31"}
    result = await client.call_tool("memory_ingest", arguments, progress_callback=show)
    receipt = result.structured_content
    assert (receipt["created"], receipt["learned"]) == (True, True)
    done = [step[0] for step in seen]
    assert done
    assert done == sorted(set(done)), "the protocol wants numbers that grow"
    assert all(total is None or step <= total for step, total, _ in seen)
    assert seen[-1][2] == f"{receipt['tokens']:,} of {receipt['tokens']:,} tokens read"

    again = await use(client, "memory_ingest", **arguments)
    assert again == {**receipt, "created": False}, "a call may be repeated"

    identity = receipt["document_id"]
    answer = await use(client, "memory_ask", question="What is the door code?", limit=1)
    assert "kestrel-4471" in answer["text"]
    (quote,) = answer["citations"]
    assert quote["document_id"] == identity
    assert body[quote["start"] : quote["end"]] == quote["text"]
    assert answer["grounded"]
    closed = await use(client, "memory_ask", question="What is the door code?", mode="weights")
    assert (closed["citations"], closed["grounded"]) == ([], False)

    found = await use(client, "memory_search", query="kestrel-4471", where={"priority": {"$gte": 3}})
    assert found["passages"][0]["text"] in body
    assert (await use(client, "memory_search", query="kestrel-4471", as_of="2025-01-01"))["passages"] == []
    excerpt = await use(client, "memory_get", document_id=identity, start=4, length=9)
    assert (excerpt["document"]["text"], excerpt["start"], excerpt["end"]) == ("door code", 4, 13)
    assert excerpt["document"]["characters"] == len(body)

    report = await use(client, "memory_forget", document_ids=[identity])
    assert report["documents"] == [identity]
    assert (await use(client, "memory_search", query="kestrel-4471"))["passages"] == []
    assert (await refused(client, "memory_forget", document_ids=[identity]))["type"] == "DocumentNotFoundError"


async def test_streams_and_pages(client):
    for number in range(3):
        for _ in range(2):  # repeated calls append once
            await use(client, "memory_ingest", text="ok", stream="talk", sequence=number, origin="model", learn=False)
    first = await use(client, "memory_documents", limit=2)
    second = await use(client, "memory_documents", limit=2, after=first["next_after"])
    listed = first["documents"] + second["documents"]
    assert [(d["stream"], d["sequence"], d["origin"]) for d in listed] == [("talk", n, "model") for n in range(3)]
    assert second["next_after"] is None
    assert (await use(client, "memory_status"))["documents"] == 3
    await use(client, "memory_forget", document_ids=[d["id"] for d in listed])


async def test_bad_input_is_explained_and_changes_nothing(client):
    before = await use(client, "memory_status")
    for tool, arguments, word in (
        ("memory_ingest", {}, "text"),
        ("memory_ingest", {"text": "x", "tenant": "b"}, "tenant"),
        ("memory_ingest", {"text": "  \n"}, "empty"),
        ("memory_ingest", {"text": "x", "stream": "talk"}, "sequence"),
        ("memory_ingest", {"text": "x", "origin": "nobody"}, "origin"),
        ("memory_search", {"query": "x", "limit": 0}, "limit"),
        ("memory_search", {"query": "x", "where": {"a": {"$bad": 1}}}, "$bad"),
        ("memory_ask", {"question": "x", "mode": "guess"}, "mode"),
        ("memory_ask", {"question": " "}, "empty"),
        ("memory_get", {"document_id": "nope"}, "nope"),
        ("memory_get", {"document_id": ["nope"]}, "document_id"),
        ("memory_forget", {"document_ids": []}, "document_ids"),
        ("memory_forget", {"document_ids": ["nope"]}, "nope"),
        ("memory_status", {"verbose": True}, "verbose"),
    ):
        error = await refused(client, tool, **arguments)
        assert word in error["what"] + error["why"], (tool, arguments, error)
    assert await use(client, "memory_status") == {
        **before,
        "store_bytes": (await use(client, "memory_status"))["store_bytes"],
    }
    assert (await client.call_tool("memory_drop_everything", {})).is_error


async def test_a_cancelled_ingest_leaves_a_clean_memory(client, store):
    before = await use(client, "memory_status")
    reading = anyio.Event()

    async def show(_done, _total, message):
        if "tokens read" in message:
            reading.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "memory_ingest", {"text": text(9, 6000)}, None, show)
        await reading.wait()
        tasks.cancel_scope.cancel()
    (left,) = (await use(client, "memory_documents"))["documents"]
    assert not left["learned"], "the call ended long before its text"
    with CompressedMemory.open(store, tenant=before["tenant"], replay=False) as memory:
        assert memory.verify().ok
    await use(client, "memory_forget", document_ids=[left["id"]])
    with CompressedMemory.open(store, tenant=before["tenant"], replay=False) as memory:
        report = memory.verify(replay=True)
        assert report.ok, report.findings
        assert report.digest == before["digest"], "as if it had never begun"


async def test_tenants_cannot_be_crossed(clients):
    ours, theirs = clients["stdio"], clients["http"]
    secret = await use(ours, "memory_ingest", text="The staging key is MOTH-1947.", learn=False)
    before = await use(ours, "memory_status")
    assert (await use(theirs, "memory_search", query="MOTH-1947"))["passages"] == []
    assert "MOTH" not in (await use(theirs, "memory_ask", question="What is the staging key?"))["text"]
    assert (await use(theirs, "memory_documents"))["documents"] == []
    for tool, arguments in (
        ("memory_get", {"document_id": secret["document_id"]}),
        ("memory_forget", {"document_ids": [secret["document_id"]]}),
    ):
        assert (await refused(theirs, tool, **arguments))["type"] == "DocumentNotFoundError"
    for tool in TOOLS:
        error = await refused(theirs, tool, tenant="a")
        assert "tenant" in error["context"]["arguments"]
    after = await use(ours, "memory_status")
    assert after == {**before, "store_bytes": after["store_bytes"]}
    await use(ours, "memory_forget", document_ids=[secret["document_id"]])


async def test_clients_of_the_older_protocol_are_served(address):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=SECONDS) as http,
        Client(streamable_http_client(address, http_client=http), mode="legacy") as client,
    ):
        assert (await use(client, "memory_status"))["tenant"] == "b"


async def test_http_answers_only_those_with_the_token_and_under_its_own_name(address):
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "memory_status", "arguments": {}}}
    known = {"Authorization": f"bearer {TOKEN}", "Accept": "application/json, text/event-stream"}
    cases = (
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer \u00fc".encode()}, 401),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
    )
    async with httpx2.AsyncClient(timeout=SECONDS) as http:
        for headers, status in cases:
            response = await http.post(address, json=call, headers={**known, **headers})
            assert response.status_code == status, (headers, response.text)
            assert "memory" not in response.text.lower()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["Ctrl-C", "the client leaves"])
async def test_the_end_is_clean_also_where_the_client_speaks_nonsense(store, ending):
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    env = environment(store, "raw", PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        COMMAND, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}) + "\n")
        process.stdin.write("this is no JSON\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "ttt-memory"
        if ending == "Ctrl-C":
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())
