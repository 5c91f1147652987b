"""Reading a squashfs as one stream: real ones, made by mksquashfs, whole and damaged; and streams that lie."""

import hashlib
import io
import os
import subprocess

import pytest

from cornerstone.customize.iso_image import Extent
from cornerstone.factory.inspection import roots
from cornerstone.factory.inspection.roots import Disk, File, copy_disk, read_files
from cornerstone.lib.error import Code, CornerstoneError


def pack(tree, target, *options):
    subprocess.run(["mksquashfs", tree, target, "-quiet", "-no-progress", "-noappend", "-all-root", *options],
                   check=True, capture_output=True)
    return target


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "a folder").mkdir(parents=True)
    (folder / "a folder/a file").write_bytes(b"one")
    (folder / 'q"u\\o').write_bytes(b"two")
    os.link(folder / 'q"u\\o', folder / "z hard")
    os.link(folder / 'q"u\\o', folder / "before")
    (folder / "link").symlink_to("a folder/a file")
    (folder / "empty").touch()
    (folder / "wide").write_bytes(bytes(3 << 20) + b"end")
    (folder / "bell\a").write_bytes(b"x")
    (folder / os.fsdecode(b"latin\xe9")).write_bytes(b"y")
    return folder


def ignore(path, piece):
    """Take nothing of a file's content."""


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_squashfs_with_odd_names(tree, tmp_path):
    (tree / "wide").chmod(0o4750)
    (tree / "a folder").chmod(0o700)
    image = pack(tree, tmp_path / "x", "-p", "null c 666 0 0 1 3", "-p", "fifo i 600 0 0 f")
    files, kept = read_files(image, 0, lambda path: path == "a folder/a file")
    two = File("file", 0o644, 0, 0, 3, sha256(b"two"))
    wide = bytes(3 << 20) + b"end"
    files.pop("")
    assert files == {
        "a folder": File("folder", 0o700, 0, 0, 0, ""), "a folder/a file": File("file", 0o644, 0, 0, 3, sha256(b"one")),
        'q"u\\o': two, "z hard": two, "before": two, "link": File("link", 0o777, 0, 0, 0, "a folder/a file"),
        "empty": File("file", 0o644, 0, 0, 0, sha256(b"")), "wide": File("file", 0o4750, 0, 0, len(wide), sha256(wide)),
        "bell\\x07": File("file", 0o644, 0, 0, 1, sha256(b"x")),
        "latin\\xe9": File("file", 0o644, 0, 0, 1, sha256(b"y")),
        "null": File("device", 0o666, 0, 0, 0, "1 3"), "fifo": File("pipe", 0o600, 0, 0, 0, "")}
    assert kept == {"a folder/a file": b"one"}


def test_a_squashfs_within_a_file(tree, tmp_path):
    image = pack(tree, tmp_path / "x")
    (tmp_path / "y").write_bytes(bytes(2048) + image.read_bytes() + b"more")
    assert read_files(tmp_path / "y", 2048, bool) == read_files(image, 0, bool)


def test_a_name_with_a_line_break_is_refused(tree, tmp_path):
    (tree / "two\nlines").touch()
    with pytest.raises(CornerstoneError, match="its names can't be read") as caught:
        read_files(pack(tree, tmp_path / "x"), 0, bool)
    assert caught.value.code == Code.VERIFY


def test_a_damaged_squashfs_is_one_error(tree, tmp_path):
    (tree / "noise").write_bytes(os.urandom(2 << 20))
    whole = pack(tree, tmp_path / "x").read_bytes()
    for content in (b"", b"no squashfs" * 500, whole[:1 << 20], whole[:-4096] + bytes(4096)):
        (tmp_path / "y").write_bytes(content)
        with pytest.raises(CornerstoneError, match="the squashfs can't be read") as caught:
            read_files(tmp_path / "y", 0, bool)
        assert caught.value.code == Code.VERIFY
        assert "verify" in caught.value.hint


HEAD = b"/ D 0 755 0 0\n"
DATA = b"#\n# START OF DATA - DO NOT MODIFY\n#\n"


@pytest.mark.parametrize(("stream", "problem"), [
    (b"", "ends elsewhere"), (HEAD + b"x R 0 644 0 0 3 0\n" + DATA + b"ab", "before its last file"),
    (HEAD + b"x R 0 644 0 0 3 0\n" + DATA + b"abcd", "ends elsewhere"),
    (HEAD + b"x R 0 644 0 0 3 7\n" + DATA + b"abc", "doesn't follow"),
    (HEAD + b"x R 0 644 0 0 0 0\nx R 0 644 0 0 0 0\n" + DATA, "it has x twice"),
    (HEAD + b"x L y\n" + DATA, "which isn't there"),
    (HEAD + b"x x user.a=b\n" + DATA, "which isn't there"), (HEAD + b"x Q 0\n" + DATA, "names can't be read"),
    (HEAD + b"x R 0 644\n" + DATA, "not enough"), (HEAD + b"x R a b c d e f\n" + DATA, "invalid literal")])
def test_a_stream_that_isn_t_right_is_refused(stream, problem):
    with pytest.raises(ValueError, match=problem):
        roots._read_stream(io.BytesIO(stream), ignore)


@pytest.mark.parametrize("sparse", [b"", b" 0"], ids=["4.5", "4.6"])
def test_a_stream_of_either_release_of_squashfs_tools(sparse):
    kept = []
    stream = io.BytesIO(HEAD + b"x R 0 644 1 2 3 0" + sparse + b"\n" + DATA + b"abc")
    files, starts = roots._read_stream(stream, lambda path, piece: kept.append((path, piece)))
    assert files["x"] == File("file", 0o644, 1, 2, 3, sha256(b"abc"))
    assert kept == [("x", b"abc")]
    assert starts == {"x": 0}


