"""The working directory that tests of the command have too."""

from tests.cli.conftest import workplace

__all__ = ["workplace"]
