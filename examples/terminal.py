"""What the examples share: flags, tables, and bad input told in one line."""

import argparse
import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

OUT = pathlib.Path(__file__).parent / "out"


def stop(message: str, code: int = 2) -> NoReturn:
    """End the program with one line on the standard error."""
    print(f"{pathlib.Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def extras() -> Iterator[None]:
    """Say how to install what an import inside does not find."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        pip = f"{sys.executable} -m pip"  # the one of this environment
        stop(f"{package} is not installed: run `{pip} install '.[examples]'` in the folder that holds examples/")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        stop(f"{message} (--help lists the flags)")


def flags(description: str, *, quick: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the flags that all examples have; `--quick` only where there is such a mode."""
    parser = _Parser(description=description.partition("\n")[0], allow_abbrev=False)
    if quick:
        parser.add_argument(
            "--quick", action="store_true", help="a few seconds, to see that it runs: the figures say nothing"
        )
    parser.add_argument("--out", type=pathlib.Path, default=OUT, help="folder for the picture (default: examples/out)")
    return parser


def writable(folder: pathlib.Path, flag: str = "--out") -> pathlib.Path:
    """Return a folder, made if need be, in which files can be written: asked before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        stop(f"cannot write to {folder} ({error.strerror}): give another folder, {flag} FOLDER")


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return rows under their titles: names to the left, numbers, as they are to be read, to the right.

    >>> print(table(["optimizer", "loss"], [["adamw", "1.25"], ["muon", "1.2"]]))
    optimizer  loss
    adamw      1.25
    muon        1.2
    """
    cells = [list(map(str, row)) for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        first, *rest = zip(row, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]).rstrip()

    return "\n".join(map(line, cells))
