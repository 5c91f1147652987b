"""What differs between two ISOs, from facts alone: comparing, the gate on growth, and the three ways to show it.

The golden reports are in tests/data/diff; set CORNERSTONE_GOLDEN=write to write them anew.
"""

import dataclasses
import html.parser
import os
from pathlib import Path

import pytest

from cornerstone.factory.diff import words
from cornerstone.factory.diff.compare import Change, FileChange, Size, compare
from cornerstone.factory.diff.gate import judge, parse_limit
from cornerstone.factory.diff.image import Facts, Root
from cornerstone.factory.diff.show import show
from cornerstone.factory.inspection.roots import File
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, Entry

DATA = Path(__file__).parents[1] / "data/diff"
MIB = 1 << 20
FILE = File("file", 0o644, 0, 0, 100, "aa")


def root(packages, owners, **files):
    return Root(packages, {path.replace("__", "/"): file for path, file in files.items()}, owners)


def facts(name, *, hypervisor=100, manifest=None, **more):
    entries = {path: Entry(path, size, f"{size:064x}") for path, size in
               ((HYPERVISOR, hypervisor * MIB), (CVM, 200 * MIB), ("boot/vmlinuz", 8 * MIB), (".disk/x", 0))}
    said = {"schema": "1", "identity": "0c2f", "signed_with": "development key", "profile.name": "aos-6.8",
            "profile.aos": "6.8", "profile.ahv": "20230302.100173"}
    whole = {"boot": {"boot/vmlinuz": "Linux 6.1"}, "texts": {"layers/first-boot.sh": "#!/bin/bash\ntrue\n"}, **more}
    return Facts(name, (hypervisor + 210) * MIB, said | (manifest or {}), entries, "00", **whole)


A = facts("a.iso", disk={"size": "1"}, roots={"hypervisor": root(
    {"libc6": "2.36-9", "gone": "1", "back": "2", "still": "1"},
    {"usr/lib/libc": "libc6", "usr/bin/gone": "gone", "usr/still": "still"},
    usr__lib__libc=FILE, usr__bin__gone=FILE._replace(size=5000), usr__still=FILE, etc__shadow=FILE, same=FILE)})
B = facts("b.iso", hypervisor=101, disk={"size": "2"}, manifest={
    "identity": "ffff", "profile.aos": "6.8.1", "commit": "c0ffee", "signed_with": "release key"},
    boot={"boot/vmlinuz": "Linux 6.12"}, texts={"layers/first-boot.sh": "#!/bin/bash\nfalse\n"},
    roots={"hypervisor": root(
        {"libc6": "2.36-10", "new": "1:1", "back": "1", "still": "1"},
        {"usr/lib/libc": "libc6", "usr/bin/new": "new", "usr/still": "still"},
        usr__lib__libc=FILE._replace(size=2148, content="bb"), usr__bin__new=FILE, same=FILE,
        usr__still=FILE._replace(uid=7, mode=0o600), etc__shadow=FILE._replace(content="cc"))})


def test_equal_facts_have_no_difference():
    difference = compare(A, dataclasses.replace(A, name="copy.iso", roots={}, disk={}))
    assert difference.equal
    assert show(difference, None, format="text", files=False) == (
        "equal: both are 0c2f, aos-6.8: AOS 6.8 with AHV 20230302.100173, with the same files\n")


@pytest.mark.parametrize("change", [
    {"size": A.size + 1}, {"site_area": "11"}, {"manifest": {**A.manifest, "epoch": "1"}},
    {"entries": {**A.entries, CVM: Entry(CVM, 200 * MIB, "0")}},
    {"entries": {path: A.entries[path] for path in (CVM, HYPERVISOR)}}],
    ids=lambda change: next(iter(change)))
def test_any_difference_is_one(change):
    assert not compare(A, dataclasses.replace(A, **change)).equal
    assert not compare(dataclasses.replace(A, **change), A).equal


def test_values_that_changed_came_or_went():
    difference = compare(A, B)
    assert difference.manifest == (
        Change("identity", "0c2f", "ffff"), Change("signed_with", "development key", "release key"),
        Change("profile.aos", "6.8", "6.8.1"), Change("commit", None, "c0ffee"))
    assert compare(B, A).manifest[-1] == Change("commit", "c0ffee", None)
    assert difference.boot == (Change("boot/vmlinuz", "Linux 6.1", "Linux 6.12"),)


def test_packages_are_told_by_what_happened_to_them():
    (found,) = compare(A, B).roots
    assert [(p.name, p.state, p.a, p.b) for p in found.packages] == [
        ("back", "downgraded", "2", "1"), ("gone", "removed", "1", ""), ("libc6", "upgraded", "2.36-9", "2.36-10"),
        ("new", "added", "", "1:1"), ("still", "same", "1", "1"), ("", "none", "", "")]
    assert found.growth == 2048 - 5000 + 100


@pytest.mark.parametrize(("a", "b", "change"), [
    (FILE, None, ("removed", (), -100)), (None, FILE, ("added", (), 100)),
    (FILE, FILE._replace(content="bb", size=90), ("changed", ("content",), -10)),
    (FILE, FILE._replace(mode=0o4755), ("changed", ("mode",), 0)),
    (FILE, FILE._replace(gid=1), ("changed", ("owner",), 0)),
    (FILE, FILE._replace(attributes="security.capability=0t"), ("changed", ("attributes",), 0)),
    (FILE, File("link", 0o777, 0, 0, 0, "x"), ("changed", ("kind", "mode"), -100)),
    (File("link", 0o777, 0, 0, 0, "x"), File("link", 0o777, 0, 0, 0, "y"), ("changed", ("target",), 0)),
    (FILE, FILE._replace(content="bb", uid=1, mode=0), ("changed", ("content", "mode", "owner"), 0)),
])
def test_a_file_is_told_by_what_happened_to_it(a, b, change):
    sides = [dataclasses.replace(A, roots={"cvm": Root({}, {"etc/x": file} if file else {}, {})}) for file in (a, b)]
    ((package,),) = (r.packages for r in compare(*sides).roots)
    assert package.files == (FileChange("etc/x", *change),)


