"""The blocks of docs/how-to/logging.md run, and what they log is in the file.

Packages: tensorboardX
"""

import contextlib
import io
import os
import pathlib
import re
import tempfile

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "how-to" / "logging.md"
blocks = re.findall(r"^```py(?:thon)?\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    names = {"__name__": "__main__"}
    for block in blocks:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, str(PAGE), "exec"), names)
    (written,) = pathlib.Path("run").iterdir()
    missing = [name for name in names["numbers"](names["state"]) if name.encode() not in written.read_bytes()]
    os.chdir("/")
assert not missing, missing
print(f"{len(blocks)} blocks run")
