"""Tables of states in an object store: whole or not there, and nothing left, whatever happens."""

from __future__ import annotations

import io

import numpy as np
import obstore
import pandas as pd
import pytest
import zarr
from object_stores import BUCKET, FailingProxy, fresh_url, request, s3_environment, s3_server
from obstore.store import from_url
from state_tables import SUFFIXES, expected, export_states
from synthetic import draw_layer, layer, numbered_rows, write_layers

from tsstore.errors import AccessError, StoreError, StoreExistsError
from tsstore.store.files import object_store, objects
from tsstore.store.files.object_store import SentFile
from tsstore.store.files.objects import ObjectFiles

ROWS = draw_layer(1, 60, 9, distinct=40)


@pytest.fixture(scope="module")
def server():
    with s3_server() as url, s3_environment(url):
        yield url


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return write_layers(tmp_path_factory.mktemp("states") / "run", {"a": ROWS})["a"]


@pytest.fixture
def place(server, monkeypatch) -> str:
    """Give a place of one's own, which is given up soon; what is sent is sent in parts."""
    monkeypatch.setattr(objects, "PATIENCE_SECONDS", 3.0)
    monkeypatch.setattr(objects, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(objects, "LARGE_BYTES", 500)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 0)
    return fresh_url().removesuffix("/run.zarr")


def keys(place: str) -> list[str]:
    return sorted(item["path"] for page in obstore.list(from_url(place)) for item in page)


def contents(place: str, suffix: str) -> dict[bytes, tuple[int, int]]:
    """Return multiplicity and incidence of each state of a table in an object store."""
    store = from_url(place)
    if suffix == ".parquet":
        data = bytes(obstore.get(store, "out.parquet").bytes())
        frame = pd.read_parquet(io.BytesIO(data))
        columns = [frame[name].tolist() for name in ("state", "multiplicity", "incidence")]
    else:
        group = zarr.open_group(zarr.storage.ObjectStore(from_url(f"{place}/out.zarr")), mode="r")
        columns = [[row.tobytes() for row in group["state"][:]]]
        columns += [group[name][:].tolist() for name in ("multiplicity", "incidence")]
    return {state: counts for state, *counts in zip(*columns, strict=True)}


def uploads(server: str) -> bytes:
    """Return what the server says of uploads that have not ended."""
    return request(server, "GET", f"/{BUCKET}?uploads")[2]


@pytest.mark.filterwarnings("ignore:Object .*:UserWarning")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_in_an_object_store_is_that_on_a_disk(states, place, server, tmp_path, suffix):
    out = f"{place}/out{suffix}"
    count = export_states(states, out, scratch=tmp_path)
    right = {row: [k, q] for row, (k, q) in expected(ROWS).items()}
    assert contents(place, suffix) == right
    assert count == len(right)
    assert list(tmp_path.iterdir()) == []
    held = keys(place)
    with pytest.raises(StoreExistsError, match=f"out{suffix} exists already"):
        export_states(states, out)
    assert keys(place) == held
    assert b"<Upload>" not in uploads(server)


def test_other_kinds_are_refused_before_anything_is_counted(states, place):
    seen = []
    with pytest.raises(StoreError, match=r"ends in \.parquet or \.zarr"):
        export_states(states, f"{place}/out.csv", progress=lambda *task: seen.append(task))
    assert not seen


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("when", ["while it counts", "while it is sent"])
def test_nothing_is_left_of_what_is_interrupted(
    states, place, server, tmp_path, monkeypatch, suffix, when
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    progress = None
    if when == "while it counts":
        progress = interrupt
    else:
        upload = ObjectFiles.upload

        def upload_some(self, key, path):
            if key.endswith(("out.parquet", "multiplicity/zarr.json")):
                monkeypatch.setattr(SentFile, "pieces", interrupted(SentFile.pieces))
            upload(self, key, path)

        def interrupted(pieces):
            def some(self):
                yield next(pieces(self))
                raise KeyboardInterrupt

            return some

        monkeypatch.setattr(ObjectFiles, "upload", upload_some)
    with pytest.raises(KeyboardInterrupt):
        export_states(states, f"{place}/out{suffix}", scratch=tmp_path, progress=progress)
    assert keys(place) == []
    assert list(tmp_path.iterdir()) == []
    assert b"<Upload>" not in uploads(server)


@pytest.mark.parametrize("fault", ["busy", "done, lost", "refused"])
def test_an_outage_while_it_is_sent_is_waited_out(server, place, monkeypatch, tmp_path, fault):
    rows = layer(numbered_rows(np.arange(3000), 40))
    states = write_layers(tmp_path / "run", {"a": rows}, chunk_bytes=1 << 16)["a"]
    monkeypatch.setattr(objects, "_PART_BYTES", 5 << 10)
    monkeypatch.setattr(object_store, "_PIECE_BYTES", 1 << 10)
    sent = [0]

    def some_puts(number: int, method: str) -> str:
        sent[0] += method == "PUT"
        return fault if method == "PUT" and 1 < sent[0] < 4 else ""

    with FailingProxy(server, some_puts) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert export_states(states, f"{place}/out.parquet") == 3000
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert len(contents(place, ".parquet")) == 3000
    assert proxy.faults


@pytest.mark.filterwarnings("ignore::tsstore.errors.TsstoreWarning")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_outage_that_stays_leaves_nothing(states, server, place, monkeypatch, tmp_path, suffix):
    monkeypatch.setattr(objects, "PATIENCE_SECONDS", 0.5)
    down = []

    def no_puts(number: int, method: str) -> str:
        down.append(method)
        return "busy" if method in ("PUT", "POST") and "PUT" in down else ""

    with FailingProxy(server, no_puts) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(AccessError, match="cannot be used: the object store answers 503"):
            export_states(states, f"{place}/out{suffix}", scratch=tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    assert keys(place) == []
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there_is_told_before_anything_is_counted(states, server):
    seen = []
    with pytest.raises(AccessError, match="there is no such bucket; create it"):
        export_states(
            states, "s3://no-such-bucket/out.zarr", progress=lambda *task: seen.append(task)
        )
    assert not seen
