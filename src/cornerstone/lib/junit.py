"""JUnit reports as junit-10.xsd of Jenkins' xUnit plugin has them: each suite with errors beside tests and failures."""

from __future__ import annotations

import datetime
import re
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cornerstone.lib.atomic import put

# what XML 1.0 can't hold, which a console's words may
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test. wrong: why it failed, its first line the message; skipped: why it wasn't made; output: what it said."""

    name: str
    wrong: str = ""
    skipped: str = ""
    output: str = ""
    seconds: float = 0.0


def class_name(kind: str, subject: str) -> str:
    """As verify.aos-6_8_1: a reader splits a class name at its last dot."""
    return f"{kind}.{subject.replace('.', '_')}"


def suite(top: ET.Element, name: str) -> ET.Element:
    """A new suite in a report, of this moment and machine."""
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    made = element("testsuite", name=name, timestamp=moment, hostname=socket.gethostname())
    top.append(made)
    return made


def case(suite: ET.Element, class_name: str, name: str, time: str = "0.000") -> ET.Element:
    """A new test in a suite."""
    made = element("testcase", classname=class_name, name=name, time=time)
    suite.append(made)
    return made


def element(tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    """An element whose text and attributes XML can hold."""
    made = ET.Element(tag, {name: _UNFIT.sub("�", value) for name, value in attributes.items()})
    made.text = None if text is None else _UNFIT.sub("�", text)
    return made


def as_text(top: ET.Element) -> str:
    """The report, with its counts written into it."""
    for each in (*top, top):
        _count(each)
    ET.indent(top)
    return ET.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def write_report(path: Path, kind: str, subject: str, cases: Iterable[Case]) -> None:
    """Write the cases of one subject, such as a profile's ISO, as a report with one suite."""
    top = ET.Element("testsuites", name=f"cornerstone {kind}")
    one = suite(top, subject)
    for each in cases:
        made = case(one, class_name(kind, subject), each.name, f"{each.seconds % 1000:.3f}")
        if each.wrong:
            made.append(element("failure", each.wrong, message=each.wrong.splitlines()[0], type="failed"))
        elif each.skipped:
            made.append(element("skipped", message=each.skipped))
        if each.output:
            made.append(element("system-out", each.output))
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, as_text(top), durable=False)


def _count(each: ET.Element) -> None:
    """Write how many tests, failures, errors and, of a suite, skipped ones there are into an element, and its time."""
    tags = {"tests": "testcase", "failures": "failure", "errors": "error"}
    if each.tag == "testsuite":
        tags["skipped"] = "skipped"
    for attribute, tag in tags.items():
        each.set(attribute, str(len(list(each.iter(tag)))))
    # three digits before the point are what the schema's readers take
    each.set("time", f"{min(sum(float(case.get('time', 0)) for case in each.iter('testcase')), 999.999):.3f}")
