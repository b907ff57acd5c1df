"""Claims about the edge of the program: errors, exit statuses, signals, terminals, pipes, imports and speed."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_run import Ran
from memory_site import ApiThread

from engine.cli.main import main

Leeward = Callable[..., Ran]
HEAVY = ("numpy", "litestar", "uvicorn", "uvloop", "msgspec", "structlog", "cryptography", "sqlite3", "asyncio", "rich")


@pytest.fixture
def start(program: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start("sync", "web")` starts that command and leaves it running; it is ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str, **streams: int) -> subprocess.Popen[str]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        running.append(subprocess.Popen([program, *words], env=environment, text=True, **streams))  # type: ignore[call-overload]
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = os.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def read_until(file: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(file, 65536)
    return seen


# --- errors and exit statuses -----------------------------------------------------------------------------------


def test_a_refusal_of_the_daemon_is_one_line_with_its_code_and_exit_4(with_group: None, leeward: Leeward) -> None:
    done = leeward("promote", "web")
    assert (done.status, done.out) == (4, "")
    assert done.err == (
        "error: promote of web is refused: the protected site still answers. "
        "Run `leeward group show web` to see its state. [refused_by_state]\n"
    )


def test_a_failure_is_the_same_document_with_json(with_group: None, leeward: Leeward) -> None:
    done = leeward("promote", "web", "--json")
    assert done.status == 4
    assert done.error == {
        "code": "refused_by_state",
        "message": "promote of web is refused: the protected site still answers.",
        "remedy": "Run `leeward group show web` to see its state.",
        "details": {"operation": "promote", "group": "web", "reason": "the protected site still answers"},
    }


def test_an_unknown_name_fails_with_exit_1(leeward: Leeward) -> None:
    assert leeward("group", "show", "nope").status == 1
    assert leeward("group", "show", "nope", "--json").error["code"] == "unknown_name"


def test_a_refusal_at_the_question_keeps_its_exit_status(with_group: None, leeward: Leeward) -> None:
    done = leeward("volume", "add", "root", "--store", "x", "--json")
    assert (done.status, done.error["code"]) == (4, "name_taken")


def test_without_a_daemon_the_exit_status_is_3(leeward: Leeward, tmp_path: Path) -> None:
    done = leeward("status", "--data", "nothing-here", "--json")
    assert (done.status, done.error["code"]) == (3, "daemon_unreachable")
    assert done.error["details"]["data"] == str(tmp_path / "nothing-here")
    assert leeward("sync", "web", LEEWARD_DATA=str(tmp_path / "nothing-here")).status == 3


def test_data_on_the_command_line_wins_over_the_environment(api: ApiThread, leeward: Leeward) -> None:
    assert leeward("status", "--data", str(api.data), LEEWARD_DATA="/nowhere").status == 0


@pytest.mark.parametrize(
    "words",
    [
        ("zap",),
        ("init",),
        ("group", "zap"),
        ("group", "show"),
        ("group", "show", "a", "b"),
        ("sync", "web", "--zap"),
        ("volume", "add", "v"),
        ("volume", "add", "v", "--store", "x", "--size", "ten"),
        ("group", "create", "g", "--volume", "v", "--peer", "p", "--rpo", "soon"),
        ("group", "create", "g", "--volume", "v", "--peer", "p", "--keep", "0"),
        ("jobs", "--wait"),
        ("completion", "tcsh"),
        ("events", "--limit", "0"),
    ],
)
def test_a_wrong_command_line_exits_2_and_asks_the_daemon_nothing(
    api: ApiThread, leeward: Leeward, words: tuple[str, ...]
) -> None:
    told = leeward(*words)
    assert (told.status, told.out, told.err.count("\n")) == (2, "", 1)
    assert re.fullmatch(r"error: .+ Run `leeward[a-z ]* --help` to see how it is used\. \[usage\]\n", told.err)
    as_json = leeward(*words, "--json")
    assert (as_json.status, as_json.error["code"]) == (2, "usage")
    assert api.site.submitted == []


def test_a_fault_of_the_daemon_says_what_it_was(api: ApiThread, leeward: Leeward) -> None:
    api.site.broken = ZeroDivisionError("division\nby zero")
    done = leeward("status")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: division by zero" in done.err
    assert "[internal]" in done.err


def test_a_fault_of_the_program_is_one_line_unless_its_trace_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.cli.about.VERSION", object())  # no document can hold it
    assert main(["version", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "internal"
    monkeypatch.setenv("LEEWARD_TRACEBACK", "1")
    with pytest.raises(TypeError):
        main(["version", "--json"])


def test_help_is_for_every_command_and_names_the_common_options(leeward: Leeward) -> None:
    assert "leeward" in leeward("--help").out
    for words in (
        ("sync",),
        ("group", "create"),
        ("snapshot", "delete"),
        ("version",),
        ("serve",),
        ("init",),
        ("demo",),
    ):
        shown = leeward(*words, "--help")
        assert shown.status == 0
        assert "--data" in shown.out
        assert "--json" in shown.out


# --- signals ----------------------------------------------------------------------------------------------------


def test_an_interrupted_wait_leaves_the_operation_running_and_says_so(
    api: ApiThread, with_group: None, leeward: Leeward, start: Callable[..., subprocess.Popen[str]]
) -> None:
    api.hold_syncs()
    waiting = start("sync", "web")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "sync web: sending, 1.0 MiB of 3.0 MiB (33 %, 2.0 MiB/s)\n"
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out) == (1, "")
    assert err == (
        "error: Waiting was interrupted; operation job-5 goes on in the daemon. "
        "Run `leeward jobs job-5` to see how it ends. [wait_interrupted]\n"
    )
    assert leeward("jobs", "job-5", "--json").json["state"] == "running"
    api.let_syncs_go()
    assert leeward("jobs", "job-5", "--wait", "--json").json["state"] == "done"


def test_an_interrupted_wait_names_the_operation_in_json_too(
    api: ApiThread, with_group: None, start: Callable[..., subprocess.Popen[str]]
) -> None:
    api.hold_syncs()
    waiting = start("sync", "web", "--json")
    api.on_loop(api.site.waited_for("job-5"))
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, err) == (1, "")
    assert json.loads(out)["error"]["details"] == {"operation": "job-5"}


def test_a_daemon_that_goes_away_during_a_wait_is_exit_3_with_the_operation(
    api: ApiThread, with_group: None, start: Callable[..., subprocess.Popen[str]]
) -> None:
    api.hold_syncs()
    waiting = start("sync", "web", "--json")
    api.on_loop(api.site.waited_for("job-5"))
    api.stop_serving()
    out, _ = waiting.communicate(timeout=30)
    error = json.loads(out)["error"]
    assert (waiting.returncode, error["code"], error["details"]["operation"]) == (3, "daemon_lost", "job-5")


def test_status_watch_prints_one_document_a_line_until_it_is_interrupted(
    api: ApiThread, with_group: None, start: Callable[..., subprocess.Popen[str]]
) -> None:
    watching = start("status", "--watch", "--json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["groups"][0]["state"] == "unseeded"
    api.on_loop(api.site.event("sync_done", "a point is sealed", "web"))
    assert json.loads(watching.stdout.readline())["site"]["name"] == "harbour"
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, "")


def test_status_watch_ends_with_exit_3_when_the_daemon_does(
    api: ApiThread, start: Callable[..., subprocess.Popen[str]]
) -> None:
    watching = start("status", "--watch", "--json")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["site"]["name"] == "harbour"
    api.stop_serving()
    out, _ = watching.communicate(timeout=30)
    assert watching.returncode == 3
    assert json.loads(out.splitlines()[-1])["error"]["code"] == "daemon_unreachable"


def test_events_are_followed_one_document_a_line(api: ApiThread, start: Callable[..., subprocess.Popen[str]]) -> None:
    api.on_loop(api.site.event("started", "the daemon started"))
    following = start("events", "--follow", "--json")
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["sequence"] == 1
    api.on_loop(api.site.event("sync_done", "a point is sealed", "web"))
    assert json.loads(following.stdout.readline())["message"] == "a point is sealed"
    following.send_signal(signal.SIGINT)
    assert (following.wait(30), following.stderr and following.stderr.read()) == (0, "")


# --- terminals and pipes ----------------------------------------------------------------------------------------


def ask_on_terminal(start: Callable[..., subprocess.Popen[str]], answer: bytes, *words: str) -> tuple[int, str]:
    """Runs a command with a terminal that answers its question; its exit status and standard output."""
    with terminal() as (ours, theirs):
        asking = start(*words, stdin=theirs, stderr=theirs)
        read_until(ours, b"Type its name to go on")
        os.write(ours, answer)
        out, _ = asking.communicate(timeout=30)
        return asking.returncode, out


def test_promote_on_a_terminal_asks_for_the_name_of_the_group(
    with_group: None, leeward: Leeward, start: Callable[..., subprocess.Popen[str]]
) -> None:
    leeward("sync", "web")
    status, out = ask_on_terminal(start, b"web\n", "promote", "web", "--force")
    assert status == 0
    assert out.startswith("Group web is writable here, as of point 1 ")


@pytest.mark.parametrize("answer", [b"wed\n", b"\n", b"y\n", b"\x04"])
def test_any_other_answer_promotes_nothing(
    api: ApiThread, with_group: None, start: Callable[..., subprocess.Popen[str]], answer: bytes
) -> None:
    before = list(api.site.submitted)
    status, out = ask_on_terminal(start, answer, "promote", "web", "--force")
    assert (status, out) == (1, "")
    assert api.site.submitted == before


def test_promote_with_yes_asks_nothing_on_a_terminal(
    with_group: None, leeward: Leeward, start: Callable[..., subprocess.Popen[str]]
) -> None:
    leeward("sync", "web")
    with terminal() as (_, theirs):
        promoting = start("promote", "web", "--force", "--yes", stdin=theirs)
        out, err = promoting.communicate(timeout=30)
    assert (promoting.returncode, err) == (0, "")
    assert "nbd://127.0.0.1:10809/root" in out


def test_a_wait_shows_a_bar_on_a_terminal(
    api: ApiThread, with_group: None, start: Callable[..., subprocess.Popen[str]]
) -> None:
    api.hold_syncs()
    with terminal() as (ours, theirs):
        waiting = start("sync", "web", stderr=theirs)
        shown = read_until(ours, b"1.0 MiB of 3.0 MiB")
        assert b"sync web" in shown
        api.let_syncs_go()
        out, _ = waiting.communicate(timeout=30)
    assert (waiting.returncode, out.startswith("Group web: point 1 ")) == (0, True)


def test_a_reader_that_goes_away_ends_the_program_without_a_word(
    api: ApiThread, start: Callable[..., subprocess.Popen[str]]
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    writing = start("errors", stdout=theirs)
    os.close(theirs)
    _, err = writing.communicate(timeout=30)
    assert (writing.returncode, err) == (1, "")


def test_bash_completes_commands_and_the_names_that_the_daemon_knows(
    with_group: None, program: Path, environment: dict[str, str]
) -> None:
    def complete(*words: str) -> list[str]:
        script = (
            f"source <(leeward completion bash); COMP_WORDS=({shlex.join(words)}); "
            f"COMP_CWORD={len(words) - 1}; _leeward_completion leeward; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        path = f"{program.parent}:{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            env={**environment, "PATH": path},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("leeward", "s") == ["serve", "sync", "snapshot", "set-aside", "status"]
    assert complete("leeward", "group", "show", "w") == ["web"]
    assert complete("leeward", "volume", "remove", "") == ["root", "log"]
    assert "--no-wait" in complete("leeward", "sync", "web", "--")


# --- imports and speed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["version", "status", "sync web", "events --json", "group show web", "errors"])
def test_a_client_command_loads_nothing_of_the_daemon(
    with_group: None, environment: dict[str, str], words: str
) -> None:
    program = (
        "import sys, io; from engine.cli.main import main; sys.stdout = io.StringIO(); "
        f"status = main({words.split()!r}); sys.stdout = sys.__stdout__; "
        f"print(status, *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "0\n"


def test_version_takes_little_more_processor_time_than_its_command_line_library(leeward: Leeward) -> None:
    """A ratio, for machines differ: with asyncio, numpy or the daemon loaded, it would be eight times as much."""

    def spent_s(run: Callable[[], object]) -> float:
        best = 60.0
        for _ in range(5):  # the best of five: what the machine does meanwhile is not the program's
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return best

    library = spent_s(lambda: subprocess.run([sys.executable, "-c", "import click"], check=True))
    assert leeward("version").status == 0
    assert spent_s(lambda: leeward("version")) < 3 * library
