"""Every block of code of a how-to page is run: files are laid into a folder, and the tests among them pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.howto import commands_of, files_of, lay, run_tests_of, unmarked

from sealbus.policies.rego_tests import run_tests

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
PAGES = {name: text for name, text in TEXTS.items() if any(file.startswith("test_") for file in files_of(text))}
"""Pages with tests among their files. What other pages show is run by tests of their own."""
PAGE = """
<!-- file: test_one.py -->
```python
def test_one() -> None:
    assert 1 == 1
```

<!-- run -->
```sh
sealbus doctor
sealbus pub \\
  task.a.b
```

```
printed
```
"""


def test_there_are_such_pages() -> None:
    assert set(PAGES) >= {"approving.md", "llm.md", "step-up.md", "streaming.md", "testing.md"}


@pytest.mark.parametrize("name", PAGES)
def test_no_block_of_code_is_left_out(name: str) -> None:
    assert unmarked(PAGES[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_files_of_a_page_pass_its_tests(name: str, tmp_path: Path) -> None:
    lay(PAGES[name], tmp_path)
    finished = run_tests_of(tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert all(result.passed for result in run_tests(tmp_path / "policy", opa=None))


def test_a_block_without_a_mark_is_found() -> None:
    assert unmarked(PAGE) == []
    assert unmarked(PAGE.replace("<!-- run -->", "So it is done:")) == ["sealbus doctor\nsealbus pub \\\n  task.a.b\n"]


def test_commands_are_whole() -> None:
    assert commands_of(PAGE) == ["sealbus doctor\n", "sealbus pub \\\n  task.a.b\n"]


def test_a_page_that_is_wrong_fails(tmp_path: Path) -> None:
    lay(PAGE.replace("1 == 1", "1 == 2"), tmp_path)
    assert run_tests_of(tmp_path).returncode == 1
