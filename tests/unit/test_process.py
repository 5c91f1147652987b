"""Steps as processes: their log, their errors, and that they end with their whole family."""

from __future__ import annotations

import ast
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cornerstone.factory.signing.signing import SECRETS, for_a_build
from cornerstone.factory.verify import boot_checks
from cornerstone.lib import filelock, process
from cornerstone.lib.error import Code, CornerstoneError

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 1)


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "logs" / "step.log"


def until(condition, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    return value


def text_of(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_log_has_command_output_and_status(log):
    process.run(["sh", "-c", "echo out; echo err >&2"], log=log, env={"X": "a b"})
    assert log.read_text() == "+ env 'X=a b' sh -c 'echo out; echo err >&2'\nout\nerr\n= exit status 0\n"
    process.run(["true"], log=log)
    assert log.read_text().endswith("= exit status 0\n+ true\n= exit status 0\n")


def test_environment_folder_and_input(log, tmp_path, monkeypatch):
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("https_proxy", "kept")
    process.run(["sh", "-c", 'echo "$INHERITED,$https_proxy $ADDED $(pwd)"; cat'], log=log, env={"ADDED": "too"},
                cwd=tmp_path, stdin=b"given\n")
    assert f",kept too {tmp_path}\ngiven\n" in log.read_text()


def test_a9_no_tool_sees_a_key_a_pin_or_whatever_else_is_secret(log, monkeypatch):
    for name in (*SECRETS, "GITHUB_TOKEN", "LD_PRELOAD", "GIT_DIR"):
        monkeypatch.setenv(name, "" if name == "LD_PRELOAD" else "SECRET")
    process.run(["env"], log=log)
    with process.start(["env"], stdout=subprocess.PIPE) as child:
        said, _ = child.communicate()
    for text in (log.read_text(), process.read(["env"]), said.decode(), boot_checks.tool("env").text):
        assert "PATH=" in text
        assert "SECRET" not in text
        assert "LD_PRELOAD" not in text


def test_a9_what_a_build_of_our_own_needs_is_told_nowhere(log, monkeypatch):
    """`reproduce` builds again in a process of its own, with the same key."""
    monkeypatch.setenv(SECRETS[0], "SECRET")
    with pytest.raises(CornerstoneError) as caught:
        process.run(["sh", "-c", f'[ "${SECRETS[0]}" = "$SHOWN" ]; exit 7'], log=log, private=for_a_build(),
                    env={"SHOWN": "x"})
    assert "SECRET" not in f"{log.read_text()} {caught.value}".replace("$CORNERSTONE_SIGNING_KEY_PEM", "")


STARTS = {"run", "Popen", "call", "check_call", "check_output"}


@pytest.mark.parametrize("path", sorted((SRC / "cornerstone/factory").rglob("*.py")), ids=lambda path: path.name)
def test_a9_each_program_of_the_factory_is_started_in_the_tools_environment(path):
    """By process.run, call, read or start, or with an environment that process.environment made."""
    module = ast.parse(path.read_text())
    made = {target.id for node in ast.walk(module) if isinstance(node, ast.Assign)
            and "environment" in ast.dump(node.value) and "process" in f"{path.stem} {ast.dump(node.value)}"
            for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in STARTS \
                and ast.unparse(node.func.value) == "subprocess":
            env = next((word.value for word in node.keywords if word.arg == "env"), None)
            assert env is not None and (ast.unparse(env) in made or "environment(" in ast.unparse(env)), \
                f"{path.name}:{node.lineno}"
        assert not (isinstance(node, ast.ImportFrom) and node.module in ("cornerstone.lib", "cornerstone.lib.command")
                    and {"command", "run", "read"} & {name.name for name in node.names}), f"{path.name}:{node.lineno}"
        assert not (isinstance(node, ast.Attribute) and node.attr in ("system", "popen", "execve", "execv")
                    and ast.unparse(node.value) == "os"), f"{path.name}:{node.lineno}"


def test_without_input_it_reads_nothing(log):
    process.run(["cat"], log=log)


def test_failure_names_log_last_lines_and_command(log):
    with pytest.raises(CornerstoneError) as caught:
        process.run(["sh", "-c", "for n in $(seq 40); do echo line $n; done; echo; exit 7"], log=log, env={"A": "b c"})
    error = caught.value
    lines = error.message.splitlines()
    assert lines[0] == "sh failed with exit status 7; its last lines:"
    assert lines[1:-1] == [f"    line {n}" for n in range(26, 41)]
    assert lines[-1] == f"  whole log: {log}"
    assert error.code is Code.STEP
    assert error.hint.startswith("run it by hand: env 'A=b c' sh -c ")


def test_command_by_hand_does_the_same(log, tmp_path):
    with pytest.raises(CornerstoneError) as caught:
        process.run(["sh", "-c", 'echo "$A" >"$1"; exit 3', "-", tmp_path / "it's a file"], log=log,
                    env={"A": "$b 'c'"})
    command = caught.value.hint.removeprefix("run it by hand: ")
    (tmp_path / "it's a file").unlink()
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 3
    assert (tmp_path / "it's a file").read_text() == "$b 'c'\n"
    assert shlex.split(command)[:2] == ["env", "A=$b 'c'"]


def test_killed_by_a_signal(log):
    with pytest.raises(CornerstoneError, match="exit status -9"):
        process.run(["sh", "-c", "kill -9 $$"], log=log)


def test_last_lines_of_binary_output(log):
    with pytest.raises(CornerstoneError) as caught:
        process.run(["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; printf '\\ncaf\\351\\n'; exit 1"], log=log)
    assert caught.value.message.splitlines()[1:-1] == ["    " + "x" * 300, "    caf\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("call", [lambda log: process.run(["no-such-tool", "x"], log=log),
                                  lambda log: process.read(["no-such-tool", "x"])], ids=["run", "read"])
def test_missing_tool(log, call):
    with pytest.raises(CornerstoneError) as caught:
        call(log)
    assert caught.value.message == "no-such-tool is not installed"
    assert "./invoke" in caught.value.hint
    assert caught.value.code is Code.MACHINE


def test_read():
    assert process.read(["sh", "-c", "echo $A; echo noise >&2"], env={"A": "value"}) == "value\n"
    with pytest.raises(CornerstoneError) as caught:
        process.read(["sh", "-c", "echo what went wrong >&2; exit 4"])
    assert caught.value.message == "sh failed with exit status 4: what went wrong"
    assert caught.value.code is Code.STEP


# endings

# the trap is set before the id is there to be read
FAMILY = 'trap "echo cleaned >$1.cleaned; exit 0" TERM; sleep 300 & echo $! >"$1"; wait'
STUBBORN = ('trap "echo cleaned >$1.cleaned; exit 0" TERM; '
            '(trap "" TERM; sh -c "echo \\$\\$ >$1; exec sleep 300") & wait')


def run_in_another_python(script: str, pid_file: Path, log: Path) -> subprocess.Popen:
    code = ("import sys; from pathlib import Path; from cornerstone.lib import process; process.GRACE_SECONDS = 3; "
            "process.run(['sh', '-c', *sys.argv[2:]], log=Path(sys.argv[1]))")
    return subprocess.Popen([sys.executable, "-c", code, log, script, "-", pid_file], stderr=subprocess.DEVNULL,
                            env={**os.environ, "PYTHONPATH": str(SRC)})


@pytest.mark.parametrize("script", [
    pytest.param(FAMILY, id="family"),
    pytest.param(STUBBORN, id="stubborn"),
])
def test_interrupt_ends_the_whole_family(tmp_path, log, script):
    running = run_in_another_python(script, tmp_path / "pid", log)
    grandchild = int(until(lambda: text_of(tmp_path / "pid")))
    # it has started the tool and waits for it: from here on an interrupt is ours to handle
    until(lambda: text_of(Path(f"/proc/{running.pid}/wchan")) == "do_wait")
    try:
        assert alive(grandchild)
        running.send_signal(signal.SIGINT)
        assert running.wait(10) != 0
        assert text_of(tmp_path / "pid.cleaned") == "cleaned", "it could clean up"
        until(lambda: not alive(grandchild), 2)
    finally:
        if alive(grandchild):
            os.kill(grandchild, signal.SIGKILL)


@pytest.mark.parametrize("guarded", [False, True], ids=["no lock", "lock"])
def test_killed_outright_the_tool_ends_too_and_a_lock_waits_for_it(tmp_path, log, guarded):
    """SIGKILL to us alone, as by the kernel when memory is short: nothing of ours gets to run."""
    lock = tmp_path / "a.lock"
    code = ("import sys; from pathlib import Path; from cornerstone.lib import filelock, process\n"
            "held = filelock.try_hold(Path(sys.argv[1]))\n"
            f"{'process.guards.add(held.fd)' if guarded else ''}\n"
            "process.run(['sh', '-c', 'exec 1>&- 2>&-; echo $$ >\"$1\"; exec sleep 300', '-', sys.argv[2]], "
            "log=Path(sys.argv[3]))")
    running = subprocess.Popen([sys.executable, "-c", code, lock, tmp_path / "pid", log],
                               env={**os.environ, "PYTHONPATH": str(SRC)})
    pid = until(lambda: text_of(tmp_path / "pid"))
    tool = os.pidfd_open(int(pid))
    assert any(fd.resolve() == lock for fd in Path(f"/proc/{pid}/fd").iterdir()) == guarded
    running.kill()
    running.wait()
    assert select.select([tool], [], [], 10)[0], "it has ended"
    os.close(tool)
    filelock.try_hold(lock).release()


def test_disk_full_is_said_as_such(log):
    with pytest.raises(CornerstoneError, match="^the disk is full: dd failed with exit status 1") as caught:
        process.run(["dd", "if=/dev/zero", "of=/dev/full", "count=1"], log=log)
    assert caught.value.code is Code.MACHINE
    assert "CORNERSTONE_CACHE" in caught.value.hint


def test_who_ignores_the_request_is_killed(tmp_path, log):
    running = run_in_another_python('trap "" TERM; echo $$ >"$1"; while :; do sleep 1; done', tmp_path / "pid", log)
    child = int(until(lambda: text_of(tmp_path / "pid")))
    running.send_signal(signal.SIGINT)
    assert running.wait(10) != 0
    until(lambda: not alive(child))


def test_end_all_from_another_thread(tmp_path, log):
    """What a build does when one of two steps fails: the other ends, and says that it wasn't its own fault."""
    caught = []

    def step() -> None:
        try:
            process.run(["sh", "-c", FAMILY, "-", tmp_path / "pid"], log=log)
        except CornerstoneError as error:
            caught.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    grandchild = int(until(lambda: text_of(tmp_path / "pid")))
    with process.ending_together():
        process.end_all()
        thread.join(10)
    until(lambda: not alive(grandchild))
    assert [error.message for error in caught] == ["ended, because another step failed or the build was interrupted"]
    assert log.read_text().endswith("= exit status 0\n"), "although it ended well by its own account"


def test_end_all_with_nothing_running(log):
    with process.ending_together():
        process.end_all()
        with pytest.raises(CornerstoneError, match="not started"):
            process.run(["true"], log=log)
    process.run(["true"], log=log)


def test_tail_keeps_what_tells(tmp_path):
    log = tmp_path / "log"
    log.write_text("one\n\n   \n" + "x" * 400 + "\ntwo\n= exit status 1\n")
    assert process.tail(log).splitlines() == ["    one", "    " + "x" * 300, "    two"]
    assert process.tail(log, 1) == "    two"


@pytest.mark.parametrize("language", ["de_DE.UTF-8", "ja_JP.eucJP", "POSIX", "no such thing"])
def test_tools_run_in_one_environment_whatever_the_desk_has_m39(tmp_path, log, monkeypatch, language):
    for name in ("LC_ALL", "LANG", "LANGUAGE"):
        monkeypatch.setenv(name, language)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before = os.umask(0o077)
    try:
        script = 'echo "$LC_ALL,$LANG,$LANGUAGE,$TZ,$(umask)"'
        process.run(["sh", "-c", script], log=log)
        assert "\nC.UTF-8,C.UTF-8,,UTC,0022\n" in log.read_text()
        assert process.read(["sh", "-c", script]) == "C.UTF-8,C.UTF-8,,UTC,0022\n"
        with pytest.raises(CornerstoneError, match="^the disk is full") as caught:
            # a tool that speaks the language which it is told
            process.run(["sh", "-c", '[ "$LC_ALL" = C.UTF-8 ] && echo No space left on device || echo Voll; exit 1'],
                        log=log)
        assert caught.value.code is Code.MACHINE
    finally:
        os.umask(before)


def test_what_a_tool_says_may_be_any_bytes_m39():
    assert process.read(["printf", r"M\374ller"]) == "M\ufffdller"
