"""A run as zarr-python sees it through us: what is committed, and nothing else."""

from __future__ import annotations

import json
import pickle
import shutil

import children
import numpy as np
import pytest
import xarray
import zarr
from helpers import draw_batch, rows_of, start_part, stored_files, write_run
from object_stores import fresh_url, s3_environment, s3_server
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import GroupMetadata
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync

from tsstore.errors import DamageError
from tsstore.store.files.local import LocalFiles
from tsstore.store.files.open import open_files
from tsstore.store.maintenance.compact import compact
from tsstore.store.reading.store import open_store
from tsstore.store.writing.part import create_seal

LAYER = "part-00000-00000/layers/0001-fc.2"
STATES = f"{LAYER}/states"
COLUMNS = {
    "label": [1, 2, 3, 4, 5, 6, 7],
    "name": ["a", "", "ü", "d", "e", "f", "g"],
    "loss": np.linspace(0, 1, 7, dtype=np.float32),
    "seen": [True, False] * 3 + [True],
    "c": np.arange(7),
}


def batches(count: int = 3):
    rng = np.random.default_rng(0)
    for _ in range(count):
        positions = {"conv_1": 3, "fc.2": rng.integers(0, 5, 7).tolist()}
        yield draw_batch(rng, 7, positions=positions, columns=COLUMNS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A finished run with full chunks, unfinished ones and varying positions."""
    path = tmp_path_factory.mktemp("written") / "run.zarr"
    write_run(path, batches())
    return path


@pytest.fixture
def path(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run.zarr")


def everything(group: zarr.Group) -> dict:
    """Return attributes of all nodes, and what is in all arrays."""
    return {"": dict(group.attrs)} | {
        name: (dict(node.attrs), node[...].tolist() if isinstance(node, zarr.Array) else None)
        for name, node in group.members(max_depth=None)
    }


def keys(group: zarr.Group, prefix: str = "") -> list[str]:
    async def listed() -> list[str]:
        return [key async for key in group.store.list_prefix(prefix)]

    return sorted(sync(listed()))


def value(group: zarr.Group, key: str, byte_range=None) -> bytes | None:
    found = sync(group.store.get(key, default_buffer_prototype(), byte_range))
    return None if found is None else found.to_bytes()


def test_of_a_finished_run_it_shows_what_plain_zarr_does(path):
    group = open_store(path).zarr_group
    plain = zarr.open_group(path, mode="r", use_consolidated=False)
    assert type(group) is zarr.Group
    assert everything(group) == everything(plain)
    assert keys(group) == [str(file.relative_to(path)) for file in stored_files(path)]
    for key in keys(group):
        assert sync(group.store.exists(key))
        if "/c/" not in key:
            assert json.loads(value(group, key)) == json.loads((path / key).read_bytes())


def test_rows_that_are_committed_later_never_show(tmp_path):
    earlier, *later = batches(4)
    writer = start_part(tmp_path, earlier)
    writer.append(earlier)
    writer.commit()
    store = open_store(tmp_path)
    group = store.zarr_group
    before = everything(group)
    for batch in later:
        writer.append(batch)
        writer.commit()
    writer.seal()
    assert everything(group) == before
    assert everything(store.zarr_group) == before
    np.testing.assert_array_equal(group[STATES], rows_of([earlier], "fc.2"))
    every = store.refresh().zarr_group
    assert every[STATES].shape > group[STATES].shape
    np.testing.assert_array_equal(every[STATES], rows_of([earlier, *later], "fc.2"))


def test_the_last_chunk_holds_nothing_that_is_not_committed(tmp_path):
    earlier, later = batches(2)
    writer = start_part(tmp_path, earlier, chunk_bytes=1 << 16)
    writer.append(earlier)
    writer.commit()
    group = open_store(tmp_path).zarr_group
    key = f"{STATES}/c/0/0"
    shown = value(group, key)
    assert shown == (tmp_path / key).read_bytes()
    writer.append(later)
    writer.commit()
    assert (tmp_path / key).read_bytes() != shown == value(group, key)
    writer.seal()


def test_a_commit_after_the_seal_never_shows(tmp_path):
    earlier, later = batches(2)
    writer = start_part(tmp_path, earlier)
    writer.append(earlier)
    writer.commit()
    sealed = writer.record
    writer.append(later)
    writer.commit()
    create_seal(LocalFiles(tmp_path), writer.directory, sealed, "resumed", "another process")
    plain = zarr.open_group(tmp_path, mode="r", use_consolidated=False)
    group = open_store(tmp_path).zarr_group
    np.testing.assert_array_equal(plain[STATES], rows_of([earlier, later], "fc.2"))
    np.testing.assert_array_equal(group[STATES], rows_of([earlier], "fc.2"))
    record = group["part-00000-00000/commit"].attrs["tsstore"]
    assert (record["generation"], record["samples"]) == (1, 7)
    assert dict(group["part-00000-00000/sealed"].attrs) == dict(
        plain["part-00000-00000/sealed"].attrs
    )


def test_what_lies_beyond_the_commit_is_not_there(path):
    group = open_store(path).zarr_group
    chunk = sorted((path / STATES / "c").iterdir(), key=lambda p: int(p.name))[-1]
    beyond = f"{STATES}/c/{int(chunk.name) + 1}"
    (path / beyond).mkdir()
    (path / beyond / "0").write_bytes((chunk / "0").read_bytes())
    (path / LAYER / "foreign").write_text("x")
    for key in (f"{beyond}/0", f"{LAYER}/foreign", f"{STATES}/c/0", f"{STATES}/c/x/0", "x", ""):
        assert value(group, key) is None
        assert not sync(group.store.exists(key))
    assert f"{beyond}/0" not in keys(group)


def test_damaged_and_missing_chunks_are_our_error(path):
    group = open_store(path).zarr_group
    first, second = (path / STATES / "c" / name / "0" for name in "01")
    data = second.read_bytes()
    # With a right crc32c of its own: plain Zarr reads it without a word.
    second.write_bytes(first.read_bytes())
    assert zarr.open_array(path / STATES, mode="r")[:].size
    with pytest.raises(DamageError, match=r"states/c/1/0 is damaged: its entries are not"):
        group[STATES][:]
    second.unlink()
    with pytest.raises(DamageError, match="states/c/1/0 is damaged: it is missing"):
        group[STATES][:]
    second.write_bytes(data)
    assert len(group[STATES][:])


def test_damaged_metadata_is_our_error(path):
    document = json.loads((path / LAYER / "zarr.json").read_bytes())
    document["attributes"]["tsstore"]["neurons"] = 14
    store = open_store(path)
    assert store.zarr_group[LAYER].attrs["tsstore"]["neurons"] == 13
    (path / LAYER / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DamageError, match="do not match their checksum"):
        open_store(path).zarr_group[LAYER]


def test_chunks_of_shards_are_shown_one_by_one(path, tmp_path):
    store = compact(open_store(path), tmp_path / "compact.zarr")
    states = store.parts[0].layers["fc.2"].states
    assert states.spec.shard_chunks
    group = store.zarr_group
    assert group[STATES].shards is None
    assert group[STATES].chunks[0] == states.spec.chunk_rows
    plain = zarr.open_group(tmp_path / "compact.zarr", mode="r", use_consolidated=False)
    assert everything(group) == everything(plain)
    assert len(keys(group, f"{STATES}/c/")) == -(-states.rows // states.spec.chunk_rows)


def test_steps_that_are_not_chosen_are_not_shown(path):
    store = open_store(path)
    assert list(store.at_step(None).zarr_group.group_keys()) == ["part-00000-00000"]
    write_run(path, batches(1))
    assert sorted(store.zarr_group.group_keys()) == ["part-00000-00000"]
    assert len(list(store.refresh().zarr_group.group_keys())) == 2


def test_a_part_without_a_commit_is_an_empty_group(tmp_path):
    batch = next(batches())
    start_part(tmp_path, batch)
    group = open_store(tmp_path).zarr_group
    assert next(name for name, _ in group.members(max_depth=None)) == "part-00000-00000"
    assert not any(isinstance(n, zarr.Array) and n.size for _, n in group.members(max_depth=None))


def test_nothing_can_be_written(path):
    group = open_store(path).zarr_group
    before = {file: file.read_bytes() for file in stored_files(path)}
    assert group.read_only
    with pytest.raises(ValueError, match="read-only"):
        group.create_group("mine")
    with pytest.raises(ValueError, match="read-only"):
        group[STATES][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        group.attrs["mine"] = 1
    with pytest.raises((ValueError, NotImplementedError)):
        sync(group.store.delete(f"{STATES}/zarr.json"))
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(group.store, mode="a")
    with pytest.raises(ValueError, match="cannot be written to"):
        group.store.with_read_only(False)
    assert {file: file.read_bytes() for file in stored_files(path)} == before


def test_parts_of_a_value_can_be_asked_for(path):
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest

    group, key = open_store(path).zarr_group, f"{STATES}/c/0/0"
    whole = value(group, key)
    assert value(group, key, RangeByteRequest(3, 7)) == whole[3:7]
    assert value(group, key, OffsetByteRequest(5)) == whole[5:]
    assert value(group, key, SuffixByteRequest(4)) == whole[-4:]
    ranges = [(key, RangeByteRequest(0, 2)), ("nothing", None)]
    found = sync(group.store.get_partial_values(default_buffer_prototype(), ranges))
    assert found[0].to_bytes() == whole[:2]
    assert found[1] is None


def test_it_can_be_sent_to_another_process(path):
    group = open_store(path).zarr_group
    other = pickle.loads(pickle.dumps(group))
    assert other.store == group.store
    assert everything(other) == everything(group)
    write_run(path, batches(1))
    assert open_store(path).zarr_group.store != group.store


def test_xarray_opens_it(path):
    group = open_store(path).zarr_group
    layer = xarray.open_zarr(group.store, group=LAYER, consolidated=False, zarr_format=3)
    assert layer["states"].dims == ("row", "byte")
    np.testing.assert_array_equal(layer["states"], open_store(path)["fc.2"])
    assert layer["positions"].sum() == len(layer["states"])
    samples = group["part-00000-00000/samples"]
    columns = xarray.open_zarr(samples.store, group=samples.path, consolidated=False)
    assert columns["name"].values.tolist() == COLUMNS["name"] * 3


def test_it_shows_runs_in_object_stores(path):
    with s3_server() as server, s3_environment(server):
        url = fresh_url()
        local, remote = LocalFiles(path), open_files(url)
        for key in local.walk():
            remote.write(key, local.read(key))
        assert everything(open_store(url).zarr_group) == everything(open_store(path).zarr_group)
        remote.remove(f"{STATES}/c/1/0")
        with pytest.raises(DamageError, match="it is missing"):
            open_store(url).zarr_group[STATES][:]


@pytest.mark.parametrize("sharded", [False, True])
def test_every_metadata_document_is_one_that_zarr_would_write(path, tmp_path, sharded):
    if sharded:
        compact(open_store(path), tmp_path / "compact.zarr")
        path = tmp_path / "compact.zarr"
    documents = [file for file in stored_files(path) if file.name == "zarr.json"]
    assert len(documents) > 20
    for file in documents:
        document = json.loads(file.read_bytes())
        kind = ArrayV3Metadata if document["node_type"] == "array" else GroupMetadata
        made = kind.from_dict(dict(document)).to_buffer_dict(default_buffer_prototype())
        assert without_defaults(json.loads(made["zarr.json"].to_bytes())) == without_defaults(
            document
        )


def without_defaults(found):
    """Leave out empty configurations, which zarr may drop."""
    if isinstance(found, list):
        return [without_defaults(item) for item in found]
    if isinstance(found, dict):
        return {key: without_defaults(item) for key, item in found.items() if item not in ({}, [])}
    return found


ALONE = """
import sys, torch, tsstore
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
with tsstore.capture(model, sys.argv[1], layers=["ReLU"]) as recorder:
    for _ in range(3):
        with recorder.batch(id=torch.arange(8)):
            model(torch.rand(8, 3))
store = tsstore.open(sys.argv[1])
tsstore.analyze(store)
repr(store), store._repr_html_(), [states[:] for states in store.values()]
assert "zarr" not in sys.modules, "zarr is imported"
assert store.zarr_group and "zarr" in sys.modules
"""


def test_neither_capture_nor_analysis_imports_zarr(tmp_path):
    done = children.run(ALONE, tmp_path / "run.zarr")
    assert done.returncode == 0, done.stderr
