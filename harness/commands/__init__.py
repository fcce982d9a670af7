"""One file per command: its options, and what it does.

It may import anything; nothing imports it.
"""

from harness.platforms import require

require()  # before the import of a module that Windows lacks
