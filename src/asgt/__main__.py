"""``python -m asgt``."""

import os
import sys

# Python puts the working directory first, where a file may be called as a module that we import. The command asgt does
# not search it at all. A model of the user's own is found there all the same, for whoever builds it appends the folder.
if not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):
    del sys.path[0]

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
