"""JUnit XML, in the part of it on which the schemas in use agree (Ant's and Jenkins')."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from harness import __version__

State = Literal["passed", "failed", "skipped"]
_TAGS: Mapping[State, str] = {"failed": "failure", "skipped": "skipped"}
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One comparison: a group and a name, whether it passed, and in words what was found.

    `message` is one line; `text` says more. There are no errors apart from failures: not all schemas have them.
    """

    group: str
    name: str
    state: State = "passed"
    message: str = ""
    text: str = ""


def document(name: str, cases: Sequence[Case], properties: Mapping[str, str]) -> str:
    """The XML of one suite of cases. Characters that XML 1.0 does not allow become "\\N{REPLACEMENT CHARACTER}"."""
    counts = {state: sum(case.state == state for case in cases) for state in _TAGS}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": _legal(name),
            "package": "capsbench",
            "id": "0",
            "tests": str(len(cases)),
            "failures": str(counts["failed"]),
            "errors": "0",
            "skipped": str(counts["skipped"]),
            "time": "0",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
            "hostname": _legal(platform.node()) or "localhost",
        },
    )
    listed = ElementTree.SubElement(suite, "properties")
    for key, value in {"capsbench": __version__, **properties}.items():
        ElementTree.SubElement(listed, "property", {"name": _legal(key), "value": _legal(value)})
    for case in cases:
        made = ElementTree.SubElement(
            suite, "testcase", {"classname": _legal(case.group), "name": _legal(case.name), "time": "0"}
        )
        if case.state != "passed":
            told = ElementTree.SubElement(made, _TAGS[case.state], {"message": _legal(case.message)})
            if case.state != "skipped":
                told.set("type", case.state)
            told.text = _legal(case.text or case.message)
    ElementTree.SubElement(suite, "system-out")
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _legal(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
