"""Settings: the schema with every default, their composition from YAML and overrides, and their checks."""

from hybridflow.config.schema import Config

__all__ = ["Config"]
