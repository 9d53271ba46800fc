"""The documentation as a site: `mkdocs.yml` is strict, so that it builds means that every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

pytestmark = pytest.mark.processes

FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
IMPORTED = re.compile(r"url\([\"']?https?:[^)]*\)|@import[^;]*;")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")


def build(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a configuration into a folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder, ROOT / "mkdocs.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there_and_asks_nobody_else_for_anything(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"CONTRIBUTING"}
    built = {path.stem: path.read_text(encoding="utf-8") for path in site.glob("*.html")}
    assert pages <= {*built}
    assert not [found for text in built.values() for found in FETCHED.findall(text)]
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles and not [one for text in styles for one in IMPORTED.findall(text)]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_links_from_outside_of_the_site_lead_somewhere(site: Path, page: str) -> None:
    """As on GitHub: paths from the repository's root, and anchors of pages of docs/."""
    for path, anchor in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), f"{page} links to {path}"
        if anchor and path.startswith("docs/"):
            html = site / f"{Path(path).stem}.html"
            assert f'id="{anchor}"' in html.read_text(encoding="utf-8"), f"{page} links to {path}#{anchor}"


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    """Links to a page, an anchor and a module of the repository that are not there; a page that no reader finds."""
    (tmp_path / "docs").mkdir()
    wrong = "# Here\n\n[page](nowhere.md) [anchor](#there) [module](../hybridflow/nowhere.py) [code](../Makefile)\n"
    (tmp_path / "docs/index.md").write_text(wrong)
    (tmp_path / "docs/left_out.md").write_text("# Left out\n")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[0]
    hooks = f"hooks: [{ROOT / 'docs/site_hooks.py'}]"
    (tmp_path / "mkdocs.yml").write_text(f"{re.sub('hooks: .*', hooks, text)}\nnav: [index.md]\n")
    done = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert done.returncode == 1
    for told in ("nowhere.md", "#there", "hybridflow/nowhere.py", "left_out.md"):
        assert told in done.stderr
    assert "Makefile" not in done.stderr
