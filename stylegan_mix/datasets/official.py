"""The official CIFAR archives: their names, addresses and hashes.

MD5 as on the authors' page (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html), SHA-256
as in the downloaders of Keras (python) and TensorFlow Datasets (binary).
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from stylegan_mix import store
from stylegan_mix.errors import InvalidInput, MissingEnvironment
from stylegan_mix.session import Session

__all__ = [
    "SETS",
    "OfficialArchive",
    "OfficialSet",
    "downloads",
    "fetch",
    "known_by_hash",
    "present",
    "what_to_get",
]

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class OfficialArchive:
    """One published file."""

    file: str
    size: int
    md5: str
    sha256: str

    @property
    def url(self) -> str:
        """The address at its authors."""
        return f"https://www.cs.toronto.edu/~kriz/{self.file}"


@dataclass(frozen=True)
class OfficialSet:
    """A published data set: its archives, the one to download first, and its usual draw."""

    classes: int
    archives: tuple[OfficialArchive, ...]
    default: tuple[str, float]


SETS = {
    "cifar10_lt": OfficialSet(
        10,
        (
            OfficialArchive(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c32a1d4ab5d03f1284b67883e8d87530",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            OfficialArchive(
                "cifar-10-python.tar.gz",
                170_498_071,
                "c58f30108f718f92721af3b95e74349a",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
        ),
        ("exp", 100.0),
    ),
    "cifar100_lt": OfficialSet(
        100,
        (
            OfficialArchive(
                "cifar-100-binary.tar.gz",
                168_513_733,
                "03b5dce01913d631647c71ecec9e9cb8",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
            OfficialArchive(
                "cifar-100-python.tar.gz",
                169_001_437,
                "eb9058c3a382ffc7106e4002c42a8d85",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
        ),
        ("exp", 100.0),
    ),
}


def downloads() -> Path:
    """Returns the folder of archives: searched for them, and filled by a download."""
    return store.home() / "downloads"


def what_to_get(name: str) -> str:
    """Explains how to get an absent data set: file, address, hash, place, command."""
    first, second = SETS[name].archives
    return (
        f"with a network: stylegan-mix dataset prepare {name}\n"
        f"  without: get {first.url} ({first.size:,} bytes, SHA-256 {first.sha256}, MD5 "
        f"{first.md5}) or {second.file} from the same place (MD5 {second.md5}), put it into "
        f"{downloads()}, and run the same; or name what you have: "
        f"stylegan-mix dataset prepare {name} --from PATH"
    )


def known_by_hash(content: bytes) -> OfficialArchive | None:
    """Recognises the published archive with these bytes: size, MD5 and SHA-256 all fit."""
    for named in SETS.values():
        for archive in named.archives:
            if len(content) == archive.size and _fits(archive, content):
                return archive
    return None


def _fits(archive: OfficialArchive, content: bytes) -> bool:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return md5 == archive.md5 and hashlib.sha256(content).hexdigest() == archive.sha256


def present(name: str) -> Path | None:
    """Finds the archive of a published data set in `downloads`, if it is there."""
    paths = [downloads() / archive.file for archive in SETS[name].archives]
    return next((path for path in paths if path.is_file()), None)


def fetch(name: str, session: Session = Session()) -> Path:
    """Returns the archive of a published data set from `downloads`, or downloads and checks it.

    Raises `MissingEnvironment` (exit code 4), with the files to get, if there is no network, and
    `InvalidInput` (3) if the download is not the published file.
    """
    found = present(name)
    if found is not None:
        return found
    archive = SETS[name].archives[0]
    final = downloads() / archive.file
    store.free_space(store.home(), archive.size, f"downloading {archive.file}")
    temporary = final.with_name(f".{archive.file}.{os.getpid()}")
    session.say(f"downloading {archive.url} ({archive.size / 1e6:,.0f} MB) to {final}")
    try:
        with store.disk_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            _download(name, archive, temporary, session)
            os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    return final


def _download(name: str, archive: OfficialArchive, temporary: Path, session: Session) -> None:
    progress = session.track(archive.size, "bytes", archive.file)
    with temporary.open("wb") as file:
        try:
            with urllib.request.urlopen(archive.url, timeout=TIMEOUT_SECONDS) as answer:
                while block := answer.read(1 << 20):
                    file.write(block)
                    progress.update(file.tell())
                    session.go_on(f"{archive.url} was being downloaded")
                    if file.tell() > archive.size:
                        break
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise MissingEnvironment(
                f"{archive.url} could not be downloaded: {error}", remedy=what_to_get(name)
            ) from error
        finally:
            progress.close()
    if not _fits(archive, temporary.read_bytes()):
        raise InvalidInput(
            f"the file from {archive.url} is not the published file: its hash is another",
            remedy=what_to_get(name),
        )
