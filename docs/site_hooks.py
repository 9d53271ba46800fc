"""What mkdocs does beside its own (mkdocs.yml names this file): pages may link to files of the repository.

CONTRIBUTING.md becomes a page, and a linked module a file of the site. A link to a file that is not there stays, and
mkdocs refuses it.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CONTRIBUTING = "CONTRIBUTING.md"
OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)")
INSIDE = re.compile(r"\]\(docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside of docs/."""
    linked = {name for page in files.documentation_pages() for name in OUTSIDE.findall(page.content_string)}
    for name in sorted({CONTRIBUTING, *linked}):
        if (ROOT / name).is_file():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to where the site has what they name."""
    if page.file.src_uri == CONTRIBUTING:
        return INSIDE.sub("](", markdown)
    return OUTSIDE.sub(r"](\1", markdown)
