"""docs/troubleshooting.md says what the commands say."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.helpers.run_helpers import ROOT
from tests.helpers.troubles import PAGE


def test_every_message_is_the_one_that_is_given_today() -> None:
    """Made as the page was, in a process of its own."""
    command = [sys.executable, "-m", "tests.helpers.troubles", "--print"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    found, made = PAGE.read_text(encoding="utf-8").splitlines(), done.stdout.splitlines()
    assert [line for line in found if line not in made] == [], "python -m tests.helpers.troubles"
    assert found == made


def test_no_message_names_the_place_where_it_was_recorded() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"/tmp/|/home/", text)
