"""`invoke customize` on a small ISO made by the real mastering: only the area changes, and it changes back."""

import contextlib
import hashlib
import json
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cornerstone.customize import customize
from cornerstone.customize.iso_area import is_customised
from cornerstone.customize.iso_image import SYSTEM_AREA, Image
from cornerstone.factory.build import build as build_module
from cornerstone.factory.build import reproduce
from cornerstone.factory.diff import diff_isos
from cornerstone.factory.iso.iso_checks import Subject, run_checks
from cornerstone.factory.settings import Workspace
from cornerstone.factory.verify import verify
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.boot_area import BootSettings
from cornerstone.model.contracts.manifest import BOOT_AREA, SITE_AREA
from cornerstone.model.contracts.site_area import pack, unpack
from cornerstone.model.site.file import read_site
from small_iso import KEY, Workshop

ROOT = Path(__file__).resolve().parents[2]
ONE = ROOT / "sites" / "lab-one-node.json"
THREE = ROOT / "sites" / "lab-three-nodes.json"
SECTOR = 512


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    return Workshop(tmp_path_factory.mktemp("workshop")).master().read_bytes()


@pytest.fixture
def iso(good, tmp_path) -> Path:
    path = tmp_path / "tiny.iso"
    path.write_bytes(good)
    return path


def place(path: Path):
    with contextlib.closing(Image(path)) as image:
        return image.place(SITE_AREA)


def wrong(path: Path) -> dict[str, list[str]]:
    subject = Subject(path, KEY.public_pem())
    try:
        return {f.check.id: list(f.wrong) for f in run_checks(subject) if f.wrong}
    finally:
        subject.close()


def refused(call, *arguments) -> CornerstoneError:
    with pytest.raises(CornerstoneError) as caught:
        call(*arguments)
    assert caught.value.hint
    return caught.value


def site_in(path: Path):
    area = place(path)
    return read_site(unpack(path.read_bytes()[area.start:area.start + area.size]))


def test_only_the_area_changes_and_reset_brings_the_built_bytes_back(iso, good):
    area = place(iso)
    customize.customize(iso, ONE)
    customised = iso.read_bytes()
    assert customised[:area.start] == good[:area.start] and customised[area.start + area.size:] == \
        good[area.start + area.size:]
    assert site_in(iso).nodes == read_site(ONE.read_bytes()).nodes
    assert wrong(iso) == {}, "a customised ISO verifies"
    assert is_customised(iso)
    customize.reset(iso)
    assert iso.read_bytes() == good
    assert not is_customised(iso)


def test_a11_customizing_says_which_short_hash_a_node_shows(iso):
    lines = customize.customize(iso, ONE)
    area = place(iso)
    content = unpack(iso.read_bytes()[area.start:area.start + area.size])
    assert f"a node that boots it shows sha256 {hashlib.sha256(content).hexdigest()[:16]}" in lines


def test_another_site_leaves_nothing_of_the_first(iso, good):
    customize.customize(iso, THREE)
    customize.customize(iso, ONE)
    assert b"lab-3" not in iso.read_bytes()
    assert len(site_in(iso).nodes) == 1
    customize.reset(iso)
    assert iso.read_bytes() == good


def test_what_a_build_knows_its_iso_by_stays(iso):
    os.utime(iso, ns=(1_000_000_007, 1_795_333_787_123_456_789))
    before = iso.stat()
    customize.customize(iso, ONE)
    customize.reset(iso)
    after = iso.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)


def test_a_build_with_nothing_to_do_says_that_its_iso_carries_a_site(iso, tmp_path, monkeypatch):
    plan = SimpleNamespace(key=SimpleNamespace(kind="development"))
    for name, answer in (("check_privilege", None), ("make_plan", plan), ("signing_key", None), ("is_current", True),
                         ("mend_evidence", True), ("has_netboot", True), ("iso_path", iso)):
        monkeypatch.setattr(build_module, name, lambda *_, answer=answer: answer)
    told = []
    build_module.build(Workspace(tmp_path), None, told.append)
    customize.customize(iso, ONE)
    build_module.build(Workspace(tmp_path), None, told.append)
    assert [event.message for event in told] == [
        f"{iso} is up to date: nothing to do",
        f"{iso} is up to date: nothing to do; it is customised: ./invoke customize {iso} --reset takes it out"]


