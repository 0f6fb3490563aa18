"""Files and folders of object stores, by pyarrow: listed, read, written; what goes wrong is one sentence."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from seqssl.config.addresses import inside
from seqssl.data.files import Progress, sha256_json, unlinked
from seqssl.data.wording import shortened
from seqssl.errors import UserError

AT_ONCE = 8  # files on their way at a time: small ones wait for answers more than for bytes
PART_BYTES = 2**20
MEGABYTE = 10**6
SECRETS = {"access_key", "secret_key", "session_token", "account_key", "client_secret", "sas_token", "sig"}
NO_PERMISSION = "no permission, with the credentials of this environment"
REASONS = {  # what the answer of a store means, by words in it
    "there is no such bucket": (
        "NO_SUCH_BUCKET", "NoSuchBucket", "bucket does not exist", "To create buckets",
        "ContainerNotFound",
    ),
    "the credentials of this environment are missing or not accepted": (
        "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID", "EXPIRED_TOKEN",
        "ExpiredToken", "UNRECOGNIZED_CLIENT", "MISSING_AUTHENTICATION_TOKEN", "UNAUTHENTICATED",
    ),
    NO_PERMISSION: (
        "ACCESS_DENIED", "AccessDenied", "PERMISSION_DENIED", "Forbidden", "HTTP status 403",
        "AuthorizationFailure", "AuthorizationPermissionMismatch",
    ),
    "it cannot be reached": (
        "NETWORK_CONNECTION", "curlCode", "resolve host", "Connection refused", "timed out", "UNAVAILABLE",
        "REQUEST_TIMEOUT",
    ),
}  # fmt: skip


class Entry(NamedTuple):
    """A file of a listing."""

    name: str  # relative to the folder; "" for the file itself that an address names
    num_bytes: int
    time_ns: int  # of its last change
    sha256: str = ""  # of its content, where that is known


@dataclass(frozen=True)
class Remote:
    """A file or folder of an object store."""

    address: str
    store: pafs.FileSystem
    path: str  # in the store

    @classmethod
    def of(cls, address: str) -> "Remote":
        """What an address names, be it there or not; UserError for one that is none, or holds a secret."""
        parts = urlsplit(address)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if parts.password is not None or SECRETS & {*query}:
            raise UserError(
                f"{parts.scheme}://...@{parts.hostname}{parts.path}: a secret in an address would be stored "
                "with what is made of it. Credentials come from the environment, such as AWS_ACCESS_KEY_ID "
                "and AWS_SECRET_ACCESS_KEY."
            )
        with remote_errors(address):
            try:
                if parts.scheme == "s3" and query.pop("anonymous", "").lower() == "true":
                    path = unquote(parts.netloc + parts.path)
                    return cls(address, _anonymous(parts.netloc, query), path.rstrip("/"))
                # Spaces and letters beyond ASCII, which people type as they are, must be written as %20.
                plain = quote(urlunsplit(parts), safe="%:/?#[]@!$&'()*+,;=~")
                store, path = pafs.FileSystem.from_uri(plain)
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise UserError(f"{address}: it is no address of an object store ({error}).") from error
        return cls(address, store, path.rstrip("/"))

    def at(self, name: str) -> str:
        """The place in the store of a file of this folder."""
        return f"{self.path}/{name}" if name else self.path

    def listing(self) -> list[Entry]:
        """All files, sorted by name; of a folder without any, none. UserError where there is nothing."""
        with remote_errors(self.address):
            try:
                alone = self.store.get_file_info(self.path)
            except OSError:  # to ask for one file may be forbidden where a listing is not
                alone = None
            if alone is not None and alone.type == pafs.FileType.File:
                return [Entry("", alone.size, alone.mtime_ns or 0)]
            found = self.store.get_file_info(pafs.FileSelector(self.path, recursive=True))
        start = len(self.path) + 1
        files = [file for file in found if file.type == pafs.FileType.File]
        return sorted(Entry(file.path[start:], file.size, file.mtime_ns or 0) for file in files)

    def content(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        with remote_errors(self.address):
            try:
                with self.store.open_input_stream(self.at(name)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def download(self, entry: Entry, target: Path, came: Callable[[int], None]) -> None:
        """Bring a file, which appears whole with its time, or not at all.

        `came` is told of bytes as they come. UserError where its size or content is not what the entry says.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        # A short name: the target's own may be as long as a disk allows.
        temporary = unlinked(target.with_name(f".{sha256_json(target.name)[:16]}.tmp"))
        digest, size = hashlib.sha256(), 0
        with temporary.open("wb") as file:
            for part in self._parts(entry.name):
                file.write(part)
                digest.update(part)
                size += len(part)
                came(len(part))
        if size != entry.num_bytes:
            raise UserError(
                f"{self.address}: {entry.name or 'it'} was listed with {entry.num_bytes:,} bytes and has "
                f"{size:,}: it has changed in the meantime. Try again when it stays as it is."
            )
        if entry.sha256 and digest.hexdigest() != entry.sha256:
            raise UserError(f"{self.address}: {entry.name} is damaged, by its SHA-256: prepare again.")
        os.utime(temporary, ns=(entry.time_ns, entry.time_ns))
        os.replace(temporary, target)

    def _parts(self, name: str) -> Iterator[bytes]:
        """The content of a file, part by part."""
        where = inside(self.address, name) if name else self.address
        with remote_errors(where), self.store.open_input_stream(self.at(name)) as stream:
            while part := stream.read(PART_BYTES):
                yield part

    def upload(self, path: Path, name: str) -> None:
        """Write a file; where that is interrupted, what has been written of it is removed."""
        with path.open("rb") as file:
            stream = None
            try:
                with remote_errors(self.address):
                    stream = self.store.open_output_stream(self.at(name))
                while part := file.read(PART_BYTES):
                    with remote_errors(self.address):
                        stream.write(part)
            except BaseException as error:
                # The end of a stream publishes what was written as if it were the whole file, also that of
                # one whose opening was interrupted. But where opening has failed, nothing was written.
                if stream is not None or not isinstance(error, Exception):
                    with suppress(OSError, pa.ArrowException):
                        if stream is not None:
                            stream.close()
                        self.store.delete_file(self.at(name))
                raise
            with remote_errors(self.address):
                stream.close()

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with remote_errors(self.address):
            try:
                self.store.delete_file(self.at(name))
            except FileNotFoundError:
                pass

    def make(self) -> None:
        """Make the folder; UserError where nothing may be written."""
        with remote_errors(self.address):
            self.store.create_dir(self.path, recursive=True)


