"""What the site takes from outside of docs/: the pictures of the benchmarks."""

import pathlib

from mkdocs.structure.files import File, Files

RESULTS = pathlib.Path(__file__).parents[1] / "benchmarks" / "results"


def on_files(files: Files, config: dict) -> Files:
    """Adds the pictures to the site's files."""
    for picture in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    return files