def test_a_customised_iso_is_not_compared_with_one_that_is_built(iso, tmp_path, monkeypatch):
    customize.customize(iso, ONE)
    monkeypatch.setattr(reproduce, "build", lambda *_: iso)
    error = refused(reproduce.reproduce, Workspace(tmp_path), None, lambda event: None)
    assert "is customised" in error.message and "--reset" in error.hint


BOOT = BootSettings("ttyS1,115200", ("nomodeset", "pci=nocrs"))


def boot_area_in(path: Path) -> bytes:
    with contextlib.closing(Image(path)) as image:
        return image.content(BOOT_AREA)


def test_boot_settings_change_their_area_only_and_the_iso_verifies(iso, good, capsys):
    assert customize.customize(iso, boot=BOOT) == [
        f"{iso} starts with serial port ttyS1,115200; kernel arguments nomodeset pci=nocrs"]
    customised = iso.read_bytes()
    changed = [at for at in range(len(good)) if customised[at] != good[at]]
    with contextlib.closing(Image(iso)) as image:
        area = image.place(BOOT_AREA)
    assert area.start <= changed[0] and changed[-1] < area.start + area.size == area.start + 1024
    assert wrong(iso) == {} and is_customised(iso) and customize.show_boot(iso) == BOOT
    assert customize.show(iso) == f"{iso} carries no site\n"
    customize.reset(iso)
    assert iso.read_bytes() == good and customize.show_boot(iso) == BootSettings()


def test_site_and_boot_settings_leave_one_another_alone(iso, good):
    customize.customize(iso, ONE, boot=BOOT)
    assert len(site_in(iso).nodes) == 1 and customize.show_boot(iso) == BOOT
    customize.customize(iso, THREE)
    assert customize.show_boot(iso) == BOOT
    customize.customize(iso, boot=BootSettings(arguments=("quiet",)))
    assert len(site_in(iso).nodes) == 3 and customize.show_boot(iso) == BootSettings(arguments=("quiet",))
    assert b"nocrs" not in boot_area_in(iso)
    customize.reset(iso)
    assert iso.read_bytes() == good


def test_boot_settings_go_into_a_copy(iso, good, tmp_path):
    customize.customize(iso, None, tmp_path / "copy.iso", BOOT)
    assert iso.read_bytes() == good and customize.show_boot(tmp_path / "copy.iso") == BOOT
    assert (tmp_path / "copy.iso").stat().st_mode & 0o777 == iso.stat().st_mode & 0o777, "they are no secret"


def test_an_iso_of_before_boot_settings_takes_sites_as_it_did(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.boot_area = 0
    iso = workshop.master()
    built = iso.read_bytes()
    assert b"boot_area" not in built and wrong(iso) == {}
    error = refused(customize.customize, iso, ONE, None, BOOT)
    assert "no area for boot settings" in error.message and iso.read_bytes() == built
    customize.customize(iso, ONE)
    assert wrong(iso) == {} and customize.show_boot(iso) == BootSettings()
    customize.reset(iso)
    assert iso.read_bytes() == built


def test_the_task_sets_boot_settings(iso, good):
    def call(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "tasks.py", "customize", str(iso), *words], cwd=ROOT,
                              capture_output=True, text=True, check=False)
    done = call("--console", "ttyS1,115200", "--kernel-argument", "nomodeset", "--kernel-argument", "pci=nocrs")
    assert (done.returncode, done.stdout) == (
        0, f"{iso} starts with serial port ttyS1,115200; kernel arguments nomodeset pci=nocrs\n"), done.stderr
    shown = call("--show")
    assert shown.stdout == f"{iso} carries no site\n"
    assert shown.stderr == f"note: {iso} starts with {BOOT}\n"
    for words, said in ((["--kernel-argument", "init=/bin/sh"], "'init=/bin/sh' isn't taken"),
                        (["--console", "ttyS1"], "--console 'ttyS1' is no serial port"),
                        (["--console", "ttyS1,9600", "--reset"], "customize needs an ISO, and one of")):
        done = call(*words)
        assert done.returncode == Code.INPUT and said in done.stderr.replace('"', "'"), done.stderr
    assert call("--reset").returncode == 0
    assert iso.read_bytes() == good


def test_a_secret_is_drawn_where_the_site_has_none(iso):
    said = "\n".join(customize.customize(iso, THREE))
    first = site_in(iso).clusters[0].bootstrap_secret
    assert "cluster lab has no bootstrap secret in the file, so one was drawn" in said
    assert first not in said
    customize.customize(iso, THREE)
    assert len(first) >= 40 and site_in(iso).clusters[0].bootstrap_secret != first
    assert iso.stat().st_mode & 0o777 == 0o600, "only its owner may read it"


