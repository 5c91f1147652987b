"""The command line as people and scripts meet it: each word is taken or refused by name, and each end has its code.

They are called from a folder that isn't the checkout.
"""

from __future__ import annotations

import copy
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.cli import cleaning, ending, inputs, testing
from cornerstone.cli.ending import end
from cornerstone.cli.lint import lint, shell_scripts
from cornerstone.factory.build.build import why
from cornerstone.factory.settings import Workspace, check_settings
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts import site_area
from cornerstone.model.profile.profile import profile_names

IDENTITY = "1c7a3a3e-6d0b-5d0c-9a51-3f2f6a0d8a11"
ROOT = Path(__file__).resolve().parents[2]
MINE = {name: value for name, value in os.environ.items() if not name.startswith("CORNERSTONE_")}
ONE = ROOT / "sites" / "lab-one-node.json"


@pytest.fixture(scope="module")
def tasks():
    """tasks.py as a module."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT))
    import tasks
    # a copy, because a task gives the help for its arguments away once, and others ask for it too
    ns, tasks.ns = tasks.ns, copy.deepcopy(tasks.ns)
    yield tasks
    tasks.ns = ns
    sys.path[:] = before


@pytest.fixture
def call(tasks, tmp_path, monkeypatch, capsys):
    """Calls the command line in this process, which takes milliseconds, from an empty folder."""
    for name in os.environ.keys() - MINE.keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(tasks, "WORKSPACE", Workspace(root))
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            before = sys.dont_write_bytecode
            code = end(lambda: tasks.command_line().perform(["invoke", *words]))
            sys.dont_write_bytecode = before
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)
    return run


def spawn(*words: str, cwd: Path, **more) -> subprocess.CompletedProcess:
    """Calls it as a process of its own."""
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    return subprocess.run([sys.executable, "-P", str(ROOT / "tasks.py"), *words], cwd=cwd, stdin=subprocess.DEVNULL,
                          check=False, timeout=60, **{"env": MINE, **more})


@pytest.fixture
def checkout(tmp_path):
    """A checkout's folders with nothing built in it, and its Workspace."""
    root = tmp_path / "checkout"
    for folder in ("profiles", "versions", "elements", "src", "tests"):
        root.mkdir(exist_ok=True)
        (root / folder).symlink_to(ROOT / folder)
    return Workspace(root)


