"""Build the Dockerfile with buildah and use the image as a person would: no Docker engine is needed, but root is.

    python tests/docker/build_and_run.py [--base-root FOLDER] [--quick] [--keep FOLDER]

The base image is committed from a debootstrap root under the tag that the Dockerfile names, so that no registry is
needed; pip is configured as on this machine. In the image, as its user and with the network off: the version, doctor,
merge and quantize of a small random model, and the quickstart that ships in it, from its base to its verdict. Checked
too: size, no compiler, no root, labels, the bill of materials, and that another user can run it.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 2_500_000_000
COMPILERS = ("gcc", "cc", "g++", "clang", "rustc", "make", "ld", "pip")
SUITE = "bookworm"
# buildah's chroot isolation puts the image's own volume over a mount at /data
THERE = "/mnt"


class Buildah:
    """Commands of buildah with a storage of their own, which goes when it is closed."""

    def __init__(self, folder: Path) -> None:
        self._storage = ["--root", str(folder / "storage"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one; its standard output is kept, its errors are shown."""
        command = ["buildah", *self._storage, *arguments]
        return subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Build, use, clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-root", type=Path, help="a debootstrap root that is there; made where not given")
    parser.add_argument("--quick", action="store_true", help="leave out the quickstart, which takes minutes")
    parser.add_argument("--keep", type=Path, help="keep the storage in this folder")
    options = parser.parse_args()
    for tool in ("buildah", "unshare", *([] if options.base_root else ["debootstrap"])):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed: apt-get install buildah debootstrap util-linux")
    if os.geteuid():
        sys.exit("buildah's chroot isolation needs root")
    with workplace(options.keep) as folder:
        buildah = Buildah(folder)
        image = "localhost/lf-export:test"
        base(buildah, folder, options.base_root)
        began = time.perf_counter()
        if not buildah("images", "--quiet", image, check=False).stdout.strip():
            build(buildah, image)
            print(f"built in {time.perf_counter() - began:.0f} s")
        look(buildah, image)
        container = buildah("from", "--pull-never", image).stdout.strip()
        try:
            use(buildah, container, folder)
            if not options.quick:
                run_quickstart(buildah, container, folder)
        finally:
            buildah("rm", container)
    print("the image does what it should")


@contextlib.contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """A folder for everything; it stays where that was asked for."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="lf-export-image-") as folder:
        yield Path(folder)


def base(buildah: Buildah, folder: Path, root: Path | None) -> None:
    """Commit the base under the tag that the Dockerfile names, where it is not there."""
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, "the Dockerfile names its base"
    if buildah("images", "--quiet", found[1], check=False).stdout.strip():
        return
    if root is None:
        root = folder / "debian"
        subprocess.run(["debootstrap", "--variant=minbase", SUITE, str(root)], check=True, stdout=subprocess.DEVNULL)
    container = buildah("from", "scratch").stdout.strip()
    buildah("add", "--quiet", container, str(root), "/")
    for path in pip_paths():  # what pip trusts here; ca-certificates puts it among the system's when it is installed
        if path.suffix in {".crt", ".pem"}:
            buildah("copy", "--quiet", container, str(path), f"/usr/local/share/ca-certificates/{path.stem}-here.crt")
    buildah("config", "--cmd", "bash", container)
    buildah("commit", "--quiet", "--rm", container, found[1])


def build(buildah: Buildah, image: str) -> None:
    """The real Dockerfile; pip and its certificates are those of this machine."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    volumes = [f"--volume={path}:{path}:ro" for path in pip_paths() if path.suffix not in {".crt", ".pem"}]
    buildah(
        "bud", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never", *volumes,
        *("--build-arg", "TORCH_INDEX_URL="), *("--build-arg", f"REVISION={revision}"),
        *("--tag", image), str(ROOT),
    )  # fmt: skip