def test_a_secret_of_the_site_is_kept(iso, tmp_path):
    secret = customize.bootstrap_secret()
    site = json.loads(ONE.read_text())
    site["clusters"][0]["cornerstone"]["bootstrap_secret"] = secret
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site))
    said = "\n".join(customize.customize(iso, path))
    assert site_in(iso).clusters[0].bootstrap_secret == secret
    assert "drawn" not in said and secret not in said and secret not in customize.show(iso)


def test_a_site_without_secrets_leaves_the_rights_alone(iso, tmp_path):
    site = json.loads(ONE.read_text())
    site["clusters"][0]["cluster_init_now"] = False
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site))
    iso.chmod(0o644)
    customize.customize(iso, path)
    assert iso.stat().st_mode & 0o777 == 0o644
    assert site_in(iso).clusters[0].bootstrap_secret == ""


def test_show(iso):
    assert customize.show(iso) == f"{iso} carries no site\n"
    customize.customize(iso, ONE)
    shown = json.loads(customize.show(iso))
    assert shown["clusters"][0]["cornerstone"] == {"data_services_ip": "10.20.0.31",
                                                   "bootstrap_secret": "(not shown)"}
    assert shown["blocks"] == json.loads(ONE.read_text())["blocks"]


def test_a_copy_is_customised_and_the_original_left(iso, good, tmp_path):
    iso.chmod(0o444)
    copy = tmp_path / "copies" / "mine.iso"
    copy.parent.mkdir()
    customize.customize(iso, ONE, copy)
    assert iso.read_bytes() == good
    assert site_in(copy).nodes[0].hostname == "lab-1"
    assert wrong(copy) == {}
    assert [path.name for path in copy.parent.iterdir()] == ["mine.iso"]
    assert copy.stat().st_mode & 0o077 == 0
    plain = tmp_path / "copies" / "plain.iso"
    customize.reset(copy, plain)
    assert plain.read_bytes() == good


def test_a_copy_is_never_put_over_something(iso, tmp_path):
    (tmp_path / "there.iso").write_text("mine")
    assert "there.iso is there already" in refused(customize.customize, iso, ONE, tmp_path / "there.iso").message
    assert (tmp_path / "there.iso").read_text() == "mine"
    assert "is no folder" in refused(customize.customize, iso, ONE, tmp_path / "no" / "x.iso").message
    assert "tiny.iso is there already" in refused(customize.customize, iso, ONE, iso).message


def test_a_copy_that_fails_leaves_nothing(iso, tmp_path):
    program = ("import resource, sys\n"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
               "from pathlib import Path\n"
               "from cornerstone.customize.customize import customize\n"
               "customize(*map(Path, sys.argv[1:]))\n")
    done = subprocess.run([sys.executable, "-c", program, iso, ONE, tmp_path / "new.iso"], capture_output=True,
                          text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert "CornerstoneError: cp failed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.iso"]


@pytest.mark.parametrize("before", [None, THREE], ids=["from empty", "from another site"])
def test_a_power_cut_is_told_and_mended(iso, good, before):
    """A torn write leaves any mixture of old and new sectors."""
    if before:
        customize.customize(iso, before)
    area, old = place(iso), iso.read_bytes()
    customize.customize(iso, ONE)
    new = iso.read_bytes()
    whole = {old, new}
    chance = random.Random(11)
    for _ in range(40):
        torn = bytearray(old)
        for at in range(area.start, area.start + area.size, SECTOR):
            if chance.random() < 0.5:
                torn[at:at + SECTOR] = new[at:at + SECTOR]
        if bytes(torn) in whole:
            continue
        iso.write_bytes(torn)
        error = refused(customize.show, iso)
        assert error.code is Code.VERIFY and "the ISO's site area is damaged" in error.message
        assert is_customised(iso)
    assert list(wrong(iso)) == ["site-area"]
    torn = iso.read_bytes()
    customize.customize(iso, ONE)
    assert wrong(iso) == {}
    iso.write_bytes(torn)
    customize.reset(iso)
    assert iso.read_bytes() == good


