"""Everything that is checked before anything starts, and what is said of it.

Imports neither vLLM nor Ray, and torch only to ask the components of algorithms, after all else; unless a plugin does.
A problem is a line `key: what was found; what to do`.
"""

from hybridflow.preflight.job_checks import load, problems, warnings, warnings_of, without_components
from hybridflow.preflight.model_folders import PendingModels, output_model

__all__ = ["PendingModels", "load", "output_model", "problems", "warnings", "warnings_of", "without_components"]
