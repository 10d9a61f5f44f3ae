"""What these tests need besides Python: absent, they skip with a reason.

In CI, or with OPS=required, they fail instead.
"""

import importlib
import os
import shutil
import subprocess

import pytest

REQUIRED = bool(os.environ.get("CI")) or os.environ.get("OPS") == "required"


def _absent(what):
    if REQUIRED:
        pytest.fail(f"these tests need {what}")
    pytest.skip(f"{what} is not installed", allow_module_level=True)


def module(name):
    """A Python module of the dependency group `ops`."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return _absent(f"the Python module {name} (dependency group ops)")


def program(*names):
    """The path of a program, under the first of its names that is there."""
    return next(filter(None, map(shutil.which, names)), None) or _absent(names[0])


def run(*command):
    """Run a program and give back what it says; fail the test with that if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
