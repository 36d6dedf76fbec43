"""The memory of a job that records: flat over many batches, and at the bound behind a slow writer.

Measured in processes of their own, whose memory nothing else has touched.
"""

from __future__ import annotations

import json
import textwrap

from children import run

import tsstore

PRELUDE = """
import json, resource, sys, time, torch, tsstore
from tsstore.store.writing.part import PartWriter

torch.set_num_threads(1)
path = sys.argv[1]


def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize()
"""


def measure(path, script):
    """Run a script in a process of its own, and return what it prints as JSON."""
    done = run(PRELUDE + textwrap.dedent(script), path, strict=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_thousand_small_batches_leave_memory_flat(tmp_path):
    script = """
    model = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU())
    inputs = torch.randn(64, 3)
    sizes, options = [], {"layers": "0", "durable": False, "commit_every": 0.05}
    with tsstore.capture(model, path, **options) as recorder:
        for number in range(1000):
            with recorder.batch(id=list(range(64 * number, 64 * number + 64))):
                model(inputs)
            if number % 125 == 124:
                recorder.commit()
                sizes.append(resident())
    print(json.dumps(sizes))
    """
    sizes = measure(tmp_path / "run", script)
    assert tsstore.open(tmp_path / "run").samples == 64_000
    assert max(sizes[2:]) - sizes[1] < 6 << 20


def test_behind_a_writer_slowed_to_a_crawl_memory_stays_at_the_bound(tmp_path):
    script = """
    append, most, crawls = PartWriter.append, [], []


    def crawl(writer, batch):
        # However slow the machine is: the writer is slower.
        background = recorder._sink._thread
        while crawls and background._bytes + batch.nbytes <= 4 << 20:
            time.sleep(0.0002)
        most.append(background._bytes)
        append(writer, batch)


    PartWriter.append = crawl
    model = torch.nn.Sequential(torch.nn.Linear(3, 4096))
    inputs = torch.randn(64, 3)
    options = {"layers": "0", "durable": False, "commit_every": 1e6, "queue_bytes": 4 << 20}
    with tsstore.capture(model, path, **options) as recorder:
        model(inputs)
        recorder.commit()
        before, sizes = resident(), []
        crawls.append(True)
        for number in range(1000):
            model(inputs)
            sizes.append(resident())
        crawls.clear()
        waited = recorder.statistics.waited
    print(json.dumps([before, max(sizes), max(most), waited]))
    """
    before, after, most, waited = measure(tmp_path / "run", script)
    batch = 64 * (4096 // 8 + 8)
    assert (4 << 20) - batch < most <= 4 << 20
    assert waited > 0
    # Without the bound it would be 1,000 batches: 33 MB, and more for the holes between them.
    assert after - before < (4 << 20) + (20 << 20)
    assert tsstore.open(tmp_path / "run").samples == 64 * 1001
