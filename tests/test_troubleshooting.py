"""docs/troubleshooting.md says what the commands say."""

from __future__ import annotations

import re

from tests.helpers.troubles import PAGE, page


def test_every_message_is_the_one_that_is_given_today() -> None:
    found, made = PAGE.read_text(encoding="utf-8").splitlines(), page().splitlines()
    assert [line for line in found if line not in made] == [], "python -m tests.helpers.troubles"
    assert found == made


def test_no_message_names_the_place_where_it_was_recorded() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"/tmp/|/home/", text)
