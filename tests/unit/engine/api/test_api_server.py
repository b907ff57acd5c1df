"""Claims about the API over its real socket: every question, every refusal, long polls, and the end of the server."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from memory_site import ApiThread

from engine import requests as ask
from engine.api.client import Client
from engine.api.replies import RemoteError
from engine.errors import DaemonForeign, DaemonLost, DaemonUnreachable, LeewardError
from engine.requests import REQUESTS, JobDoc, PeerInvite, PeerJoin


def raw(data: Path, method: str, path: str, body: str | bytes | None = None) -> tuple[int, Any]:
    """A question that our client would never ask."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(data / "api.sock"))
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text)


def in_background(action: Callable[[], Any]) -> Callable[[], Any]:
    """Starts `action` in a thread; the returned function waits for what it returned or raised."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(action())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(30)
        return found[0]

    return result


@pytest.fixture
def client(api: ApiThread) -> Client:
    return Client(api.data)


def with_group(client: Client, peer: str = "lagoon") -> None:
    for request in (
        ask.PeerAdd(peer, "127.0.0.1:7450", "SHA256:" + "0" * 64),
        ask.VolumeAdd("root", "/srv/root.img", 1 << 20),
        ask.GroupCreate("web", ("root",), peer, rpo_s=300),
    ):
        assert client.wait(client.submit(request)).state == "done"


def test_only_the_user_of_the_daemon_can_reach_the_socket(api: ApiThread) -> None:
    assert stat.S_IMODE((api.data / "api.sock").stat().st_mode) == 0o600


def test_every_question_is_answered_with_its_documents(client: Client) -> None:
    with_group(client)
    client.wait(client.submit(ask.Sync("web")))
    client.wait(client.submit(ask.SnapshotCreate("web", name="try")))
    assert [group.name for group in client.status().groups] == ["web"]
    assert client.status("web").site.name == "harbour"
    assert client.groups() == (client.group("web"),)
    assert [peer.name for peer in client.peers()] == ["lagoon"]
    assert [volume.name for volume in client.volumes()] == ["root"]
    assert [point.sequence for point in client.points("web")] == [1]
    assert client.snapshots() == client.snapshots("web") != ()
    assert client.snapshots("other") == ()
    assert [export.uri for export in client.exports()] == ["nbd://127.0.0.1:10809/root"]
    assert [job.kind for job in client.jobs()][:2] == ["snapshot_create", "sync"]


def test_each_kind_of_request_arrives_whole_with_its_key(api: ApiThread, client: Client) -> None:
    sent: list[Any] = [
        ask.PeerAdd("p", "127.0.0.1:1", "SHA256:00", True),
        PeerInvite("p", "00" * 16, ("h:1",), 60),
        PeerJoin("leeward1", "n", "h:1"),
        ask.PeerRemove("p"),
        ask.VolumeAdd("v", "/x", 10, True),
        ask.VolumeRemove("v"),
        ask.VolumeReopen("v"),
        ask.GroupCreate("g", ("v", "w"), "p", 60, 3, "daily:7d"),
        ask.GroupSet("g", 5, "all:1h", 30),
        ask.GroupRemove("g"),
        ask.Sync("g"),
        ask.Verify("g", True, True),
        ask.SnapshotCreate("g", "ab", "n", 14400),
        ask.SnapshotReset("g", "n"),
        ask.SnapshotDelete("g", "n"),
        ask.Promote("g", True),
        ask.LinkSet("20M; mon-fri 08:00-18:00 5M"),
        ask.Pause("g"),
        ask.Resume("g"),
        ask.Demote("g", True),
        ask.Reverse("g", True, "0123456789abcdef", True),
        ask.Restore("g", "0123456789abcdef", True),
        ask.SetAsideDrop("g", "aside-1"),
        ask.SetAsideExport("g", "aside-1"),
        ask.SetAsideUnexport("g", "aside-1"),
    ]
    assert {type(request) for request in sent} == set(REQUESTS.values())
    for number, request in enumerate(sent):
        client.submit(request, key=f"key-{number}")
    assert api.site.submitted == [(request, f"key-{number}") for number, request in enumerate(sent)]


def test_a_strange_name_is_unknown_and_not_another_question(client: Client) -> None:
    for name in ("a/b", "", "a b?c=d&e%2F#"):
        with pytest.raises(LeewardError) as caught:
            client.group(name)
        assert (caught.value.code, caught.value.details()) == ("unknown_name", {"what": "group", "name": name})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/v1/nope", None, 404, "Not Found"),
        ("DELETE", "/v1/jobs", None, 405, "Method Not Allowed"),
        ("GET", "/v1/jobs/x?wait_s=1000", None, 400, "wait_s: Expected `float` <= 60.0"),
        ("GET", "/v1/events?limit=0", None, 400, "limit: Expected `int` >= 1"),
        ("POST", "/v1/jobs", "rubbish", 400, "JSON is malformed: invalid character (byte 0)"),
        ("POST", "/v1/jobs", "{}", 400, "Object missing required field `kind`"),
        ("POST", "/v1/jobs", '{"kind": "zap"}', 400, "kind: Invalid value 'zap'"),
        ("POST", "/v1/jobs", '{"kind": "sync"}', 400, "Object missing required field `group`"),
        ("POST", "/v1/jobs", '{"kind": "sync", "group": 3}', 400, "group: Expected `str`, got `int`"),
        ("POST", "/v1/jobs", '{"kind": "sync", "group": "g", "x": 1}', 400, "Object contains unknown field `x`"),
    ],
)
def test_a_question_that_cannot_be_understood_is_refused_and_changes_nothing(
    api: ApiThread, method: str, path: str, body: str | None, status: int, reason: str
) -> None:
    got, reply = raw(api.data, method, path, body)
    assert (got, reply["error"]["code"], reply["error"]["details"]["reason"]) == (status, "bad_value", reason)
    assert reply["error"]["remedy"]
    assert api.site.submitted == []


def test_a_body_beyond_the_limit_is_refused(api: ApiThread) -> None:
    status, reply = raw(api.data, "POST", "/v1/jobs", b'{"kind": "sync", "group": "' + b"x" * (1 << 20) + b'"}')
    assert (status, reply["error"]["code"]) == (413, "bad_value")
    assert api.site.submitted == []


def test_rubbish_instead_of_http_leaves_the_server_answering(api: ApiThread, client: Client) -> None:
    with socket.socket(socket.AF_UNIX) as rubbish:
        rubbish.connect(str(api.data / "api.sock"))
        rubbish.sendall(os.urandom(4096) + b"\r\n\r\n")
        while rubbish.recv(4096):
            pass
    assert client.status().site.name == "harbour"


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        (ask.VolumeAdd("root", "/x"), "name_taken", 409),
        (ask.Sync("nope"), "unknown_name", 404),
    ],
)
def test_a_refusal_keeps_its_code_on_the_way(
    api: ApiThread, client: Client, request_: ask.Request, code: str, status: int
) -> None:
    with_group(client)
    if status == 404:
        assert raw(api.data, "GET", "/v1/groups/nope")[0] == status
        job = client.wait(client.submit(request_))
        assert (job.state, job.error and job.error.code) == ("failed", code)
        return
    with pytest.raises(RemoteError) as caught:
        client.submit(request_)
    assert (caught.value.code, caught.value.exit_status) == (code, 4)


def test_a_fault_inside_is_reported_as_internal_and_the_server_goes_on(api: ApiThread, client: Client) -> None:
    api.site.broken = ZeroDivisionError("division by zero")
    status, reply = raw(api.data, "GET", "/v1/status")
    assert (status, reply["error"]["code"]) == (500, "internal")
    assert reply["error"]["details"] == {"reason": "ZeroDivisionError: division by zero"}
    api.site.broken = None
    assert client.status().site.name == "harbour"


def test_waiting_for_a_job_tells_of_each_change_and_ends_with_it(api: ApiThread, client: Client) -> None:
    with_group(client)
    api.hold_syncs()
    news: list[JobDoc] = []

    def heard(job: JobDoc) -> None:
        news.append(job)
        if job.progress is not None and job.progress.done_bytes == 1 << 20:
            api.let_syncs_go()  # the wait heard of the first third while the job was still going on

    job = client.wait(client.submit(ask.Sync("web")), heard)
    assert job.state == "done"
    assert job.outcome is not None
    assert job.outcome["bytes_sent"] == 3 << 20
    assert [seen.revision for seen in news] == sorted({seen.revision for seen in news})
    assert news[-1] == job


def test_a_poll_that_has_seen_the_news_waits_for_other_news(api: ApiThread, client: Client) -> None:
    with_group(client)
    api.hold_syncs()
    job = client.submit(ask.Sync("web"))
    while job.progress is None:
        job = client.job(job.id, wait_s=30, seen=job.revision)
    waiting = in_background(lambda: client.job(job.id, wait_s=30, seen=job.revision))
    api.let_syncs_go()
    assert waiting().revision > job.revision
    assert client.job(job.id, wait_s=30).state == "done"


def test_events_are_polled_from_a_sequence_on_and_from_the_end(api: ApiThread, client: Client) -> None:
    for number in range(5):
        api.on_loop(api.site.event("sync_done", f"number {number}"))
    assert [event.sequence for event in client.events(3)] == [4, 5]
    assert [event.sequence for event in client.events(-1, limit=2)] == [4, 5]
    waiting = in_background(lambda: client.events(5, wait_s=30))
    api.on_loop(api.site.event("sync_done", "the sixth"))
    assert [event.message for event in waiting()] == ["the sixth"]


def test_closing_answers_long_polls_at_once_and_takes_the_socket_away(api: ApiThread, client: Client) -> None:
    with_group(client)
    api.hold_syncs()
    job = client.submit(ask.Sync("web"))
    while job.progress is None:
        job = client.job(job.id, wait_s=30, seen=job.revision)
    waiting = in_background(lambda: client.job(job.id, wait_s=60, seen=job.revision))
    api.on_loop(api.site.job(job.id, 0, None))  # the loop has turned since the poll was sent
    api.stop_serving()
    answer = waiting()
    assert isinstance(answer, DaemonUnreachable) or answer.state == "running"
    assert not (api.data / "api.sock").exists()
    with pytest.raises(DaemonUnreachable) as caught:
        client.status()
    assert (caught.value.exit_status, caught.value.reason) == (3, "its socket is not there")


def test_a_client_whose_daemon_goes_away_is_told_so_with_the_operation(api: ApiThread, client: Client) -> None:
    with_group(client)
    api.hold_syncs()

    def stop_when_running(job: JobDoc) -> None:
        if job.progress is not None:
            api.stop_serving()

    with pytest.raises(DaemonLost) as caught:
        client.wait(client.submit(ask.Sync("web")), stop_when_running)
    assert (caught.value.operation, caught.value.exit_status) == ("job-4", 3)


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "api.sock"))
    with pytest.raises(DaemonUnreachable) as caught:
        Client(tmp_path).status()
    assert caught.value.reason == "nobody listens on its socket"
    running = ApiThread(tmp_path)
    try:
        assert Client(tmp_path).status().site.name == "harbour"
    finally:
        running.close()


def test_a_data_directory_with_a_very_long_path_is_reached(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 8)
    deep.mkdir(parents=True)
    running = ApiThread(deep)
    try:
        assert stat.S_IMODE((deep / "api.sock").stat().st_mode) == 0o600
        assert Client(deep).status().site.name == "harbour"
    finally:
        running.close()


def test_what_is_no_daemon_of_ours_is_told_apart_from_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "api.sock"))
        other.listen()

        def answer() -> None:
            peer, _ = other.accept()
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html></html")
            peer.close()

        answered = in_background(answer)
        with pytest.raises(DaemonForeign):
            Client(tmp_path).status()
        answered()


def test_a_daemon_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "api.sock"))
        hung.listen()
        with pytest.raises(DaemonUnreachable) as caught:
            Client(tmp_path, answer_within_s=0.05).status()
        assert caught.value.reason == "it does not answer in time"


def test_the_schema_describes_every_request_and_every_document(api: ApiThread) -> None:
    status, schema = raw(api.data, "GET", "/schema")
    assert status == 200
    assert schema["openapi"].startswith("3.1")
    bodies = schema["components"]["schemas"]
    for kind, request in REQUESTS.items():
        asked = bodies[f"Ask{request.__name__}"]
        assert asked["properties"]["kind"]["const"] == kind
        assert "key" in asked["properties"]
    assert {"GroupDoc", "JobDoc", "Failure", "ErrorDoc"} <= set(bodies)
    failures = schema["paths"]["/v1/jobs"]["post"]["responses"]
    assert {"202", "400", "404", "409", "500", "503"} <= set(failures)
    assert failures["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/Failure")


def test_serving_leaves_the_signals_to_the_daemon(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    program = f"""
import asyncio, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from memory_site import MemorySite
from engine.api.server import serve_api

async def main():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    server = await serve_api(MemorySite(), Path({str(tmp_path)!r}) / "api.sock")
    print((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before)
    await server.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True\n"
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


def test_the_client_needs_nothing_but_the_standard_library() -> None:
    program = (
        "import sys, engine.api.client; "
        "print(sorted({name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'__main__'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    own = {"blockstore", "engine"}
    assert {name for name in json.loads(done.stdout.replace("'", '"')) if not name.startswith("_")} <= own
