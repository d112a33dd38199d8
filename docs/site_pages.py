"""Lay out the pages for the site: what they link to outside of `docs` comes along, so that no link leads nowhere.

    python docs/site_pages.py build/site-docs && zensical build --strict --config-file build/site-docs.toml

`make site` does both. The settings are those of `zensical.toml`, with the pages in the order of the index. Pages
outside of `docs`, such as the README, become pages under `source`; other files are copied there; a link to a folder
keeps its words and loses its target.
"""

import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_PAGES = {".md"}
_NOT_SHOWN = {".py"}


def lay_out(target: Path) -> list[Path]:
    """Write the site's pages into `target`, which is emptied first; returns what was written.

    Raises:
        FileNotFoundError: a page links to what is not there.
    """
    shutil.rmtree(target, ignore_errors=True)
    waiting = sorted(path for path in DOCS.rglob("*") if path.is_file() and path.suffix not in _NOT_SHOWN)
    seen = set(waiting)
    written = []
    while waiting:
        source = waiting.pop(0)
        place = target / _place(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix in _PAGES:
            text, linked = _rewritten(source)
            place.write_text(text, encoding="utf-8")
            waiting += [path for path in linked if path not in seen]
            seen.update(linked)
        else:
            shutil.copyfile(source, place)
        written.append(place)
    return written


def settings() -> str:
    """The site's settings, with the sections and pages of the index of `docs`, in its order and by its names."""
    sections: list[tuple[str, list[str]]] = []
    for line in (DOCS / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections.append((line.removeprefix("## "), []))
        for words, target in _LINK.findall(line):
            if sections and target.endswith(".md") and not target.startswith(".."):
                sections[-1][1].append(f"    {{ {json.dumps(words[:1].upper() + words[1:])} = {json.dumps(target)} }},")
    entries = [
        line for title, pages in sections if pages for line in (f"  {{ {json.dumps(title)} = [", *pages, "  ] },")
    ]
    nav = "\n".join(["nav = [", '  { "Documentation" = "index.md" },', *entries, "]"])
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    return text.replace("[project]\n", f"[project]\n{nav}\n", 1)


def _place(source: Path) -> Path:
    """Where a file of the tree lies in the site; the index of `docs` is the site's own."""
    if source == DOCS / "README.md":
        return Path("index.md")
    return source.relative_to(DOCS) if source.is_relative_to(DOCS) else Path("source") / source.relative_to(ROOT)


def _rewritten(page: Path) -> tuple[str, list[Path]]:
    """The page's text with links between places in the site, and the files that it links to."""
    linked: list[Path] = []

    def change(found: re.Match[str]) -> str:
        words, target = found.groups()
        name, hash_sign, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not name:
            return found[0]
        path = (page.parent / name).resolve(strict=True)
        if not path.is_file() or not path.is_relative_to(ROOT):
            return words
        linked.append(path)
        return f"[{words}]({_relative(_place(path), _place(page).parent)}{hash_sign}{anchor})"

    text = page.read_text(encoding="utf-8")
    parts, at = [], 0
    for block in _CODE.finditer(text):
        parts += [_LINK.sub(change, text[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, _LINK.sub(change, text[at:])]), linked


def _relative(path: Path, folder: Path) -> str:
    """`path` as a link from a page in `folder`, both relative to the site."""
    shared = 0
    while shared < min(len(path.parts) - 1, len(folder.parts)) and path.parts[shared] == folder.parts[shared]:
        shared += 1
    return "/".join([".."] * (len(folder.parts) - shared) + list(path.parts[shared:]))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(f"{len(lay_out(folder))} files for the site in {folder}")
    folder.with_suffix(".toml").write_text(settings(), encoding="utf-8")
