"""A run in Azure's object store, as its emulator Azurite has it; where that is there.

``npm install azurite`` brings it, and ``PATH``, or ``AZURITE`` with the path of its program
``azurite-blob``, tells where it is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import time
import uuid
from email.utils import formatdate

import pytest
from helpers import create_at_once
from object_stores import request
from synthetic import draw_layer, write_layers

import tsstore
from tsstore.analysis.schedulers import LocalScheduler
from tsstore.errors import AccessError, DamageError
from tsstore.store.maintenance.verify import verify

pytest.importorskip("obstore")

from tsstore.store.files.objects import ObjectFiles

PROGRAM = os.environ.get("AZURITE") or shutil.which("azurite-blob")
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, the same everywhere."""
VERSION = "2021-08-06"

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Azurite")


def create_container(server: str, name: str) -> None:
    """Create a container, by a request signed with the account's key."""
    date = formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": VERSION}
    signed = [
        "PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{VERSION}",
        f"/{ACCOUNT}/{ACCOUNT}/{name}", "restype:container",
    ]  # fmt: skip
    digest = hmac.new(base64.b64decode(KEY), "\n".join(signed).encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    status, _, body = request(
        server, "PUT", f"/{ACCOUNT}/{name}?restype=container", headers=headers
    )
    assert status == 201, body


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("azurite")
    command = [PROGRAM, "--blobPort", str(port), "--location", folder, "--silent"]
    process = subprocess.Popen(
        [*command, "--skipApiVersionCheck"], stdout=subprocess.DEVNULL, cwd=folder
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                create_container(url, "bucket")
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def url(server, monkeypatch) -> str:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{server}/{ACCOUNT}")
    monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,169.254.169.254")
    return f"az://bucket/{uuid.uuid4().hex}/run.zarr"


def test_files_are_those_of_any_place(url):
    files = ObjectFiles(url)
    for key in ("a/b", "a/c", "d"):
        files.write(key, key.encode())
    files.create("e", b"1")
    with pytest.raises(FileExistsError):
        files.create("e", b"2")
    assert files.read("a/b", (1, 2)) == b"/b"
    assert (files.read("e"), files.size("e")) == (b"1", 1)
    assert (files.list(""), files.list("a"), files.list("x")) == (["a", "d", "e"], ["b", "c"], [])
    assert list(files.walk()) == ["a/b", "a/c", "d", "e"]
    assert (files.exists("a"), files.exists("x")) == (True, False)
    files.remove("a/b")
    for missing in (files.read, files.size, files.remove):
        with pytest.raises(FileNotFoundError):
            missing("a/b")
    files.remove_tree()
    assert files.list("") == []


def test_one_creator_wins(url):
    create_at_once(ObjectFiles(url), "sealed/zarr.json")


def test_a_run_is_captured_resumed_analysed_exported_and_verified(url, tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.ReLU())
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    for path in (url, tmp_path / "run.zarr"):
        for first in (0, 20):
            with (
                torch.inference_mode(),
                tsstore.capture(model, path, layers=["1"], resume=True) as recorder,
                recorder.batch(id=range(first, first + 20)),
            ):
                model(inputs[first : first + 20])
    here, there = (tsstore.analyze(path) for path in (tmp_path / "run.zarr", url))
    assert there["1"].spectrum == here["1"].spectrum
    assert len(tsstore.open(url).parts) == 2
    assert verify(url).ok
    table = f"{url.removesuffix('/run.zarr')}/states.parquet"
    assert tsstore.export(url, "1", table) == here["1"].distinct
    files = ObjectFiles(url)
    files.remove("part-00000-00000/layers/0000-1/states/c/0/0")
    with pytest.raises(DamageError, match="it is missing"):
        tsstore.analyze(url)


@pytest.mark.parametrize(("change", "words"), [
    ({"AZURE_STORAGE_ACCOUNT_KEY": "A" * 86 + "=="}, "it is denied .*check the credentials"),
    ({"AZURE_STORAGE_ACCOUNT_KEY": "no key"}, "check AZURE_STORAGE_ACCOUNT_KEY"),
    ({"AZURE_STORAGE_ACCOUNT_KEY": "", "AZURE_CONNECT_TIMEOUT": "1s"},
     "no credentials were found; set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
])  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_do(url, monkeypatch, change, words):
    for name, value in change.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(AccessError, match=f"cannot be used: .*{words}") as caught:
        tsstore.open(url)
    assert "\n" not in str(caught.value)


def test_a_container_that_is_not_there_is_said(url):
    with pytest.raises(AccessError, match="there is no such bucket; create it, or check its name"):
        tsstore.open("az://no-such-container/run.zarr")


def test_scratch_may_lie_there(url, tmp_path, monkeypatch):
    store = write_layers(tmp_path / "run", {"a": draw_layer(1, 100, 9)})
    expected = tsstore.analyze(store, scheduler="synchronous")["a"].spectrum
    monkeypatch.setattr(LocalScheduler, "shared_memory", False)
    analysis = tsstore.analyze(store, scheduler="synchronous", scratch=url)
    assert analysis["a"].spectrum == expected
    assert list(ObjectFiles(url).walk()) == []
