"""What comments and pages cite has to be in a clone."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CITED = re.compile(
    r"(model|exchanges)\.md(?P<where>(?:[\s`,()-]|\b(?:and|to|section|sections)\b"
    r"|[A-E]\d{0,2}(?:\.\d)?\b|\d{1,2}(?:\.\d|[a-h])?\b)*)"
)
PLACE = re.compile(r"[A-E]\d{0,2}(?:\.\d)?|\d{1,2}(?:\.\d|[a-h])?")
HEADING = re.compile(r"^(?:#+ |- \*\*|\| )([A-E]?\d{0,2}(?:\.\d|[a-h])?)[.* ]", re.MULTILINE)

WRITTEN = {"history.md", "skill.md"}
"""Pages that reports write."""


def sections(page):
    """What can be cited of a page: its numbered headings and entries."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    found = set(HEADING.findall(text)) - {""}
    if page == "model":
        list_of_a13 = text.partition("### A13.")[2].partition("\n## ")[0]
        found |= {f"A13.{n}" for n in re.findall(r"^(\d)\. ", list_of_a13, re.MULTILINE)}
        found |= {f"A2.{n}" for n in re.findall(r"A2\.(\d)", text)}
    return found


def sources():
    """The project's own sources and pages."""
    for folder in ("monitor", "tests", "docs"):
        for suffix in ("*.py", "*.md"):
            yield from (ROOT / folder).rglob(suffix)
    yield from ROOT.glob("*.md")


def citations():
    found = {}
    for path in sources():
        if path == Path(__file__):
            continue
        # A comment may break its line between the page and the section.
        text = re.sub(r"\n\s*(?:#|//)?\s*", " ", path.read_text(encoding="utf-8"))
        for match in CITED.finditer(text):
            for place in PLACE.findall(match["where"]):
                found.setdefault((match[1], place), str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("page", ["model", "exchanges"])
def test_every_section_that_is_cited_is_there(page):
    there = sections(page)
    cited = {place: where for (name, place), where in citations().items() if name == page}
    assert len(cited) > 15
    assert {place: where for place, where in cited.items() if place not in there} == {}


def test_no_page_is_cited_that_is_not_in_the_repository():
    cited = re.compile(r"(?:docs/|\]\(|[\s`(])([a-z_]+\.md)\b")
    own = {path.name for path in (ROOT / "docs").glob("*.md")} | WRITTEN
    unknown = {
        (name, str(path.relative_to(ROOT)))
        for path in sources()
        for name in cited.findall(path.read_text(encoding="utf-8"))
        if name not in own
    }
    assert unknown == set()


def test_every_link_of_the_pages_leads_to_a_file():
    lost = set()
    for path in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]:
        text = re.sub(r"`[^`\n]*`", "", path.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target and not (path.parent / target).exists():
                lost.add((path.name, target))
    assert lost == set()