def test_a_site_that_does_not_validate_is_refused(iso, good, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text('{"wifi": 1}')
    error = refused(customize.customize, iso, path)
    assert error.message.startswith(f"{path}: 6 problems") and error.code is Code.INPUT
    assert iso.read_bytes() == good


def test_a_site_that_does_not_fit_is_refused(iso, good, tmp_path):
    site = json.loads(ONE.read_text())
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
    site["cornerstone"] = {"authorized_keys": [f"{key} {index:0200}" for index in range(20)]}
    path = tmp_path / "large.json"
    path.write_text(json.dumps(site))
    error = refused(customize.customize, iso, path)
    assert "bytes, the ISO has room for 4" in error.message
    assert iso.read_bytes() == good


def test_a_site_for_another_release_is_refused(iso, good, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**json.loads(ONE.read_text()), "nos_package": "nos-7.0.tar.gz"}))
    error = refused(customize.customize, iso, path)
    assert ".nos_package: 'nos-7.0.tar.gz' doesn't name AOS 6.8, which the ISO carries" in error.message
    assert iso.read_bytes() == good


@pytest.mark.parametrize("call", [customize.reset, lambda iso: customize.customize(iso, ONE), customize.show],
                         ids=["reset", "customize", "show"])
def test_what_is_no_foundation_iso_is_refused(call, good, tmp_path):
    other = tmp_path / "other.iso"
    for content, said in [(b"", "can't be read as an ISO"), (b"x" * 99999, "can't be read as an ISO"),
                          (good.replace(b"FOUNDATION ", b"FORMATION  "), "isn't a Foundation ISO"),
                          (good[:place_of(good)], "is damaged")]:
        other.write_bytes(content)
        error = refused(call, other)
        assert said in error.message and error.code is Code.VERIFY
        assert other.read_bytes() == content
    assert "can't be" in refused(call, tmp_path / "none.iso").message
    assert "can't be" in refused(call, tmp_path).message


def place_of(content: bytes) -> int:
    """Where the area begins."""
    return content.index(pack(None, SECTOR))


def test_a_read_only_iso_is_refused_even_to_root(iso, good):
    iso.chmod(0o444)
    error = refused(customize.customize, iso, ONE)
    assert error.message == f"{iso} can't be changed: it is read-only" and "--output NEW" in error.hint
    assert iso.read_bytes() == good
    assert customize.show(iso)


def test_several_at_once_end_in_one_whole_site(iso):
    program = "import sys; from pathlib import Path; from cornerstone.customize.customize import customize; " \
              "[customize(*map(Path, sys.argv[1:])) for _ in range(20)]"
    running = [subprocess.Popen([sys.executable, "-c", program, iso, site],
                                env={**os.environ, "PYTHONPATH": str(ROOT / "src")}) for site in (ONE, THREE)]
    for _ in range(20):
        customize.show(iso)
    assert [process.wait() for process in running] == [0, 0]
    assert len(site_in(iso).nodes) in (1, 3)


def test_a_site_file_that_is_not_there(iso, tmp_path):
    assert "can't be read: No such file" in refused(customize.customize, iso, tmp_path / "none.json").message


def test_little_is_imported():
    """Half a second for the whole command leaves no room for pydantic, pycdlib and the like."""
    program = ("import sys, cornerstone.customize.customize; "
               "print(*{'pydantic', 'pycdlib', 'yaml', 'cryptography', 'jinja2'} & sys.modules.keys())")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.stdout == "\n"