def pip_paths() -> list[Path]:
    """Settings of pip, and the folders on this machine that they point to."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    files = [Path(path) for path in re.findall(r"(/\S+), exists: True", listed)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = [Path(path) for path in re.findall(r"(?:file://)?(/[^\s:'\"]+)", text)]
    roots = {Path(*path.parts[:3]) for path in named if path.exists() and path.parts[1] == "opt"}
    others = {path for path in named if path.exists() and path.parts[1] in {"etc", "usr"}}
    return sorted({*files, *roots, *others})


def look(buildah: Buildah, image: str) -> None:
    """Size, user, labels, entry point, volume and health of the image."""
    found = json.loads(buildah("inspect", "--type", "image", image).stdout)
    config = found["Docker"]["config"]
    labels = config["Labels"]
    assert config["User"] == "1000", config["User"]
    assert config["Entrypoint"] == ["lf-export"]
    assert "/data" in config["Volumes"]
    assert config["Healthcheck"]["Test"][1:] == ["lf-export", "doctor", "--require", "gguf"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}", labels["org.opencontainers.image.revision"])


def use(buildah: Buildah, container: str, folder: Path) -> None:
    """What a person does first, with the network off."""
    mount = Path(buildah("mount", container).stdout.strip())
    size = sum(path.lstat().st_size for path in mount.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"{size / 1e9:.2f} GB, {MOST_BYTES / 1e9:.1f} are allowed")
    assert size <= MOST_BYTES
    for name in COMPILERS:
        assert shutil.which(name, path=":".join(str(mount / part) for part in ("usr/bin", "opt/lf-export/bin"))) is None
    bom = json.loads((mount / "opt/lf-export/sbom.cdx.json").read_text(encoding="utf-8"))
    assert {"lf-export", "torch", "transformers"} <= {part["name"] for part in bom["components"]}

    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    sys.path.insert(0, str(ROOT / "tests"))
    small_model(data)
    for path in (data, *data.rglob("*")):
        os.chown(path, 1000, 1000)
    assert "lf-export, version" in run(buildah, container, data, "--version")
    required = [word for part in ("gguf", "onnx", "sign", "grammar") for word in ("--require", part)]
    print(run(buildah, container, data, "doctor", *required))
    run(buildah, container, data, "merge", f"{THERE}/base", f"{THERE}/adapter", "-o", f"{THERE}/merged")
    run(
        buildah, container, data, "quantize", f"{THERE}/merged", "--format", "gguf:Q8_0", "--format", "gptq",
        "--calibration", f"{THERE}/calibration", "-o", f"{THERE}/out",
        before=(
            "calibrate", f"{THERE}/merged", "-o", f"{THERE}/calibration",
            "--num-samples", "8", "--max-seq-length", "8192",
        ),
    )  # fmt: skip
    made = sorted(path.name for path in (data / "out").iterdir())
    print("made", made)
    assert len(made) == 2
    owners = {path.stat().st_uid for path in (data / "out").rglob("*")}
    assert owners == {1000}, owners
    assert "lf-export, version" in run(buildah, container, data, "--version", user="4321:4321")


def run_quickstart(buildah: Buildah, container: str, folder: Path) -> None:
    """The recipe that ships in the image, to a PASS; its base is fetched here, since the image has no network."""
    fetch = [sys.executable, str(ROOT / "recipes" / "quickstart" / "fetch_base.py")]
    base = Path(subprocess.run(fetch, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    data = folder / "quickstart"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(base, data / "cache" / "lf-export" / base.name)
    for path in (data, *data.rglob("*")):
        os.chown(path, 1000, 1000)
    threads = os.environ.get("LF_EXPORT_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1"
    variables = (f"XDG_CACHE_HOME={THERE}/cache", f"LF_EXPORT_THREADS={threads}")
    began = time.perf_counter()
    output = f"output={THERE}/run"
    print(run(buildah, container, data, "run", "shipped:quickstart", "--set", output, variables=variables))
    print(f"the quickstart took {time.perf_counter() - began:.0f} s with {threads} threads")
    report = json.loads((data / "run" / "bench" / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "PASS", report["verdict"]
    assert {path.stat().st_uid for path in (data / "run").rglob("*")} == {1000}
    print(run(buildah, container, data, "verify", f"{THERE}/run", variables=variables))


def run(
    buildah: Buildah,
    container: str,
    data: Path,
    *arguments: str,
    user: str | None = None,
    before: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> str:
    """`lf-export` in the container, without a network, with `data` at `THERE`; what it printed."""
    if before:
        run(buildah, container, data, *before, user=user, variables=variables)
    # the network is taken away around buildah: chroot isolation has no network of its own
    storage = buildah._storage
    command = ["unshare", "--net", "buildah", *storage, "run", "--isolation", "chroot", f"--volume={data}:{THERE}"]
    command += [f"--user={user}"] if user else []
    command += [f"--env={each}" for each in ("OMP_NUM_THREADS=1", *variables)]
    ended = subprocess.run(
        [*command, container, "--", "lf-export", *arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    assert ended.returncode == 0, f"lf-export {' '.join(arguments)} ended with status {ended.returncode}"
    return ended.stdout


def small_model(data: Path) -> None:
    """A random model with an adapter, in `data`."""
    from models import tiny_adapter, tiny_model

    tiny_model(data / "base", max_position_embeddings=8192)
    tiny_adapter(data / "adapter", data / "base")


if __name__ == "__main__":
    main()