def _anonymous(bucket: str, query: dict[str, str]) -> pafs.FileSystem:
    """S3 without credentials, as for public buckets; pyarrow's addresses have no word for that."""
    if "endpoint_override" not in query and "region" not in query:
        query["region"] = pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(anonymous=True, **query)


@contextmanager
def remote_errors(address: str) -> Iterator[None]:
    """A context that tells errors of a store in one sentence. Nothing in it may use this machine's disks."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{address}: there is no such file or folder.") from error
    except (OSError, pa.ArrowException) as error:
        said = shortened(str(error)).rstrip(".")
        why = next((why for why, signs in REASONS.items() if any(sign in str(error) for sign in signs)), "")
        raise UserError(f"{address}: {why} ({said})." if why else f"{address}: {said}.") from error


def download_all(remote: Remote, files: Sequence[tuple[Entry, Path]], progress: Progress) -> None:
    """Bring several files at a time; what has come stays where one fails."""
    total, done = sum(entry.num_bytes for entry, _ in files), 0
    what = f"downloading {remote.address} (MB)"

    def came(size: int) -> None:
        nonlocal done
        done += size  # of several threads, for people: it need not be exact

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(remote.download, entry, target, came) for entry, target in files]
        try:
            for future in as_completed(futures):
                future.result()
                progress(done // MEGABYTE, max(1, total // MEGABYTE), what)
        finally:
            for future in futures:
                future.cancel()


def place_of(address: str) -> str:
    """By what name the cache knows an address: a slash at the end of its path makes no difference."""
    path, mark, options = address.partition("?")
    return sha256_json(f"{path.rstrip('/')}{mark}{options}")[:12]


def size_in_words(num_bytes: int) -> str:
    """Bytes as people write them: 1.2 GB."""
    size, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:.3g} {unit}" if unit != "bytes" else f"{num_bytes} bytes"
