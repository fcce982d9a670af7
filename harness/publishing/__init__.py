"""Results that can be handed on and checked: a run as a research object crate, and what of one is confirmed.

`contents` says what goes into a crate, `metadata` describes it, `crate` writes and reads it. `checks` are what
`capsbench verify` does; `recompute` has the weights speak again.
"""
