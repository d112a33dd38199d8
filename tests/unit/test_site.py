"""The pages as they are laid out for the site: nothing that they link to is left behind."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def _site_pages() -> Any:
    """The script's module; `docs` is no package."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import site_pages
    finally:
        sys.path.remove(str(ROOT / "docs"))
    return site_pages


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site_pages = _site_pages()
    target = tmp_path_factory.mktemp("site") / "pages"
    target.mkdir()
    (target / "old.md").write_text("", encoding="utf-8")
    written = site_pages.lay_out(target)
    assert set(written) == {path for path in target.rglob("*") if path.is_file()}
    return target


def test_every_page_is_there(laid_out: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")} - {Path("README.md")}
    assert pages <= {path.relative_to(laid_out) for path in laid_out.rglob("*.md")}
    assert (laid_out / "index.md").read_text(encoding="utf-8").startswith("# Documentation")


def test_every_link_leads_to_a_file_of_the_site(laid_out: Path) -> None:
    broken = []
    for page in laid_out.rglob("*.md"):
        for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            name = target.partition("#")[0]
            if re.match(r"[a-z]+:", target) or not name:
                continue
            path = (page.parent / name).resolve()
            if not path.is_file() or not path.is_relative_to(laid_out):
                broken.append((page.name, target))
    assert broken == []


def test_files_that_pages_name_come_along_and_nothing_else_of_the_tree(laid_out: Path) -> None:
    beside = {path.relative_to(laid_out / "source").parts[0] for path in (laid_out / "source").rglob("*")}
    assert {"README.md", "recipes"} <= beside
    assert beside <= {
        "README.md",
        "CHANGELOG.md",
        "Dockerfile",
        "recipes",
        "calibration",
        "benchmarks",
        "lf_export",
        "tests",
    }
    assert not list(laid_out.rglob("*.safetensors"))


def test_every_page_has_one_title(laid_out: Path) -> None:
    for page in laid_out.rglob("*.md"):
        text = _FENCE.sub("", page.read_text(encoding="utf-8"))
        assert len(re.findall("^# ", text, re.MULTILINE)) == 1, page.name


def test_the_site_has_every_page_of_the_index_in_its_order() -> None:
    project = tomllib.loads(_site_pages().settings())["project"]
    (first, *sections) = project["nav"]
    assert first == {"Documentation": "index.md"}
    assert [title for section in sections for title in section] == ["Learn", "Do", "Look up", "Understand"]
    shown = [target for section in sections for pages in section.values() for page in pages for target in page.values()]
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = [target for target in _LINK.findall(index) if target.endswith(".md") and not target.startswith("..")]
    assert shown == linked
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert set(shown) == pages
    assert f"docs/site_pages.py build/{project['docs_dir']}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert project["theme"]["font"] is False  # no page asks another host for fonts
