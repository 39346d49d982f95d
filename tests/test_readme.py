"""The README's commands are the ones that are tested, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RUN = "pip install -e . && python run_rl.py --reward loss-slope"
TEST = "pip install -e '.[test]' && pytest"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def fenced(text: str) -> list[str]:
    """The lines inside fences."""
    return [
        line.strip()
        for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]


def links(text: str) -> list[str]:
    """Targets of links and pictures outside fences, without anchors; web addresses left out."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", prose) + re.findall(r"^\[[^\]]+\]:\s+(\S+)", prose, re.MULTILINE)
    targets += re.findall(r"(?:src|href)=\"([^\"]+)\"", prose)
    local = [target.split("#")[0] for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target)]
    return [target for target in local if target]


def test_links_are_found():
    text = '[a](x/y.md#z) ![b](<c.png> "t") [w](https://a.b/c) [d](#here)\n\n[e]: f.md\n```\n[no](no.md)\n```\n'
    assert links(text) == ["x/y.md", "c.png", "f.md"]


def test_two_commands_install_and_run_and_test():
    lines = fenced(README.read_text())
    assert lines.count(RUN) == 1
    assert lines.count(TEST) == 1
    assert [line for line in lines if "pip install" in line] == [RUN, TEST]


def test_the_checks_run_the_command_of_the_readme():
    assert TEST in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    missing = [target for target in links(page.read_text()) if not (page.parent / target).exists()]
    assert not missing
    for target in links(page.read_text()):
        assert (page.parent / target).resolve().is_relative_to(ROOT), f"{target} leaves the project"