@pytest.mark.parametrize(("limit", "a", "b", "passed"), [
    ("5%", 100, 105, True), ("5%", 1000, 1051, False), ("2.5%", 1000, 1025, True), ("2.5%", 1000, 1026, False),
    ("0%", 100, 100, True), ("0%", 100, 101, False), ("0%", 100, 99, True), ("5%", 0, 1, False),
    ("0.1%", 3000, 3003, True), ("0.1%", 3000, 3004, False), ("100%", 1, 2, True),
    ("20MiB", MIB, 21 * MIB, True), ("20MiB", MIB, 21 * MIB + 1, False), ("20 MiB", 0, 20 * MIB, True),
    ("1.5 KiB", 0, 1536, True), ("1.5KiB", 0, 1537, False), ("0B", 5, 5, True), ("0B", 5, 6, False),
    ("1GiB", 0, 1 << 30, True)])
def test_growing_by_just_the_limit_is_allowed(limit, a, b, passed):
    assert judge([Size("x", a, b, True)], parse_limit(limit)).passed is passed


def test_a_gate_names_all_that_grew_too_much_and_looks_at_roots_and_total_only():
    verdict = judge([Size("cvm.qcow2", 100 * MIB, 110 * MIB, True), Size("first-boot.sh", 1, 100, False),
                     Size("the whole ISO", 200 * MIB, 210 * MIB, True)], parse_limit("4%"))
    assert verdict.exceeded == ("cvm.qcow2 grew by 10.0 MiB (10.00%)", "the whole ISO grew by 10.0 MiB (5.00%)")


@pytest.mark.parametrize("text", ["5", "%", "-5%", "+5%", "5 percent", "1e3%", "20MB", "20 mib", "5%%", " 5%", ".5%",
                                  "5.%", "nan%", "٥%", "9" * 10 + "B", "5%\n"])
def test_a_malformed_limit_is_one_error(text):
    with pytest.raises(CornerstoneError, match="neither a percentage nor a size") as caught:
        parse_limit(text)
    assert caught.value.code == Code.INPUT
    assert "20MiB" in caught.value.hint


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (355 * MIB, "355.0 MiB"),
                                             (3 << 30, "3.0 GiB"), (5000 << 30, "5000.0 GiB")])
def test_sizes_in_words(count, text):
    assert words.size(count) == text
    assert (words.grown(count), words.grown(-count)) == ((f"+{text}", f"-{text}") if count else ("", ""))


def golden(name, said):
    path = DATA / name
    if os.environ.get("CORNERSTONE_GOLDEN") == "write":
        path.write_text(said)
    assert said == path.read_text()


@pytest.mark.parametrize(("name", "files", "limit"), [("report.txt", True, "1%"), ("short.txt", False, "5 MiB"),
                                                      ("report.json", True, "0.9%"), ("short.json", False, None)])
def test_reports_are_as_they_were(name, files, limit):
    difference = compare(A, dataclasses.replace(B, site_area="11"))
    verdict = judge(difference.sizes, parse_limit(limit)) if limit else None
    golden(name, show(difference, verdict, format="json" if name.endswith("json") else "text", files=files))


class Page(html.parser.HTMLParser):
    """Checks that elements are closed, and gathers them."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], set(), ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


HOSTILE = '<script>alert("&1")</script>\x1b[31m'


def hostile():
    one = root({HOSTILE: HOSTILE}, {HOSTILE: HOSTILE}, **{HOSTILE: FILE})
    other = root({HOSTILE: f"{HOSTILE}2"}, {HOSTILE: HOSTILE}, **{HOSTILE: FILE._replace(size=1)})
    return compare(facts(HOSTILE, manifest={HOSTILE: "x"}, roots={"cvm": one}),
                   facts(HOSTILE, manifest={"identity": HOSTILE, "signed_with": HOSTILE}, boot={HOSTILE: HOSTILE},
                         texts={"layers/first-boot.sh": HOSTILE}, roots={"cvm": other}))


@pytest.mark.parametrize("difference", [compare(A, B), compare(A, A), hostile()], ids=["differ", "equal", "hostile"])
def test_html_is_whole_and_has_no_script(difference):
    verdict = judge(difference.sizes, parse_limit("0%"))
    page = Page(show(difference, verdict, format="html", files=True))
    assert page.tags <= {"html", "meta", "title", "style", "h1", "h2", "p", "table", "tr", "th", "td", "code", 
                         "details", "summary", "ul", "li", "pre"}
    assert difference.a.name in page.text
    assert (": more than 0%" in page.text) is not verdict.passed


def test_html_says_what_the_text_says():
    page = Page(show(compare(A, B), None, format="html", files=True))
    for word in ("2.36-9 → 2.36-10", "c0ffee", "+false", "Linux 6.12", "~ usr/still  (mode, owner)", "(in no package)"):
        assert word in page.text
    assert "usr/still" not in show(compare(A, B), None, format="html", files=False)


def test_text_gives_a_terminal_no_orders():
    said = show(hostile(), None, format="text", files=True)
    assert "\x1b" not in said
    assert "\\x1b[31m" in said
