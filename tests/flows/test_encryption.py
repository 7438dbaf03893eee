"""Clusters whose connections are encrypted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import assert_same, contents, toy_flow, toy_store

from skyloom.algorithms.errors import SkyloomError


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the address of a scheduler that speaks TLS only, and the files a client needs."""
    from distributed import LocalCluster, Security

    security = Security.temporary()
    folder = tmp_path_factory.mktemp("certificates")
    files = {}
    for name, content in (
        ("ca_file", security.tls_ca_file),
        ("certificate", security.tls_client_cert),
        ("key", security.tls_client_key),
    ):
        (folder / name).write_text(content)
        files[name] = str(folder / name)
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        security=security,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address, files


def scheduler_file(path: Path, **content: Any) -> Path:
    path.write_text(yaml.safe_dump({"kind": "address", "timeout": 5, **content}))
    return path


def test_an_encrypted_cluster_makes_the_same_bits(
    encrypted: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, files = encrypted
    assert address.startswith("tls://")
    plain = toy_store(tmp_path / "plain")
    toy_flow(plain).run(progress=False)
    store = toy_store(tmp_path / "store")
    file = scheduler_file(tmp_path / "tls.yaml", address=address, tls=files)
    assert toy_flow(store).run(scheduler=file, progress=False).exit_code == 0
    assert_same(contents(store), contents(plain))


def test_without_certificates_an_encrypted_cluster_is_refused_at_once(tmp_path: Path) -> None:
    file = scheduler_file(tmp_path / "bare.yaml", address="tls://127.0.0.1:8786")
    store = toy_store(tmp_path / "store")
    with pytest.raises(SkyloomError, match=r"give tls with ca_file, certificate and key"):
        toy_flow(store).run(scheduler=file, progress=False)
    with pytest.raises(SkyloomError, match="encrypted: give tls"):
        toy_flow(store).run(scheduler="tls://127.0.0.1:8786", progress=False)
