"""An S3 server on loopback, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SECRET = "not-to-be-seen-anywhere"
_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of the server."""

    url: str
    environ: dict[str, str]
    """What a process needs to reach it."""

    def files(self) -> dict[str, bytes]:
        """Return everything that is in it."""
        import s3fs

        fs = s3fs.S3FileSystem(use_listings_cache=False)
        name = self.url.removeprefix("s3://")
        return {path.removeprefix(f"{name}/"): fs.cat_file(path) for path in fs.find(name)}


@contextmanager
def s3_bucket(cache: Path, name: str = "lake") -> Iterator[Bucket]:
    """Start a server that this process, and those that it starts, take for ``s3://``.

    Args:
        cache: where copies of its files are kept.
        name: of its bucket.
    """
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with (
        subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,  # it ends when nobody holds the other end
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        environ = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "NETFLIXDASK_CACHE": str(cache),
        }
        for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(key, raising=False)
        for key, value in environ.items():
            patch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            s3fs.S3FileSystem().mkdir(name)
            yield Bucket(f"s3://{name}", {**os.environ, **environ})
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.kill()
