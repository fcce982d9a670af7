"""One file per command: its options, and what it does.

It may import anything; nothing imports it.
"""
