"""``python -m asgt``."""

import os
import sys

# For whatever else starts this module and searches the working directory first, as a profiler: for python -m asgt,
# asgt/__init__.py has left it out already, and says why. Python itself has imported a few of its own modules before
# that: python -P -m asgt keeps files of their names out too.
if (
    sys.orig_argv[-len(sys.argv) :][:1] not in (["asgt"], ["-masgt"])
    and not sys.flags.safe_path
    and sys.path[:1] in ([""], [os.getcwd()])
):
    del sys.path[0]

from .cli import process

if __name__ == "__main__":
    process()