def require_error(done: subprocess.CompletedProcess[str], code: Code, *said: str) -> None:
    """One error with a hint and this code, that has these words, and no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert re.match(r"error: .*\n(  .*\n)*  hint: .", done.stderr), done.stderr
    assert done.stderr.count("error:") == 1
    for words in said:
        assert words in done.stderr


@pytest.mark.parametrize("words", [
    ["matrix", "--aos", "", "--ahv", ""], ["matrix", "--aos=", "--ahv", "20230302.207"], ["verify", ""],
    ["boot", ""], ["verify", "--iso="], ["build", "--from", ""], ["build", "--profile", ""], ["test", "--tier", ""],
    ["why", ""], ["lock", "--suite", ""], ["customize", "", "--show"], ["customize", "x.iso", "--site", " "],
    ["diff", "aos-6.8", ""], ["plan", "--facts", "", "--site", "x"], ["site.check", ""], ["site.new", ""],
    ["site.new", "x.json", "--dns", ""], ["lab.node", "--machine", ""], ["fetch", "--to", ""], ["bench", "--case", ""],
    ["verify", "--key", "", "x.iso"], ["diff", "a.iso", "b.iso", "--max-growth", ""],
], ids=" ".join)
def test_t1_t3_an_empty_value_is_an_error_by_name(call, words):
    require_error(call(*words), Code.INPUT, " is empty")


@pytest.mark.parametrize("tier", ["data", "machines", "unit,", ",", "../src", "..", "units", "unit/", "Unit"])
def test_t2_what_is_no_tier_is_refused_with_the_list(call, tier):
    require_error(call("test", "--tier", tier), Code.INPUT, "there is no test tier",
                  "unit, build, image, sandbox, boot, node")


@pytest.mark.parametrize(("ended", "code"), [(0, 0), (1, Code.FAILED), (2, Code.FAILED)])
def test_t2_pytest_s_codes_become_ours(ended, code):
    assert testing.judge(ended) == code


@pytest.mark.parametrize(("ended", "code"), [(3, Code.STEP), (4, Code.INPUT), (5, Code.INPUT), (-9, Code.STEP)])
def test_t2_tests_that_did_not_run_are_an_error(ended, code):
    with pytest.raises(CornerstoneError) as caught:
        testing.judge(ended)
    assert caught.value.code == code


@pytest.mark.parametrize(("name", "value"), [
    ("CORNERSTONE_LAYERS_GIB", "abc"), ("CORNERSTONE_LAYERS_GIB", "9" * 5000), ("CORNERSTONE_MIRROR", "my mirror"),
    ("CORNERSTONE_SECURITY_MIRROR", "mirror/debian-security"), ("CORNERSTONE_SNAPSHOT_MIRROR", "http://host/"),
    ("CORNERSTONE_CACHE", "/dev/null"), ("CORNERSTONE_CACHE", "/dev/null/x"),
])
@pytest.mark.parametrize("words", [["build"], ["why"], ["matrix"]], ids=" ".join)
def test_t4_settings_are_checked_before_the_first_step(call, words, name, value):
    require_error(call(*words, **{name: value}), Code.INPUT, name)


def test_t4_an_empty_setting_is_the_default(monkeypatch, tmp_path):
    for name in ("LAYERS_GIB", "MIRROR", "SECURITY_MIRROR", "SNAPSHOT_MIRROR", "CACHE", "SIGNING_KEY"):
        monkeypatch.setenv(f"CORNERSTONE_{name}", "")
    check_settings(Workspace(tmp_path))
    assert Workspace(tmp_path).layers_limit == 20 << 30
    assert Workspace(tmp_path).cache == tmp_path / "output" / "cache"


@pytest.mark.parametrize("words", [["--dry", "clean"], ["clean", "--dry"], ["-R", "clean"], ["clean", "-R"],
                                   ["--dry", "customize", "x.iso", "--show"], ["--echo", "clean"], ["-w", "clean"],
                                   ["--pty", "clean"], ["--hide", "both", "clean"], ["--config", "x", "clean"],
                                   ["-T", "3", "clean"], ["--no-dedupe", "clean"]], ids=" ".join)
def test_t5_what_no_task_honours_is_refused(call, checkout, words):
    made = checkout.output / "aos-6.8" / "x.iso"
    made.parent.mkdir(parents=True)
    made.touch()
    require_error(call(*words, root=checkout.root), Code.INPUT)
    assert made.is_file()


def test_t5_clean_names_what_is_gone(call, checkout):
    for name in ("aos-6.8/x.iso", "cache/pool/x", "README.md"):
        (checkout.output / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout.output / name).touch()
    assert call("clean", root=checkout.root).stdout == f"removed {checkout.output / 'aos-6.8'}\n"


def test_t6_nothing_asked_lists_the_tasks(call):
    done = call()
    assert done.returncode == 0
    assert re.search(r"^  site\.check ", done.stdout, re.M) and "--list-depth" not in done.stdout


@pytest.mark.parametrize("words", [["site"], ["lab"], ["site", "check", "x"], ["lab", "node"]], ids=" ".join)
def test_t6_a_collection_is_no_task(call, words):
    require_error(call(*words), Code.INPUT, f"{words[0]}.")


@pytest.mark.parametrize("name", ["site", "lab", "check", "lint", "help"])
def test_t6_a_file_may_have_any_name(call, tmp_path, name):
    shutil.copy(ONE, tmp_path / name)
    done = call("site.check", name)
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, f"{name} is valid")


def test_site_check_tells_the_room_that_a_site_takes(call):
    done = call("site.check", str(ONE))
    took, room = map(int, re.search(r"^  (\d+) of (\d+) bytes of an ISO's site area$", done.stdout, re.M).groups())
    assert room == site_area.ROOM and 100 < took < room
    (record,) = json.loads(call("site.check", str(ONE), "--format", "json").stdout)["files"]
    assert (record["size"], record["room"]) == (took, room)


@pytest.mark.parametrize("words", [["site", "--help"], ["--help", "site"], ["help", "site"], ["site", "-h"]],
                         ids=" ".join)
def test_t7_help_for_a_collection_lists_its_tasks(call, words):
    done = call(*words)
    assert done.returncode == 0 and ".check" in done.stdout and "build" not in done.stdout


@pytest.mark.parametrize("task", ["verify", "diff", "site.check", "site.new", "plan", "customize", "lab.node", "test"])
def test_t7_help_of_a_task_runs_nothing(call, task):
    texts = {call(*words).stdout for words in ([task, "--help"], ["--help", task], ["help", task], [task, "-h"])}
    assert len(texts) == 1 and f"] {task} [" in texts.pop()


@pytest.mark.parametrize(("task", "said"), [("verify", "public key"), ("lab.node", "a shape in"),
                                            ("lab.cluster", "a shape in"), ("site.new", "name of the cluster")])
def test_t7_help_of_a_task_explains_its_flags(tmp_path, task, said):
    assert said in " ".join(spawn(task, "--help", cwd=tmp_path).stdout.split())


def test_t7_help_and_version_are_the_project_s(call):
    assert "site.check" in call("help").stdout == call("--help").stdout
    done = call("--version")
    assert re.fullmatch(r"Cornerstone [0-9.]+ \(commit ([0-9a-f]{12}( with changes)?|unknown: .*)\)\n", done.stdout)


@pytest.mark.parametrize(("words", "said"), [
    (["matrix", "--aos", "6.8", "--ahvv", "20230302.207"], "did you mean --ahv?"), (["matrx"], "did you mean matrix?"),
    (["diff", "aos-6.8"], "diff: b is missing"), (["plan"], "is"), (["verify", "a.iso", "b.iso"], "'b.iso'"),
    (["sitecheck", "x"], "did you mean site.check?"), (["build", "--prfile", "x"], "did you mean --profile?"),
    (["lint", "x"], "'x'"), (["boot", "--memory", "abc"], "--memory is 'abc', not a whole number"),
    (["boot", "--memory=4G"], "--memory"), (["bench", "--rounds", "1.5"], "--rounds"),
    (["bench", "--rounds", "٣"], "٣"),
    (["verify", "--iso"], "--iso needs a value"), (["verify", "--iso", "--key", "x"], "--iso needs a value"),
    (["build", "--keep=yes"], "--keep takes no value"), (["--list-format", "x", "--list"], "--list-format"),
    (["--list", "nothing"], "nothing"), (["--list-depth", "x", "--list"], "--list-depth"),
    (["--print-completion-script", "csh"], "csh"), (["help", "nothing"], "nothing"),
    (["verify", "--format", "xml", "x.iso"], ""), (["why", "--format", "xml"], "--format 'xml'"),
    (["--", "x"], None),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_t8_words_that_are_wrong_end_with_2_and_a_suggestion(call, words, said):
    if said is None:
        assert call(*words).returncode == 0
        return
    require_error(call(*words), Code.INPUT, said)


def git_folder(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet", folder], check=True)


@pytest.mark.parametrize("case", ["outside git", "no git", "another's"])
def test_t9_lint_says_what_git_can_not(tmp_path, monkeypatch, case):
    if case == "another's":
        git_folder(tmp_path)
        (tmp_path / "x").write_text("#!/bin/sh\n")
        for path in (tmp_path, tmp_path / ".git"):
            os.chown(path, 12345, 12345)
        assert shell_scripts(tmp_path) == ["x"]
        return
    if case == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CornerstoneError) as caught:
        lint(Workspace(tmp_path))
    assert caught.value.code == Code.MACHINE and "git" in caught.value.message


def test_t9_clean_takes_a_link_and_leaves_what_it_points_to(checkout, tmp_path):
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    (kept / "x").touch()
    checkout.output.mkdir()
    (checkout.output / "link").symlink_to(kept)
    (checkout.output / "dangling").symlink_to("nowhere")
    assert len(list(cleaning.clean(checkout, False))) == 2
    assert (kept / "x").is_file() and list(checkout.output.iterdir()) == []


@pytest.mark.parametrize(("error", "code"), [
    (PermissionError(13, "Permission denied", "/x"), Code.MACHINE), (OSError(30, "Read-only"), Code.MACHINE),
    (FileNotFoundError(2, "No such file", "/x"), Code.INPUT), (OSError(28, "No space left"), Code.MACHINE),
    (IsADirectoryError(21, "Is a directory", b"/x"), Code.INPUT), (OSError(5, "Input/output error"), Code.MACHINE),
    (OSError("no number"), Code.MACHINE), (BrokenPipeError(32, "Broken pipe"), Code.MACHINE),
    (EOFError(), Code.INTERRUPTED), (MemoryError(), Code.MACHINE), (KeyError("x"), Code.DEFECT),
])
def test_t9_every_end_has_its_code(capsys, error, code):
    def body():
        raise error
    assert end(body) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == Code.DEFECT)


@pytest.mark.parametrize("cache", ["/proc", "/proc/x"])
def test_t9_a_cache_that_can_not_be_written_is_one_error(call, cache):
    require_error(call("diff", str(ONE), str(ONE), CORNERSTONE_CACHE=cache), Code.INPUT)
    done = call("why", CORNERSTONE_CACHE=cache)
    assert done.returncode in (0, Code.INPUT, Code.MACHINE) and "Traceback" not in done.stderr


def test_t9_the_end_of_the_answers_is_130(tmp_path):
    asker, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, "-P", str(ROOT / "tasks.py"), "site.new", "x.json"], cwd=tmp_path, env=MINE,
                          stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        os.close(terminal)
        os.write(asker, b"\x04")
        _, said = running.communicate(timeout=60)
    os.close(asker)
    assert running.returncode == 130 and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["site.check", str(ONE)], ["--list"], ["matrix"], ["profiles"], ["--help"]],
                         ids=lambda words: words[0])
def test_t10_a_pipe_that_nobody_reads_ends_quietly(tmp_path, words):
    reader, writer = os.pipe()
    os.close(reader)
    done = spawn(*words, cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_t10_another_broken_pipe_is_an_error_of_the_machine(capsys):
    def body():
        raise BrokenPipeError(32, "Broken pipe")
    assert end(body) == Code.MACHINE
    assert capsys.readouterr().err.startswith("error: Broken pipe")


@pytest.mark.parametrize("environment", [MINE, {"PATH": os.environ["PATH"]}], ids=["mine", "empty"])
@pytest.mark.parametrize("words", [["matrix"], ["matrix", "--aos", "6.8", "--ahv", "20201105.2096"]],
                         ids=["passes", "refuses"])
def test_t10_a_full_device_is_said(tmp_path, words, environment):
    with Path("/dev/full").open("w") as full:
        done = spawn(*words, cwd=tmp_path, stdout=full, env=environment)
    assert done.returncode == Code.MACHINE and "error: the disk is full" in done.stderr, done


def test_t10_a_full_standard_error_keeps_the_exit_code(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = spawn("matrix", "--format", "nonsense", cwd=tmp_path, stderr=full)
    assert done.returncode == Code.INPUT, done


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(("words", "code"), [(["profiles"], 0), (["help", "lab.node"], 0),
                                             (["site.check", "sité✓.json"], Code.INPUT)])
def test_t11_an_output_that_is_not_utf_8_changes_no_exit_code(tmp_path, words, code, encoding):
    done = spawn(*words, cwd=tmp_path, text=False, env={**MINE, "PYTHONIOENCODING": encoding})
    assert done.returncode == code and b"Traceback" not in done.stderr


def test_t11_the_marks_of_lint_and_verify_are_replaced(tmp_path):
    program = ("import sys\nfrom cornerstone.cli.ending import end\n"
               "sys.exit(end(lambda: print('✓ ruff', file=sys.stdout)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False,
                          env={**MINE, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, b"? ruff\n"), done.stderr


@pytest.mark.parametrize("suite", ["nosuch", "../../../x", "sid", "trixie-updates", "Trixie"])
def test_t12_a_suite_that_is_none_is_refused_without_a_network(call, suite):
    require_error(call("lock", "--suite", suite, CORNERSTONE_MIRROR="http://127.0.0.1:9/debian"), Code.INPUT,
                  "the suites are bookworm, trixie")


@pytest.mark.parametrize("task", ["verify", "boot", "customize", "diff"])
def test_t13_the_hint_names_the_profile_that_was_asked_for(call, checkout, task):
    words = {"verify": [], "boot": [], "customize": ["--show"], "diff": ["aos-6.8"]}[task]
    require_error(call(task, "aos-6.7", *words, root=checkout.root), Code.INPUT, "isn't there",
                  "./invoke build --profile aos-6.7")


@pytest.mark.parametrize("task", ["verify", "boot", "customize"])
def test_t13_what_is_no_file_is_called_what_it_is(call, tmp_path, task):
    (tmp_path / "folder.iso").mkdir()
    os.mkfifo(tmp_path / "pipe.iso")
    more = ["--show"] if task == "customize" else []
    require_error(call(task, "folder.iso", *more), Code.INPUT, "folder.iso is a folder")
    require_error(call(task, "pipe.iso", *more), Code.INPUT, "pipe.iso is a FIFO")
    require_error(call(task, "/dev/null", *more), Code.INPUT, "/dev/null is a device")


def test_t15_relative_paths_are_the_caller_s(call, tmp_path):
    (tmp_path / "dup.json").write_text("{}")
    assert "dup.json: " in call("site.check", "dup.json").stderr
    shutil.copy(ONE, tmp_path / "dup.json")
    assert call("site.check", "dup.json").stdout.startswith("dup.json is valid")
    done = call("site.new", "new.json", "--cluster", "lab", "--gateway", "10.20.0.1/24", "--hypervisors", "10.20.0.11",
                "--cvms", "10.20.0.21", "--serials", "S1")
    assert done.returncode == 0 and (tmp_path / "new.json").is_file(), done.stderr
    (tmp_path / "mine.yaml").write_text('extends: base\naos: "6.8"\nahv: "20230302.100173"\n')
    require_error(call("verify", "mine.yaml"), Code.INPUT, f"{ROOT}/output/mine/foundation-mine.iso isn't there")
    require_error(call("customize", "dup.iso", "--show"), Code.INPUT, "dup.iso isn't there")
    require_error(call("fetch", "--profile", "other.yaml"), Code.INPUT, "there is no profile file other.yaml")


def test_t15_settings_that_are_paths_are_the_caller_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORNERSTONE_CACHE", "cache")
    monkeypatch.setenv("CORNERSTONE_SIGNING_KEY", "pkcs11:token=x")
    check_settings(Workspace(ROOT))
    assert os.environ["CORNERSTONE_CACHE"] == f"{tmp_path}/cache"
    assert os.environ["CORNERSTONE_SIGNING_KEY"] == "pkcs11:token=x"


def test_t18_why_writes_nothing_and_needs_the_public_half_alone(checkout, monkeypatch):
    from cornerstone.factory.signing.signing import signing_key
    from cornerstone.model.profile.profile import load_profile
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    profile = load_profile("aos-6.8", checkout.root)
    assert why(checkout, profile)[-1][1:] == (False, ["never built"])
    assert not checkout.output.exists()
    key = signing_key(checkout.cache)
    private = checkout.cache / "keys" / "development.pem"
    with_both = why(checkout, profile)
    private.unlink()
    private.touch()  # no key at all, as for somebody who may not read it
    assert why(checkout, profile) == with_both
    public = checkout.cache / "development.pub"
    assert public.read_bytes() == key.public_pem() and public.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("task", ["verify", "boot"])
def test_t51_a_profile_is_named_by_position_or_flag(call, checkout, task):
    def error(*words: str) -> str:
        done = call(task, *words, root=checkout.root)
        require_error(done, Code.INPUT)
        return done.stderr
    path = str(ROOT / "profiles" / "aos-6.7.yaml")
    ways = [["aos-6.7"], ["--iso", "aos-6.7"], ["--profile", "aos-6.7"], ["--profile=aos-6.7"]]
    assert len({error(*way) for way in ways}) == 1
    assert error(path).partition("\n")[0] == error("aos-6.7").partition("\n")[0]
    assert "is named twice" in error("aos-6.7", "--profile", "aos-6.8")


@pytest.mark.parametrize("task", ["build", "why", "reproduce", "fetch"])
def test_t51_the_profile_of_every_task_may_stand_by_position(call, task):
    assert call(task, "nope").stderr == call(task, "--profile", "nope").stderr
    require_error(call(task, "nope"), Code.INPUT, "there is no profile 'nope'")


def test_t51_a_file_is_taken_where_no_profile_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stick").touch()
    Path("aos-6.8").touch()
    assert inputs.find_iso(Workspace(ROOT), "stick") == Path("stick")
    assert inputs.find_iso(Workspace(ROOT), "./aos-6.8") == Path("aos-6.8")


def test_t51_plan_reads_its_files_first_and_needs_no_iso(call, checkout):
    require_error(call("plan", "--facts", "no.json", "--site", str(ONE)), Code.INPUT, "no.json")
    require_error(call("plan", "no.json", str(ONE)), Code.INPUT, "no.json")
    facts = str(ROOT / "tests" / "machines" / "qemu-three-tiers.json")
    done = call("plan", "--facts", facts, "--site", str(ONE), root=checkout.root)
    assert done.returncode == Code.REFUSED and "no node of the site matches" in done.stderr


def test_t54_profiles_lists_what_can_be_cut(call):
    done = call("profiles", "--format", "json")
    listed = json.loads(done.stdout)["profiles"]
    assert done.returncode == 0
    assert [each["name"] for each in listed] == profile_names(ROOT)
    assert {"name", "verdict", "aos", "ahv", "suite", "iso", "findings"} <= listed[0].keys()
    text = call("profiles").stdout
    assert [each["name"] for each in listed if not re.search(rf"^{each['name']} ", text, re.M)] == []


def test_t54_a_profile_that_can_not_be_read_is_listed_as_malformed(call, checkout):
    (checkout.root / "profiles").unlink()
    shutil.copytree(ROOT / "profiles", checkout.root / "profiles")
    (checkout.root / "profiles" / "aos-9.9.yaml").write_text("aos: [\n")
    done = call("profiles", "--format", "json", root=checkout.root)
    found = {each["name"]: each["verdict"] for each in json.loads(done.stdout)["profiles"]}
    assert done.returncode == Code.FAILED and found["aos-9.9"] == "malformed" and found["aos-7.6"] == "ok"


def test_t54_checks_can_be_read_by_programs(call, tmp_path):
    (tmp_path / "bad.json").write_text('{"wifi": 1}')
    done = call("site.check", str(ONE), "bad.json", "no.json", "--format", "json")
    good, bad, absent = json.loads(done.stdout)["files"]
    assert done.returncode == Code.INPUT
    assert (good["valid"], bad["valid"], absent["valid"]) == (True, False, False)
    assert bad["problems"][0]["problem"] == ".wifi: unknown key" and "can't be read" in absent["problems"][0]["problem"]
    assert json.loads(call("why", "--format", "json").stdout)["layers"]


def test_t54_completion_knows_tasks_and_flags(call, tmp_path):
    script = call("--print-completion-script", "bash").stdout
    script = script.replace(f"`{ROOT}/invoke --complete", f"`{sys.executable} -P {ROOT}/tasks.py --complete")

    def complete(line: str) -> set[str]:
        words = line.split(" ")
        program = (f"{script}\nCOMP_WORDS=({' '.join(words)})\n"
                   f"$(complete -p ./invoke | sed 's/.*-F \\([^ ]*\\).*/\\1/') ./invoke '{words[-1]}'\n"
                   "printf '%s\\n' \"${COMPREPLY[@]}\"")
        return set(subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True,
                                  env=MINE).stdout.split())
    assert complete("./invoke site.") == {"site.check", "site.new"}
    assert complete("./invoke verify --f") == {"--format"}
    assert complete("./invoke mat") == {"matrix"}


def test_t57_several_site_files_are_checked_at_once(call):
    files = sorted(str(path) for path in (ROOT / "sites").glob("*.json") if path.name != "schema.json")
    done = call("site.check", *files)
    assert done.returncode == 0 and done.stdout.count(" is valid\n") == len(files) > 3


def test_t57_what_is_shipped_can_be_tried_as_the_readme_says(call):
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("./invoke plan "))
    words = [str(ROOT / word) if "/" in word else word for word in line.split()[1:]]
    done = call(*words)
    assert done.returncode == 0, done.stderr
    assert "Refused" not in done.stdout and "Boot disk" in done.stdout
    assert json.loads(call(*words, "--format", "json").stdout)["refused"] is False


def test_t55_the_schemas_are_written_beside_and_renamed(checkout):
    from cornerstone.cli.schemas import texts, write_schemas
    for folder in ("profiles", "sites", "docs"):
        (checkout.root / folder).unlink(missing_ok=True)
        shutil.copytree(ROOT / folder, checkout.root / folder)
    assert write_schemas(checkout) == []
    (checkout.root / "profiles" / "schema.json").write_text("")
    assert write_schemas(checkout) == [checkout.root / "profiles" / "schema.json"]
    assert (checkout.root / "profiles" / "schema.json").read_text() == texts(ROOT)["profiles/schema.json"]
    assert [path.name for path in (checkout.root / "profiles").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("page", ["docs/profiles.md", "docs/catalogue.md", "README.md"])
def test_t55_no_page_calls_a_python_that_a_fresh_machine_lacks(page):
    assert not re.search(r"(?m)^(\S+=\S+ )?python3? ", (ROOT / page).read_text())


def fake_build(monkeypatch, ends: dict[str, Exception | None]) -> None:
    from cornerstone.cli import building

    def build(workspace, profile, listener, keep, carried):
        if error := ends.get(profile.name):
            raise error
        iso = workspace.output / profile.name / f"foundation-{profile.name}.iso"
        iso.parent.mkdir(parents=True, exist_ok=True)
        iso.with_name("manifest.json").write_bytes(
            building.Manifest(IDENTITY, profile.resolved(), "development", 0, (), 0).to_bytes())
        return iso
    monkeypatch.setattr(building, "build", build)


def test_several_profiles_are_built_and_one_that_fails_hides_no_other(call, checkout, monkeypatch):
    fake_build(monkeypatch, {"aos-6.8": CornerstoneError("no mirror", "wait", Code.NETWORK),
                             "aos-7.0": CornerstoneError("no space", "make room", Code.MACHINE)})
    done = call("build", "--profile", "aos-6.8,aos-6.10,aos-7.0", root=checkout.root)
    assert done.returncode == Code.NETWORK, "the worst of all"
    assert done.stdout == f"{checkout.output}/aos-6.10/foundation-aos-6.10.iso\n"
    last = [line.split() for line in done.stderr.splitlines()[-4:]]
    assert [line[:2] for line in last[1:]] == [["aos-6.8", "failed"], ["aos-6.10", "built"], ["aos-7.0", "failed"]]


def test_all_profiles_are_built(call, checkout, monkeypatch):
    fake_build(monkeypatch, {})
    done = call("build", "--profile", "all", root=checkout.root)
    assert done.returncode == 0
    assert [Path(line).parent.name for line in done.stdout.splitlines()] == profile_names(ROOT)


@pytest.mark.parametrize("names", ["aos-6.8,", ",", "aos-6.8,nope", "all,aos-6.8"])
def test_a_wrong_name_among_several_is_told_before_anything_is_built(call, checkout, monkeypatch, names):
    fake_build(monkeypatch, {})
    require_error(call("build", "--profile", names, root=checkout.root), Code.INPUT)
    assert not checkout.output.exists()


def test_sigterm_has_its_old_handler_back():
    before = signal.getsignal(signal.SIGTERM)
    end(lambda: None)
    assert signal.getsignal(signal.SIGTERM) is before
    assert ending.PIPE_ENDED == 141