def test_extended_attributes_as_release_4_6_writes_them():
    stream = HEAD + b"usr/bin/arping R 0 755 0 0 2 0 0\n" \
        rb"usr/bin/arping x security.capability=0t\001\000\000\002\000 \000" b"\n" \
        b"usr/bin/arping x user.a=b\nusr/bin/arping2 L usr/bin/arping\n" + DATA + b"ab"
    files, _ = roots._read_stream(io.BytesIO(stream), ignore)
    assert files["usr/bin/arping"].attributes == r"security.capability=0t\001\000\000\002\000 \000 user.a=b"
    assert files["usr/bin/arping2"] == files["usr/bin/arping"]


def test_a_disk_without_the_slot_is_one_error(tmp_path):
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(8 << 20))
    subprocess.run(["sfdisk", "--quiet", raw], input=b"label: gpt\nname=root-a, size=1MiB\nname=two, size=1MiB\n"
                   b"name=two, size=1MiB\n", check=True)
    disk = Disk(raw, "")
    for name, problem in (("root-b", "has 0 partitions root-b"), ("two", "has 2 partitions two")):
        with pytest.raises(CornerstoneError, match=problem):
            disk.partition(name)
    with pytest.raises(CornerstoneError, match="holds no squashfs"):
        disk.squashfs()


@pytest.mark.parametrize(("limit", "value", "problem"), [
    ("MOST_NAMES", 3, "more than 3 names"), ("MOST_LINE", 16, "names can't be read"),
    ("MOST_CONTENT", 1 << 20, "its files have more than")])
def test_a1_a_root_that_says_it_is_huge_is_refused(tree, tmp_path, monkeypatch, limit, value, problem):
    image = pack(tree, tmp_path / "x")
    monkeypatch.setattr(roots, limit, value)
    with pytest.raises(CornerstoneError, match=problem) as caught:
        read_files(image, 0, bool)
    assert caught.value.code is Code.VERIFY


def test_a1_one_file_doesn_t_fill_the_memory(tree, tmp_path, monkeypatch):
    image = pack(tree, tmp_path / "x")
    monkeypatch.setattr(roots, "MOST_KEPT", 1 << 20)
    assert read_files(image, 0, lambda path: path == "empty")
    with pytest.raises(CornerstoneError, match="wide has more than"):
        read_files(image, 0, lambda path: path == "wide")


def on_an_iso(folder, *create):
    """A qcow2 that qemu-img makes, behind 4096 zero bytes of a file; the file and the place."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *create], check=True, cwd=folder)
    content = (folder / create[-2 if create[-1].isdigit() else -1]).read_bytes()
    content += bytes(-len(content) % 512)
    iso = folder / "iso.bin"
    iso.write_bytes(bytes(4096) + content)
    return iso, Extent(4096, len(content))


@pytest.mark.parametrize(("create", "problem"), [
    (("-b", "secret.txt", "-F", "raw", "x.qcow2"), "backing file"),
    (("-o", "data_file=secret.txt,data_file_raw=on", "x.qcow2", "65536"), "for its data"),
    (("-o", "compat=0.10", "x.qcow2", "65536"), "version 2"),
    (("x.qcow2", str(2 << 40)), "says that it has")])
def test_a2_a_disk_that_names_a_file_of_this_machine_is_refused_before_it_is_opened(tmp_path, create, problem):
    (tmp_path / "secret.txt").write_bytes(b"secret".ljust(65536, b"!"))
    iso, place = on_an_iso(tmp_path, *create)
    # as a data file it was made anew
    (tmp_path / "secret.txt").write_bytes(b"secret".ljust(65536, b"!"))
    with pytest.raises(CornerstoneError, match=problem) as caught:
        copy_disk(iso, place, tmp_path / "out.raw")
    assert caught.value.code is Code.VERIFY
    assert not (tmp_path / "out.raw").exists()


def test_a2_a_name_in_a_header_s_extension_is_refused_too(tmp_path):
    iso, place = on_an_iso(tmp_path, "x.qcow2", "65536")
    copy_disk(iso, place, tmp_path / "out.raw")
    content = bytearray(iso.read_bytes())
    length = int.from_bytes(content[4096 + 100:4096 + 104], "big")
    content[4096 + length:4096 + length + 24] = b"DATA" + (8).to_bytes(4, "big") + b"/etc/pw\0" + bytes(8)
    iso.write_bytes(content)
    with pytest.raises(CornerstoneError, match="names another file in its header"):
        copy_disk(iso, place, tmp_path / "out.raw")


def test_a2_a_small_disk_doesn_t_fill_a_large_one(tmp_path):
    """Each of its clusters is the same one."""
    iso, place = on_an_iso(tmp_path, "-o", "preallocation=full", "x.qcow2", str(16 << 20))
    copy_disk(iso, place, tmp_path / "whole.raw")
    content = bytearray(iso.read_bytes())
    table = int.from_bytes(content[4096 + 40:4096 + 48], "big")
    entries = 4096 + (int.from_bytes(content[4096 + table:4096 + table + 8], "big") & 0x00FFFFFFFFFFFE00)
    first = content[entries:entries + 8]
    content[entries:entries + 8 * 256] = first * 256
    cut = 4096 + (int.from_bytes(first, "big") & 0x00FFFFFFFFFFFE00) + 65536
    iso.write_bytes(content[:cut])
    with pytest.raises(CornerstoneError, match="says that it holds"):
        copy_disk(iso, Extent(4096, cut - 4096), tmp_path / "out.raw")
    assert not (tmp_path / "out.raw").exists()
