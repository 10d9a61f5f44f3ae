"""The files of `config/`, which come with the program."""

from importlib.resources import files
from pathlib import Path


def shipped(name: str) -> str:
    """Text of one: inside the installed package, or beside it in a checkout."""
    packaged = files("monitor") / "shipped" / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parent.parent / "config" / name).read_text(encoding="utf-8")
