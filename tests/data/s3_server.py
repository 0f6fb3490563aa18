"""A small S3 server in this process: what pyarrow asks of one, with objects in memory and no signatures."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape


@dataclass
class Stored:
    """An object."""

    content: bytes
    time: float  # seconds since 1970

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


@dataclass
class Server:
    """Buckets with their objects, and what the server was asked."""

    buckets: dict[str, dict[str, Stored]] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)  # buckets that nobody may touch
    unwritable: set[str] = field(default_factory=set)  # buckets that nobody may write
    asked: list[tuple[str, str]] = field(default_factory=list)  # method, path
    broken: list[str] = field(default_factory=list)  # keys whose content does not come, once each
    clock: float = 1_700_000_000.0
    port: int = 0
    most: int = 1000  # keys on a page of a listing

    def put(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object, a second later than the one before."""
        self.clock += 1
        self.buckets.setdefault(bucket, {})[key] = Stored(content, self.clock)

    def uri(self, path: str) -> str:
        """The address of a bucket, folder or object."""
        return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"

    def count(self, method: str, ending: str = "") -> int:
        """How many requests of a kind there were."""
        return sum(asked == method and path.endswith(ending) for asked, path in self.asked)


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers as long as the context lasts."""
    state = Server()

    class Handler(_Handler):
        server_state = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def _take(self) -> tuple[str, str, dict[str, list[str]], bytes]:
        """Bucket, key, query and body of the request."""
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        self.server_state.asked.append((self.command, unquote(parts.path)))
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" in (self.headers.get("Content-Encoding") or ""):
            body = _unchunked(body)
        return bucket, key, parse_qs(parts.query, keep_blank_values=True), body

    def _chunk(self) -> bytes:
        """A chunk of a body whose length nobody has said; an empty one is its end."""
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _answer(self, code: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: int, name: str) -> None:
        self._answer(code, f"<Error><Code>{name}</Code><Message>{name}</Message></Error>".encode())

    def _objects(self, bucket: str) -> dict[str, Stored] | None:
        """The objects of a bucket; None, with an answer, where it cannot be used."""
        state = self.server_state
        is_written = self.command in ("PUT", "POST", "DELETE")
        if bucket in state.closed or (is_written and bucket in state.unwritable):
            self._refuse(403, "AccessDenied")
        elif bucket not in state.buckets:
            self._refuse(404, "NoSuchBucket")
        else:
            return state.buckets[bucket]
        return None

    def do_GET(self) -> None:
        bucket, key, query, _ = self._take()
        objects = self._objects(bucket)
        if objects is None:
            return
        if not key:
            self._answer(200, _listed(objects, query, self.server_state.most), Content_Type="application/xml")
        elif key not in objects:
            self._refuse(404, "NoSuchKey")
        else:
            self._send(key, objects[key])

    do_HEAD = do_GET

    def _send(self, key: str, stored: Stored) -> None:
        """An object, or a range of it."""
        size, first = len(stored.content), 0
        headers = {"ETag": stored.etag, "Last_Modified": formatdate(stored.time, usegmt=True)}
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        code, content = 200, stored.content
        if found:
            first, last = int(found[1]), int(found[2] or size - 1)
            code, content = 206, stored.content[first : last + 1]
            headers["Content_Range"] = f"bytes {first}-{first + len(content) - 1}/{size}"
        if self.command == "GET" and key in self.server_state.broken:
            self.server_state.broken.remove(key)
            self._refuse(400, "RequestTimeTooSkewed")
            return
        self._answer(code, b"" if self.command == "HEAD" else content, len(content), **headers)

    def do_PUT(self) -> None:
        bucket, key, query, body = self._take()
        objects = self._objects(bucket)
        if objects is None:
            return
        if "uploadId" in query:
            self.server_state.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
        elif key:
            self.server_state.put(bucket, key, body)
        self._answer(200, ETag=Stored(body, 0).etag)

    def do_POST(self) -> None:
        bucket, key, query, body = self._take()
        objects = self._objects(bucket)
        if objects is None:
            return
        state = self.server_state
        if "uploads" in query:
            name = f"upload{len(state.uploads)}"
            state.uploads[name] = {}
            self._answer(200, _xml("InitiateMultipartUploadResult", f"<UploadId>{name}</UploadId>"))
        elif "uploadId" in query:
            parts = state.uploads.pop(query["uploadId"][0])
            state.put(bucket, key, b"".join(parts[number] for number in sorted(parts)))
            self._answer(200, _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key>"))
        else:  # several to delete
            for found in ElementTree.fromstring(body).iter():
                if found.tag.endswith("Key"):
                    objects.pop(found.text or "", None)
            self._answer(200, _xml("DeleteResult", ""))

    def do_DELETE(self) -> None:
        bucket, key, _, _ = self._take()
        objects = self._objects(bucket)
        if objects is not None:
            objects.pop(key, None)
            self._answer(204)


def _listed(objects: dict[str, Stored], query: dict[str, list[str]], most: int) -> bytes:
    """A page of a listing."""

    def one(name: str) -> str:
        return (query.get(name) or [""])[0]

    prefix, delimiter, start = (
        one("prefix"),
        one("delimiter"),
        one("continuation-token") or one("start-after"),
    )
    most = min(most, int(one("max-keys") or most))
    entries: list[str] = []
    folders: set[str] = set()
    last = ""
    for key in sorted(objects):
        if not key.startswith(prefix) or key <= start:
            continue
        if len(entries) == most:
            break
        last, rest = key, key[len(prefix) :]
        if delimiter and delimiter in rest:
            folder = prefix + rest.partition(delimiter)[0] + delimiter
            if folder not in folders:
                folders.add(folder)
                entries.append(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>")
            continue
        stored = objects[key]
        entries.append(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_iso(stored.time)}</LastModified>"
            f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.content)}</Size></Contents>"
        )
    rest_of = any(key > last for key in objects if key.startswith(prefix)) and len(entries) == most
    more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if rest_of else ""
    return _xml(
        "ListBucketResult",
        f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(entries)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<IsTruncated>{str(rest_of).lower()}</IsTruncated>{more}{''.join(entries)}",
    )


def _xml(root: str, inner: str) -> bytes:
    return f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'.encode()


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _unchunked(body: bytes) -> bytes:
    """What a body in chunks with signatures and checksums holds."""
    found: list[bytes] = []
    while body:
        head, _, body = body.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if not size:
            break
        found.append(body[:size])
        body = body[size + 2 :]
    return b"".join(found)
