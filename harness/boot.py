"""Runs a module of this capsbench in any Python, whatever is installed there: `python boot.py MODULE [ARGUMENT ...]`.

The folder that holds this capsbench is not put on the import path, where its neighbours would hide what is installed
there. Imports nothing of capsbench, and no more than an old Python has, which is told what it lacks.
"""

import os
import sys

LEAST = (3, 11)
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
_OURS = ("capsbench", "harness", "impls")
TOO_OLD = "@ too old: "


class _Finder:
    """Finds the packages of this capsbench, before another one that is installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # pyright: ignore
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [_ROOT]) if name in _OURS else None


def _main():  # pyright: ignore
    if sys.version_info < LEAST:
        sys.stdout.write("%s%s\n" % (TOO_OLD, sys.version.split()[0]))  # noqa: UP031
        sys.exit(3)
    import runpy

    sys.meta_path.insert(0, _Finder)  # pyright: ignore
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [path for path in sys.path if path != here]  # without -P, a script's folder comes first
    sys.argv[:] = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
