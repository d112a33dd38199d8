"""The browser that tests of HTML pages run in: the one that is there, else one fetched once and checked by its digest.

`python tests/fetch_chromium.py` prints where it is. Looked for in this order: `LF_EXPORT_CHROMIUM`, the cache, `PATH`.
Where there is none, npm's package `@sparticuz/chromium`, which holds a headless Chromium for x86-64 Linux with the
libraries that it needs, is fetched into the cache.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "153.0.0"
_PACKAGE = f"@sparticuz/chromium@{VERSION}"
# Of the package's archive, as the npm registry states it for this version.
_SHA512 = (
    "8e2196a92bcf31dbb8f8ff538a562a011ef21063c41c8371fa50af13f36a34ef"
    "c41d8cc5ff1d615222394fa8a8548b7b744cbb9fcf1bcb24f4be4f9d9ec810c0"
)
_NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable", "chrome")
_HINT = "install Chromium (for example apt install chromium), or set LF_EXPORT_CHROMIUM to its path"
_FONTS = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{folder}/fonts</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{folder}/fonts-cache</cachedir>
</fontconfig>
"""
_INFLATE = (
    "const [from, to] = process.argv.slice(1); const fs = require('fs');"
    "require('stream').pipeline(fs.createReadStream(from), require('zlib').createBrotliDecompress(),"
    "fs.createWriteStream(to), (error) => { if (error) throw error; });"
)


def cache() -> Path:
    """Where the fetched browser lies."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "lf-export" / f"chromium-{VERSION}"


def find() -> Path | None:
    """The browser's program, None where there is none yet."""
    if given := os.environ.get("LF_EXPORT_CHROMIUM"):
        return Path(given)
    fetched = cache() / "chromium"
    if fetched.is_file():
        return fetched
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    return Path(found) if found else None


def fetch() -> Path:
    """Fetch the browser into the cache, whole or not at all.

    Raises:
        SystemExit: it cannot be had here; says what to do.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None or platform.machine() != "x86_64":
        raise SystemExit(f"error: no Chromium for the tests of HTML pages\nhint: {_HINT}")
    cache().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache().parent, prefix=".chromium-") as scratch:
        work, made = Path(scratch), Path(scratch) / "made"
        made.mkdir()
        done = subprocess.run(
            [npm, "pack", "--silent", "--pack-destination", str(work), _PACKAGE], check=False, stdout=subprocess.DEVNULL
        )
        archives = list(work.glob("*.tgz"))
        if done.returncode != 0 or len(archives) != 1:
            raise SystemExit(f"error: npm could not fetch {_PACKAGE}\nhint: {_HINT}")
        found = hashlib.sha512(archives[0].read_bytes()).hexdigest()
        if found != _SHA512:
            raise SystemExit(f"error: {_PACKAGE} has the digest {found}, expected {_SHA512}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(work, filter="data")
        for name in ("chromium", "al2023.tar", "fonts.tar", "swiftshader.tar"):
            subprocess.run(
                [node, "-e", _INFLATE, str(work / "package/bin" / f"{name}.br"), str(work / name)], check=True
            )
        for name in ("al2023.tar", "fonts.tar", "swiftshader.tar"):
            with tarfile.open(work / name) as archive:
                archive.extractall(made, filter="data")
        # The package's own file names the folders of another place.
        (made / "fonts.conf").write_text(_FONTS.format(folder=cache()), encoding="utf-8")
        (work / "chromium").chmod(0o755)
        (work / "chromium").rename(made / "chromium")
        try:
            made.rename(cache())
        except OSError:  # another process was faster
            if not (cache() / "chromium").is_file():
                raise
    return cache() / "chromium"


if __name__ == "__main__":
    sys.stdout.write(f"{find() or fetch()}\n")
