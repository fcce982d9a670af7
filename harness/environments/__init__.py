"""Which Python each implementation runs in: the bench's own, or one named by the suite, by the user, or made by `env create`.

That way frameworks that cannot live together compete all the same, and so do several versions of one. A process there runs
this capsbench's own sources (`harness.boot`); what these need must be installed there.
"""
