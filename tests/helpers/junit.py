"""Is a document JUnit XML as tools read it? The part on which the schemas of Ant and Jenkins agree."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

_SUITE = {"name", "package", "id", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"}


def read(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(class, name) of each case -> its state and message. Fails for a document that is not valid."""
    root = ElementTree.parse(path).getroot()
    assert (root.tag, root.attrib) == ("testsuites", {})
    (suite,) = root
    assert (suite.tag, set(suite.attrib)) == ("testsuite", _SUITE)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    assert suite.attrib["hostname"]
    tags = [each.tag for each in suite]
    assert tags == ["properties", *["testcase"] * (len(tags) - 3), "system-out", "system-err"]
    assert all((each.tag, set(each.attrib)) == ("property", {"name", "value"}) for each in suite[0])
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for case in suite.iter("testcase"):
        assert set(case.attrib) == {"classname", "name", "time"}
        assert len(case) <= 1
        state, message = "passed", ""
        for told in case:
            state, message = told.tag, told.attrib["message"]
            assert set(told.attrib) == ({"message"} if state == "skipped" else {"message", "type"})
        key = case.attrib["classname"], case.attrib["name"]
        assert key not in found, key
        found[key] = state, message
    states = [state for state, _ in found.values()]
    counted = {"tests": len(states), "failures": states.count("failure"), "errors": states.count("error")}
    counted["skipped"] = states.count("skipped")
    assert {name: int(suite.attrib[name]) for name in counted} == counted
    return found
