"""The mechanics of the benchmark: which cases run, what they keep, what they leave; with tiny things, not for times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cornerstone.factory.bench import cases, mastering, peers, run
from cornerstone.factory.bench.bench import Bench
from cornerstone.factory.bench.measure import Usage, measure
from cornerstone.factory.bench.table import Check, Figure, Result
from cornerstone.factory.settings import Mirror, Workspace
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.profile.profile import load_profile
from small_iso import Workshop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    """A bench whose checkout has the real code, and nothing else yet."""
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    bench = Bench(Workspace(tmp_path / "users"), load_profile("aos-6.8", ROOT), 1, tmp_path / "work", tmp_path / "logs")
    bench.checkout.mkdir(parents=True)
    (bench.checkout / "src").symlink_to(ROOT / "src")
    return bench


def test_all_but_what_is_on_demand_is_the_default():
    assert chosen_set("") == cases.CASES.keys() - {"compression"}


def chosen_set(names: str) -> set[str]:
    return set(cases.chosen(names))


def test_cases_run_in_the_order_in_which_they_serve_each_other():
    assert cases.chosen("mastering, cold") == ["cold", "mastering"]


def test_an_unknown_case_is_named_with_the_known():
    with pytest.raises(CornerstoneError, match="no case 'warm'") as caught:
        cases.chosen("cold,warm")
    assert "no-op" in caught.value.hint
    assert caught.value.code == Code.INPUT


def tiny(bench: Bench) -> Result:
    usage = measure(["true"], log=bench.logs / "tiny.log")
    (bench.work / "scratch").write_text("x")
    return Result("tiny", (Figure("tiny", "true", (usage,)),), (Check("tiny", "impossible", 1, 0, "s"),))


def broken(bench: Bench) -> Result:
    raise CornerstoneError("the tool broke\nits log", "mend it", Code.STEP)


@pytest.fixture
def two_cases(monkeypatch, tmp_path):
    monkeypatch.setenv("CORNERSTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "CASES", {"broken": broken, "tiny": tiny})
    monkeypatch.setattr(run, "chosen", lambda names: ["broken", "tiny"])
    monkeypatch.setattr(run, "check_privilege", lambda: None)
    monkeypatch.setattr(Bench, "prepare", lambda self: None)


def test_a_case_that_fails_leaves_the_others_and_its_reason(two_cases, tmp_path):
    told = []
    results = run.run_bench(Workspace(ROOT), load_profile("aos-6.8", ROOT), "", 1, tmp_path / "out", told.append)
    assert [result.failed for result in results] == ["the tool broke\nits log", ""]
    assert [(event.step, event.state) for event in told] == [
        ("broken", "started"), ("broken", "failed"), ("tiny", "started"), ("tiny", "done")]
    content = json.loads((tmp_path / "out/bench.json").read_text())
    assert [result["case"] for result in content["results"]] == ["broken", "tiny"]
    assert all(content["machine"].values())
    assert "| tiny | true | 1 |" in (tmp_path / "out/bench.md").read_text()


def test_only_the_findings_and_the_logs_stay(two_cases, tmp_path):
    run.run_bench(Workspace(ROOT), load_profile("aos-6.8", ROOT), "", 1, tmp_path / "out", lambda event: None)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bench.json", "bench.md", "logs"}
    assert list((tmp_path / "cache/tmp").iterdir()) == []


def test_no_rounds_are_refused(two_cases, tmp_path):
    with pytest.raises(CornerstoneError, match="0 rounds"):
        run.run_bench(Workspace(ROOT), load_profile("aos-6.8", ROOT), "", 0, tmp_path / "out", lambda event: None)
    assert not (tmp_path / "out").exists()


MET, MISSED = Check("c", "", 1, 2, "s"), Check("c", "", 3, 2, "s")


@pytest.mark.parametrize(("results", "strict", "code"), [
    ([Result("c", checks=(MET,))], True, 0),
    ([Result("c", checks=(MET, MISSED))], False, 0),
    ([Result("c", checks=(MET, MISSED))], True, 1),
    ([Result("c", left_out="not installed")], True, 0),
    ([Result("c", failed="broke")], False, 1),
], ids=["met", "missed", "missed, strict", "left out", "failed"])
def test_exit_code(results, strict, code):
    assert run.verdict(results, strict) == code


def test_layers_of_the_users_store_are_linked_not_made_again(bench, monkeypatch):
    layer = bench.users.layers / "cvm-0123"
    layer.mkdir(parents=True)
    (layer / "layer.json").write_text("{}")
    (layer / "cvm.squashfs").write_bytes(b"hsqs")
    (bench.users.layers / "half").mkdir()

    def build(self: Bench) -> None:
        self.iso.parent.mkdir(parents=True)
        self.iso.touch()

    monkeypatch.setattr(Bench, "build", build)
    assert bench.built() == bench.iso
    assert [path.name for path in (bench.cache / "layers").iterdir()] == ["cvm-0123"]
    assert (bench.cache / "layers/cvm-0123/cvm.squashfs").samefile(layer / "cvm.squashfs")
    bench.forget()
    assert (layer / "cvm.squashfs").is_file(), "the user's own stays"


def test_steps_that_were_done_are_read_from_the_events(bench):
    bench.product.mkdir(parents=True)
    (bench.product / "events.jsonl").write_text("".join(
        json.dumps({"v": 1, "t": 1, "stage": "build", "step": step, "state": state}) + "\n"
        for step, state in (("cvm", "started"), ("cvm", "done"), ("hypervisor", "cached"), ("iso", "done"))))
    assert bench.made() == {"cvm", "iso"}


def test_without_site_files_customize_is_left_out(bench):
    assert cases.customize(bench).left_out


def test_mastering_sets_three_ways_side_by_side(bench, tmp_path):
    workshop = tmp_path / "workshop"
    workshop.mkdir()
    bench.product.mkdir(parents=True)
    Workshop(workshop).master().rename(bench.iso)
    found = mastering.real(bench)
    assert [figure.what for figure in found.figures] == [mastering.OURS, mastering.CP, mastering.XORRISO]
    assert all("sync after it" in figure.note for figure in found.figures)
    assert [check.unit for check in found.checks] == ["×", "×", "MiB"]
    assert [path for path in bench.work.rglob("*.iso") if path != bench.iso] == []


def test_what_is_unpacked_for_mastering_gives_the_same_iso_again(bench, tmp_path):
    workshop = tmp_path / "workshop"
    workshop.mkdir()
    bench.product.mkdir(parents=True)
    Workshop(workshop).master().rename(bench.iso)
    files = mastering.unpack(bench)
    manifest = json.loads(files["manifest.json"].read_text())
    again, job = tmp_path / "again.iso", tmp_path / "job.json"
    job.write_text(json.dumps({
        "target": str(again), "files": {path: str(at) for path, at in files.items()},
        "seconds": str(tmp_path / "seconds"), "boot_hybrid": bench.iso.read_bytes()[:512].hex(),
        "identity": manifest["identity"], "epoch": manifest["epoch"]}))
    mastering.master_once(job)
    assert again.read_bytes() == bench.iso.read_bytes()
    assert float((tmp_path / "seconds").read_text()) > 0


@pytest.mark.parametrize("case", [peers.mkosi, peers.live_build])
def test_a_peer_that_is_not_installed_is_left_out_with_a_hint(bench, monkeypatch, tmp_path, case):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not installed: apt-get install" in case(bench).left_out


def test_an_old_mkosi_is_left_out_with_the_reason(bench, monkeypatch, tmp_path):
    tool = tmp_path / "mkosi"
    tool.write_text("#!/bin/sh\necho mkosi 14\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.mkosi(bench).left_out == "mkosi 14 has other options; 25 or newer is wanted"


def test_a_cold_build_is_held_against_the_quicker_floor(bench, monkeypatch):
    walls = {"together": 90.0, "in-turn": 80.0}
    monkeypatch.setattr(cases, "_floor", lambda bench, how: Usage(walls[how], 1, 1))
    monkeypatch.setattr(Bench, "build", lambda self, log: Usage(88.0, 1, 1))
    check, = cases.cold(bench).checks
    assert check.value == pytest.approx(1.1)
    assert check.note == cases.IN_TURN


@pytest.mark.parametrize("case", [peers.stock, peers.live_build])
def test_a_mirror_s_login_is_no_argument(case, bench, monkeypatch):
    monkeypatch.setattr(peers, "find_mirror", lambda: Mirror("http://user:hush@192.0.2.1/debian", "http://192.0.2.1/s"))
    monkeypatch.setattr(peers.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(peers.process, "run", lambda *_, **__: pytest.fail("it was started"))
    assert "login" in case(bench).left_out
