"""The blocks of docs/how-to/clients.md run.

Packages: dm-haiku, numpyro, netket, optimistix, equinox, penzai
"""

import contextlib
import io
import pathlib
import re

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "how-to" / "clients.md"
blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
for block in blocks:
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block, str(PAGE), "exec"), {"__name__": "__main__"})
print(f"{len(blocks)} blocks run")
