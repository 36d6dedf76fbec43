"""What docs/reference/format.md says is so."""

from __future__ import annotations

import ast
import json
import re

import google_crc32c
import numpy as np
import pytest
from helpers import draw_batch, rows_of, stored_files, write_run
from pages import blocks, read

from tsstore import bits
from tsstore.store.format.arrays import (
    CHECKSUM_CHUNK_ROWS,
    CODECS,
    COLUMN_CHUNK_ROWS,
    MAX_CHUNK_BYTES,
    MAX_SHARD_CHUNKS,
)
from tsstore.store.format.attributes import FORMAT, LayerAttributes, PartAttributes, RunAttributes
from tsstore.store.format.documents import MAX_DEPTH, MAX_DOCUMENT_BYTES, attributes_checksum
from tsstore.store.format.record import ArrayCommit, CommitRecord, Seal
from tsstore.store.maintenance.compact import compact
from tsstore.store.reading.store import open_store

TEXT = read("reference/format.md")
(READER,) = blocks(TEXT)


@pytest.fixture(scope="module")
def read_run():
    names: dict = {}
    exec(compile(READER, "docs/reference/format.md", "exec"), names)
    return names["read_run"]


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [
        draw_batch(
            rng,
            50,
            positions={"conv_1": 4, "fc.2": rng.integers(0, 3, 50).tolist()},
            columns={
                "label": np.arange(50),
                "Loss €": rng.random(50, dtype=np.float32),
                "text": [f"{i}ü" * i for i in range(50)],
            },
        )
        for _ in range(4)
    ]


def test_the_reader_is_short_and_stands_alone():
    lines = [line for line in READER.splitlines() if line.strip()]
    assert len(lines) <= 67
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(READER))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name])
    }
    assert imported == {"json", "pathlib", "google_crc32c", "numpy", "numcodecs"}


def test_the_reader_reads_what_was_committed(tmp_path, read_run, batches, monkeypatch):
    monkeypatch.setattr("tsstore.store.format.arrays.COLUMN_CHUNK_ROWS", 30)
    write_run(tmp_path, batches[:2], codec="zstd")
    part = write_run(tmp_path, batches[2:3], part=PartAttributes(rank=1, step=5), close=False)
    part.append(batches[3])
    parts = list(read_run(tmp_path))
    assert [(name, samples) for name, samples, *_ in parts] == [
        ("part-00000-00000", 100), ("part-00001-00000", 50),
    ]  # fmt: skip
    for (_, _, layers, columns), written in zip(parts, (batches[:2], batches[2:3]), strict=True):
        for name in ("conv_1", "fc.2"):
            np.testing.assert_array_equal(layers[name][0], rows_of(written, name))
        counts = [count for batch in written for count in batch.layers["fc.2"].positions]
        assert layers["conv_1"][1] is None
        assert layers["fc.2"][1].tolist() == counts
        for name in ("label", "Loss €", "text"):
            expected = [value for batch in written for value in batch.columns[name]]
            assert columns[name].tolist() == expected


def test_the_reader_reads_many_chunks(tmp_path, read_run):
    batch = draw_batch(np.random.default_rng(0), 4100, neurons={"a": 8})
    write_run(tmp_path, [batch], neurons={"a": 8}, chunk_bytes=1)
    ((_, _, layers, _),) = read_run(tmp_path)
    np.testing.assert_array_equal(layers["a"][0], batch.layers["a"].rows)
    np.testing.assert_array_equal(open_store(tmp_path)["a"][:], batch.layers["a"].rows)


def test_the_reader_reads_shards(tmp_path, read_run, batches, monkeypatch):
    monkeypatch.setattr("tsstore.store.format.arrays.COLUMN_CHUNK_ROWS", 30)
    path = tmp_path / "run.zarr"
    for rank in range(2):
        part = PartAttributes(rank=rank, world_size=2)
        write_run(path, batches[2 * rank : 2 * rank + 2], part=part)
    compact(path, tmp_path / "out.zarr", durable=False, shard_bytes=256)
    ((name, samples, layers, columns),) = read_run(tmp_path / "out.zarr")
    assert (name, samples) == ("part-00000-00000", 200)
    for layer in ("conv_1", "fc.2"):
        np.testing.assert_array_equal(layers[layer][0], rows_of(batches, layer))
    counts = [count for batch in batches for count in batch.layers["fc.2"].positions]
    assert layers["fc.2"][1].tolist() == counts
    assert columns["text"].tolist() == [text for batch in batches for text in batch.columns["text"]]
    shard = tmp_path / "out.zarr/part-00000-00000/layers/0001-fc.2/states/c/0/0"
    assert len(list(shard.parent.parent.iterdir())) > 1
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"0001-fc\.2/states, index for chunk 0, is damaged"):
        list(read_run(tmp_path / "out.zarr"))


def test_the_reader_notices_damage(tmp_path, read_run, batches):
    write_run(tmp_path, batches[:1])
    for file in stored_files(tmp_path):
        data = file.read_bytes()
        if "/c/" in str(file):
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(ValueError, match="is damaged"):
                list(read_run(tmp_path))
        file.write_bytes(data)
    first, second = (
        tmp_path / f"part-00000-00000/layers/0000-conv_1/states/c/{i}/0" for i in (0, 1)
    )
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"0000-conv_1/states, chunk 1, is damaged"):
        list(read_run(tmp_path))


def test_the_reader_refuses_a_newer_format(tmp_path, read_run):
    document = {"attributes": {"tsstore": {"format": 2}}}
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="a newer format: upgrade"):
        list(read_run(tmp_path))


def test_the_examples_are_right():
    example = re.search(r"have the checksum (\d+), .*?```json\n(.*?)\n```", TEXT, re.DOTALL)
    assert google_crc32c.value(example[2].encode()) == int(example[1])
    path, attributes = json.loads(example[2])
    assert attributes_checksum(path, attributes) == int(example[1])
    assert f"`123456789` it is 0x{google_crc32c.value(b'123456789'):X}" in TEXT
    row = bits.pack([neuron in (0, 9) for neuron in range(13)])
    assert f"`{row.tobytes().hex(' ')}`" in TEXT


def test_every_attribute_is_described():
    table = TEXT[TEXT.index("## Attributes") : TEXT.index("## Arrays")]
    for attributes in (RunAttributes("", ""), PartAttributes(), LayerAttributes("a", 1)):
        for key in attributes.to_json():
            assert f"`{key}`" in table
    for key in Seal(CommitRecord(), "closed", "host", "now").to_json():
        assert f"`{key}`" in table
    for record in (CommitRecord().to_json(), ArrayCommit(0).__dict__):
        assert all(f"`{key}`" in TEXT for key in record if key != "time")


def test_the_numbers_are_those_of_the_code():
    assert FORMAT == 1
    assert f"{COLUMN_CHUNK_ROWS:,} entries a chunk, checksums {CHECKSUM_CHUNK_ROWS:,}" in TEXT
    assert (
        f"larger than {MAX_DOCUMENT_BYTES >> 20} MiB, or nested deeper than {MAX_DEPTH} levels"
        in TEXT
    )
    assert f"at most {MAX_CHUNK_BYTES >> 20} MiB" in TEXT
    assert f"`n` is from 2 to {MAX_SHARD_CHUNKS:,}" in TEXT
    assert all(f"`{codec}`" in TEXT for codec in CODECS)
