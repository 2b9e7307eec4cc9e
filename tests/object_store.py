"""An object store on this machine: moto's server of S3, on a loopback address."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

BUCKET = "library"
OWN_FIELDS = ("mtime_ns", "version")  # of the lines of a manifest, which a folder has otherwise


@contextlib.contextmanager
def served_bucket() -> Iterator[Any]:
    """Serve an empty bucket `s3://library`, told to this process and its children by their environment."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    s3fs.S3FileSystem.clear_instance_cache()  # those of a server that was here before
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        server.stop()


def objects(s3: Any, prefix: str) -> dict[str, bytes]:
    """The content of all objects of the bucket under a prefix, by the rest of their names."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    return {key[len(prefix) + 1 :]: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
