"""Which commit runs: as the image was told, else as the checkout beside the package stands at."""

import os
import re
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def revision() -> str:
    """``CASCADE_REVISION``, or the commit of the checkout, or ``unknown``."""
    told = os.environ.get("CASCADE_REVISION") or UNKNOWN
    if told != UNKNOWN:
        return told
    return checked_out(Path(__file__).resolve().parents[1]) or UNKNOWN


def checked_out(root: Path) -> str | None:
    """The commit that a Git checkout stands at; changes on top of it are not seen.

    None where `root` is not the top of one, or its files cannot be made sense of.
    """
    try:
        git = root / ".git"
        if git.is_file():  # a linked worktree
            git = root / git.read_text("utf-8").removeprefix("gitdir:").strip()
        common = git / "commondir"
        shared = git / common.read_text("utf-8").strip() if common.is_file() else git
        head = (git / "HEAD").read_text("utf-8").strip()
        if head.startswith("ref:"):
            head = _resolved(shared, head.removeprefix("ref:").strip())
    except (OSError, ValueError):
        return None
    return head if _COMMIT.fullmatch(head) else None


def _resolved(git: Path, ref: str) -> str:
    """The commit of a branch: in a file of its own, or packed; empty where it has none yet."""
    loose = git / ref
    if loose.is_file():
        return loose.read_text("utf-8").strip()
    for line in (git / "packed-refs").read_text("utf-8").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return commit
    return ""
