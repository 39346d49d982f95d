"""Every Python snippet of README and docs is Python, and what it imports is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    (page.name, number, snippet)
    for page in PAGES
    for number, snippet in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
]


def test_there_are_snippets():
    assert {"README.md", "camnet.md", "export.md"} <= {page for page, _, _ in SNIPPETS}


@pytest.mark.parametrize(("page", "number", "snippet"), SNIPPETS, ids=[f"{page}-{n}" for page, n, _ in SNIPPETS])
def test_what_a_snippet_imports_is_there(page, number, snippet):
    imports = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Import | ast.ImportFrom)]
    try:
        exec(compile(ast.Module(imports, []), page, "exec"), {})
    except ModuleNotFoundError as error:
        if (ROOT / str(error.name).split(".")[0]).exists():
            raise
        pytest.skip(f"{error.name} is not installed")