def test_the_task(iso, good):
    def call(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "tasks.py", "customize", *words], cwd=ROOT, capture_output=True,
                              text=True, check=False)
    done = call(str(iso), "--site", str(THREE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{iso} carries the site of 3 nodes, cluster lab\n")
    assert '"bootstrap_secret": "(not shown)"' in call(str(iso), "--show").stdout
    assert call("--iso", str(iso), "--reset").stdout == f"{iso} carries no site\n"
    assert iso.read_bytes() == good
    for words in ([], [str(iso)], [str(iso), "--show", "--reset"], ["--site", str(ONE)],
                  [str(iso), "--show", "--output", "x"]):
        done = call(*words)
        assert (done.returncode, done.stderr.partition("\n")[0]) == (
            Code.INPUT, "error: customize needs an ISO, and one of --site FILE, --show and --reset")
    assert verify.KEY_NAME not in {path.name for path in iso.parent.iterdir()}


ENTRIES = {"customize": lambda iso: customize.customize(iso, ONE), "reset": customize.reset, "show": customize.show,
           "customize a copy": lambda iso: customize.customize(iso, ONE, iso.with_name("new.iso")),
           "diff": lambda iso: diff_isos(iso, iso, iso.parent / "scratch"), "open": Image}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("missing", [1, SECTOR, 1 << 20])
def test_an_iso_that_is_cut_short_is_refused_t39(iso, good, name, missing):
    iso.write_bytes(good[:-missing])
    error = refused(ENTRIES[name], iso)
    assert f"is cut short: {len(good) - missing} of {len(good)} bytes are there" in error.message
    assert error.code is Code.VERIFY
    assert iso.read_bytes() == good[:-missing]
    assert not iso.with_name("new.iso").exists()
    assert not is_customised(iso)


def test_verify_tells_that_an_iso_is_cut_short_t39(iso, good):
    iso.write_bytes(good[:-SECTOR])
    assert wrong(iso)["iso-whole"] == [f"tiny.iso is cut short: {len(good) - SECTOR} of {len(good)} bytes are there"]


@pytest.mark.parametrize(("old", "new"), [
    (b'"aos": "6.8"', b'"aoz": "6.8"'), (b'{"schema": 1, "product": "', b"[" * 26),
    (b'{"path": "boot/vmlinuz"', b'{"path": 123,          '), (b'"sha256": "', b'"sha257": "'),
    (b'"cvm": {', b'"cvn": {'), (b'"schema": 1, ', b'"schema":NaN,'),
], ids=["no aos", "nested", "a path", "a sha256", "no sizes", "NaN"])
@pytest.mark.parametrize("name", [*ENTRIES][:5])
def test_an_iso_with_a_wrong_manifest_is_refused_t25(iso, good, name, old, new):
    assert old in good and len(old) == len(new)
    content = good.replace(old, new)
    iso.write_bytes(content)
    error = refused(ENTRIES[name], iso)
    assert error.code is Code.VERIFY
    assert "not a Foundation manifest" in error.message
    assert iso.read_bytes() == content
    assert not iso.with_name("new.iso").exists()


def test_an_iso_of_random_damage_is_read_or_refused_t25(iso, good):
    """Descriptors, path tables and folders lie before the first file: any bytes there end in our own error, soon."""
    first = min(extent.start for extent in Image(iso).rock_ridge.files.values() if extent.size)
    chance, begun, refusals = random.Random(25), time.process_time(), 0
    for _ in range(600):
        changed = bytearray(good[SYSTEM_AREA:first])
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] = chance.choice((0, 1, 255, chance.randrange(256)))
        with iso.open("r+b") as file:
            file.seek(SYSTEM_AREA)
            file.write(changed)
        try:
            with contextlib.closing(Image(iso)) as image:
                assert image.manifest.profile["aos"]
                image.content(SITE_AREA)
        except CornerstoneError as error:
            assert error.code is Code.VERIFY
            assert len(str(error)) < 1000
            refusals += 1
    assert refusals > 40
    assert time.process_time() - begun < 60


def test_verify_tells_of_a_wrong_manifest_t25(iso, good):
    for old, new in ((b'"aos": "6.8"', b'"aoz": "6.8"'), (b'{"schema": 1, "product": "', b"[" * 26)):
        iso.write_bytes(good.replace(old, new))
        (told,) = [said for check, said in wrong(iso).items() if check == "manifest"]
        assert "not a Foundation manifest" in told[0]


@pytest.fixture
def stick(iso, tmp_path, request) -> Iterator[Path]:
    """A block device, a node of its own for it, onto which the ISO was written; it is larger."""
    if os.geteuid():
        pytest.skip("loop devices take root")
    file = tmp_path / "stick.img"
    file.write_bytes(iso.read_bytes())
    os.truncate(file, file.stat().st_size + (3 << 20))
    device = subprocess.run(["losetup", "--find", "--show", *getattr(request, "param", ()), file],
                            capture_output=True, text=True, check=True).stdout.strip()
    node = tmp_path / "sdX"
    os.mknod(node, 0o660 | stat.S_IFBLK, Path(device).stat().st_rdev)
    node.chmod(0o660)
    yield node
    subprocess.run(["partx", "--delete", device], capture_output=True, check=False)
    subprocess.run(["losetup", "--detach", device], check=True)


def test_m8_a_written_stick_takes_a_site_and_gives_it_back(stick, tmp_path, good):
    area, file = place(stick), tmp_path / "stick.img"
    before = file.read_bytes()
    lines = customize.customize(stick, THREE)
    assert lines[-1] == ("note: it holds secrets now, and a device keeps no rights: whoever holds the stick holds the "
                         "secrets")
    assert not any("only its owner" in line for line in lines)
    assert stick.stat().st_mode & 0o777 == 0o660, "the node isn't the ISO"
    assert json.loads(customize.show(stick))["clusters"]
    after, end = file.read_bytes(), area.start + area.size
    assert len(site_in(file).nodes) == 3
    assert (after[:area.start], after[end:]) == (before[:area.start], before[end:])
    assert wrong(stick) == {}
    customize.reset(stick)
    assert file.read_bytes() == before
    assert customize.show(stick) == f"{stick} carries no site\n"


@pytest.mark.parametrize("partition", [False, True])
def test_m8_a_mounted_stick_is_refused_by_name(stick, tmp_path, partition):
    folder, number = tmp_path / "mounted", stick.stat().st_rdev
    name = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
    folder.mkdir()
    mounted = stick
    if partition:
        subprocess.run(["sfdisk", "--quiet", "--no-reread", "--label", "dos", stick], input="start=2048", text=True,
                       check=True, stderr=subprocess.DEVNULL)
        # not every kernel looks for partitions on a loop device by itself
        subprocess.run(["partx", "--update", f"/dev/{name}"], check=True)
        name, mounted = f"{name}p1", tmp_path / "sdX1"
        major, minor = Path(f"/sys/class/block/{name}/dev").read_text().split(":")
        os.mknod(mounted, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
    subprocess.run(["mkfs.ext4", "-q", "-F", mounted], check=True)
    subprocess.run(["mount", mounted, folder], check=True)
    try:
        for call in (lambda: customize.customize(stick, ONE), lambda: customize.reset(stick)):
            error = refused(call)
            assert error.message == f"{stick} is in use: /dev/{name} is mounted on {folder}"
            assert "umount" in error.hint
    finally:
        subprocess.run(["umount", folder], check=True)
    assert "is in use" not in refused(customize.customize, stick, ONE).message


@pytest.mark.parametrize("content", [bytes(4 << 20), b"\xeb\x58\x90MSDOS5.0".ljust(4 << 20, b"\x55")])
def test_m8_a_device_that_is_not_ours_keeps_every_byte(stick, tmp_path, content):
    (tmp_path / "stick.img").write_bytes(content)
    for call in (lambda: customize.customize(stick, ONE), lambda: customize.reset(stick)):
        assert refused(call).code is Code.VERIFY
    assert (tmp_path / "stick.img").read_bytes() == content


def test_m8_a_stick_that_keeps_something_else_is_told(stick, tmp_path):
    customize.customize(stick, ONE)
    area = place(stick)
    written = (tmp_path / "stick.img").read_bytes()[area.start:area.start + area.size]
    file = os.open(stick, os.O_RDWR)
    try:
        assert os.pread(file, area.size, area.start) == written
        customize.require_written(file, area.start, written)
        # behind the device's back: memory still has what was written
        with (tmp_path / "stick.img").open("r+b") as backing:
            backing.seek(area.start + 100)
            backing.write(b"\0")
        assert os.pread(file, area.size, area.start) == written
        assert refused(customize.require_written, file, area.start, written).code is Code.MACHINE
    finally:
        os.close(file)


@pytest.mark.parametrize("stick", [("--read-only",)], indirect=True)
def test_m8_a_stick_that_is_protected_stays_as_it_is(stick):
    error = refused(customize.customize, stick, ONE)
    assert "can't be changed" in error.message and "switch" in error.hint and "--output" not in error.hint


def test_m8_a_copy_is_made_of_files_and_never_onto_a_device(stick, iso, tmp_path):
    assert "is a device, and --output copies files" in refused(
        customize.customize, stick, ONE, tmp_path / "new.iso").message
    error = refused(customize.customize, iso, ONE, stick)
    assert error.message == f"{stick} is a device" and "remove" not in error.hint
    assert not (tmp_path / "new.iso").exists() and stick.is_block_device()


def test_m8_the_task_takes_a_device(stick):
    def call(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "tasks.py", "customize", str(stick), *words], cwd=ROOT,
                              capture_output=True, text=True, check=False)
    done = call("--site", str(ONE))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(call("--show").stdout)["clusters"]
