from __future__ import annotations

import numpy as np
import pytest

from tsstore.counting import aggregate as plain
from tsstore.counting import by_group, changes, grouped_kernels, merge, partition
from tsstore.counting.aggregate import aggregate
from tsstore.counting.grouped import aggregate_groups
from tsstore.counting.keys import KeyScheme
from tsstore.counting.merge import merge_records, merge_samples, merge_samples_by_group
from tsstore.counting.partition import scatter
from tsstore.counting.records import Records
from tsstore.counting.warm_up import warm_up

MODULES = (by_group, changes, grouped_kernels, merge, partition, plain)


def compiled() -> dict[str, int]:
    """How often each loop has been compiled: once for each types of its arguments."""
    return {
        f"{module.__name__}.{name}": len(value.signatures)
        for module in MODULES
        for name, value in vars(module).items()
        if hasattr(value, "signatures")
    }


def sealed(records: Records) -> Records:
    for array in (records.keys, records.multiplicity, records.incidence, records.group):
        if array is not None:
            array.setflags(write=False)
    return records


@pytest.mark.parametrize("row_bytes", [3, 16, 38])
@pytest.mark.parametrize("from_file", [False, True])
def test_nothing_is_compiled_while_rows_are_counted(row_bytes: int, from_file: bool) -> None:
    scheme = KeyScheme.create(row_bytes)
    warm_up(scheme, grouped=False)
    before = compiled()
    rows = np.random.default_rng(1).integers(0, 256, (3000, row_bytes), np.uint8)
    records, _ = merge_samples(scheme.keys(rows), np.full(1000, 3))
    records, _ = scatter(merge_records(records), 2)
    records = sealed(records) if from_file else records
    assert len(aggregate(lambda: [records], scheme.words, 0, 1 << 14)[0]) >= 1
    assert compiled() == before


@pytest.mark.parametrize("row_bytes", [3, 16, 38])
@pytest.mark.parametrize("from_file", [False, True])
def test_nothing_is_compiled_while_rows_are_counted_by_group(row_bytes, from_file) -> None:
    scheme = KeyScheme.create(row_bytes)
    warm_up(scheme, grouped=True)
    before = compiled()
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 3, (3000, row_bytes), np.uint8)
    for positions in (np.full(1000, 3), np.ones(3000, np.int64)):
        group = generator.integers(0, 5, len(positions)).astype(np.uint8)
        records, _ = merge_samples_by_group(scheme.keys(rows), positions, group, 5)
        records, _ = scatter(merge_records(records), 2)
        records = sealed(records) if from_file else records
        found = [aggregate_groups(lambda r=records: [r], scheme.words, 5, 0, 1 << 14)[1]] * 2
        assert len(changes.add_up_changes(found)) >= 1
    assert compiled() == before
