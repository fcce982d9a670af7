"""Search for settings: what is searched, what is proposed next, and what a budget buys.

All of it is a function of the space, the seed and the results so far: after a kill, the journal gives the same proposals.
"""
