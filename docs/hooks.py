"""What the site takes from outside of docs/, the pictures of the benchmarks, and a way to see all pictures large."""

import pathlib
import re
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = pathlib.Path(__file__).parents[1] / "benchmarks" / "results"


def on_files(files: Files, config: dict) -> Files:
    """Adds the pictures to the site's files."""
    for picture in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Leads the pages' links to these pictures to where the site has them."""
    del kwargs
    return markdown.replace("../../benchmarks/results/", "../results/")


def on_page_content(html: str, **kwargs: Any) -> str:
    """Makes every picture a link to itself: on a telephone its words are too small."""
    del kwargs
    return re.sub(r'(?<!">)<img [^>]*?src="([^"]+)"[^>]*>', r'<a href="\1">\g<0></a>', html)
