"""Addresses of files and folders in object stores, as text: nothing is asked of a network here."""

from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs")  # those of pyarrow


def is_remote(source: str) -> bool:
    """Whether a source is the address of something in an object store, and no path."""
    return "://" in source and urlsplit(source).scheme in SCHEMES


def name_of(source: str) -> str:
    """The last name in a path or address: of a file, a folder or a bucket."""
    if not is_remote(source):
        return Path(source).name
    parts = urlsplit(source)
    return PurePosixPath(unquote(parts.path)).name or parts.netloc.rpartition("@")[2]


def stem_of(source: str) -> str:
    """The same without its ending."""
    return Path(name_of(source)).stem


def inside(folder: str, name: str) -> str:
    """How people are told of a file in a folder."""
    if is_remote(folder):
        return f"{folder.partition('?')[0].rstrip('/')}/{name}"
    return str(Path(folder).expanduser() / name)
