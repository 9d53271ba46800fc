"""Quick imports find what the slow ones do; each change is needed by the version that is installed."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hybridflow.quick_imports import TRANSFORMERS, absent, last_declaration, packages_distributions


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="of Python 3.11 alone")
def test_packages_are_of_the_same_distributions() -> None:
    assert packages_distributions() == importlib.metadata.packages_distributions()


def test_names_are_found_from_the_last_declaration_on() -> None:
    from transformers.utils import import_utils

    names = getattr(import_utils.fetch__all__, "__wrapped__", import_utils.fetch__all__)
    spec = find_spec("transformers")
    assert spec is not None and spec.origin is not None
    files = sorted((Path(spec.origin).parent / "models").glob("[a-g]*/*.py"))  # a third of all
    sources = [file.read_text(encoding="utf-8") for file in files]
    found = [names(last_declaration(source)) for source in sources]
    assert len(found) > 300 and sum(map(bool, found)) > 200
    assert found == [names(source) for source in sources]
    assert last_declaration("x = 1\n") == "" and names("") == []
    assert last_declaration('__all__ = ["a"]\nb = 1\n__all__ = ["b"]\n') == '__all__ = ["b"]\n'


CODE = """
import importlib.metadata
{first}
import transformers
from transformers import AutoConfig, Qwen2Config
from transformers.utils import import_utils
import transformers.models
print(import_utils.create_import_structure_from_path.cache_info().maxsize)
print(import_utils.PACKAGE_DISTRIBUTION_MAPPING == importlib.metadata.packages_distributions())
print(sum(len(name) for name in dir(transformers)), len(dir(transformers.models)))
"""


@pytest.mark.processes
def test_transformers_offers_the_same_names() -> None:
    """And it remembers too few of its folders by itself: else all this could go."""
    said = []
    for first in ("from hybridflow.quick_imports import import_transformers; import_transformers()", ""):
        command = [sys.executable, "-c", CODE.format(first=first)]
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n"))
    quick, slow = said
    assert quick[0] == "None" and slow[0] == "128" and importlib.metadata.version("transformers") == TRANSFORMERS
    assert quick[1:] == slow[1:]


def test_what_is_absent_in_a_block_is_there_after_it() -> None:
    sys.modules.pop("this", None)
    with absent("colorsys", "os"):
        import os  # noqa: F401  which is imported, and stays

        had = "colorsys" in sys.modules and sys.modules["colorsys"] is not None
        if not had:
            with pytest.raises(ImportError):
                import colorsys
    import colorsys

    assert colorsys.rgb_to_hls
