from __future__ import annotations

from dataclasses import replace
from html import escape

import pytest

from tsstore.analysis.planning.cost import Work
from tsstore.analysis.planning.fitting import make_plan
from tsstore.analysis.planning.layer_plan import HEADINGS, PlannedLayer
from tsstore.analysis.planning.run_plan import RunPlan
from tsstore.text import MOST_NAMED

MIB = 1 << 20

IN_MEMORY = replace(
    make_plan(Work("conv_1", 40_000, 3, 1), 64 * MIB, 2, True),
    block_rows=1 << 14,
    partition_bits=2,
    projected_peak=20 * MIB,
    blocks=3,
    tasks=8,
    slice_bytes=1 << 14,
)
SPILLED = replace(
    IN_MEMORY, spill=True, scratch_bytes=3 * MIB, projected_peak=63 * MIB, slice_bytes=5 << 10
)
SMALL = PlannedLayer(40_000, 3, IN_MEMORY)
LARGE = PlannedLayer(120_000, 16, SPILLED)

GOLDEN = """\
<RunPlan run.zarr>
  layer      rows  bytes a row  blocks  rows a block  partitions        records  scratch  mean \
slice  projected peak  tasks
  conv_1   40,000            3       3        16,384           4      in memory               \
16 KiB          20 MiB      8
  conv_2  120,000           16       3        16,384           4  through files    3 MiB       \
5 KiB          63 MiB      8
  160,000 rows · 16 tasks · 2 threads · memory 64 MiB · projected peak 63 MiB · \
scratch at most 3 MiB
  conv_2: records go through files, because they and the running tasks need more than 64 MiB; \
with 71 MiB nothing would go through files.
  Layers are counted one after another: the memory holds one at a time.
  The smallest memory that works is about 9.1 MiB.
  A process that starts with this analysis adds 40 MiB at most for libraries and loops: 104 MiB \
with the memory."""

HOSTILE = "<script>alert('x')</script>\x1b[31m&"


def run_plan(layers, **changes):
    values = {
        "run": "run.zarr",
        "memory": 64 * MIB,
        "threads": 2,
        "shared_memory": True,
        "smallest_memory": int(9.1 * MIB),
        "in_memory_from": 71 * MIB,
    }
    return RunPlan(layers=layers, **{**values, **changes})


def mixed():
    return run_plan({"conv_1": SMALL, "conv_2": LARGE})


def test_a_plan_is_a_table_with_its_reasons():
    assert repr(mixed()) == GOLDEN


def test_cells_go_with_their_headings():
    small, large = mixed().cells()
    cells = dict(zip(HEADINGS, large, strict=True))
    assert cells["rows"] == "120,000"
    assert cells["records"] == "through files"
    assert cells["scratch"] == "3 MiB"
    assert dict(zip(HEADINGS, small, strict=True))["scratch"] == ""


def test_where_all_stays_in_memory_it_says_how_long():
    plan = run_plan({"conv_1": SMALL}, in_memory_from=18 * MIB)
    first = "All records stay in memory; with less than 18 MiB some would go through files."
    assert plan.sentences[0] == first
    assert "scratch" not in plan.total


def test_where_no_memory_would_do_it_says_so():
    plan = run_plan({"conv_2": LARGE}, in_memory_from=None)
    assert plan.sentences[0].endswith("with no memory nothing would go through files.")


def test_on_a_cluster_the_memory_is_not_to_blame():
    plan = run_plan({"conv_2": LARGE}, in_memory_from=None, shared_memory=False)
    first = "Records go through files whatever the memory, because workers share nothing else; "
    where = "they lie in the system's folder for temporary files, unless scratch= names one that "
    assert plan.sentences[0] == f"{first}{where}all workers see, or s3://bucket/prefix."
    told = replace(plan, scratch="/shared").sentences[0]
    assert told == first + "they lie below /shared."


def test_that_workers_hold_the_records_is_said_and_how_much_that_is():
    own = replace(LARGE, plan=replace(SPILLED, room_bytes=2 * MIB, memory=80 * MIB))
    plan = run_plan({"a": own, "b": own}, shared_memory=False, memory=80 * MIB)
    cells = dict(zip(HEADINGS, plan.cells()[0], strict=True))
    assert (cells["records"], cells["scratch"]) == ("held by workers", "")
    assert plan.sentences[0] == (
        "Records are held by the workers, as no scratch= is given and they fit: up to 2 MiB by "
        "each, which is part of the memory; with less than 71 MiB some would go through files in "
        "the system's folder for temporary files, unless scratch= names one that all workers see, "
        "or s3://bucket/prefix."
    )
    assert plan.scratch_bytes == 0
    told = plan.to_dict()["layers"]["a"]
    assert (told["records"], told["room_bytes"], told["spill"]) == ("workers", 2 * MIB, False)


def test_what_workers_cannot_hold_goes_through_files_and_with_how_much_they_could_is_said():
    said = run_plan({"a": LARGE}, shared_memory=False).sentences[0]
    assert said.startswith("a: records go through files in the system's folder for temporary files")
    assert said.endswith("need more than 64 MiB; with 71 MiB nothing would go through files.")


def test_object_storage_is_said_and_what_it_means_for_slices():
    plan = run_plan({"a": replace(LARGE, object_scratch=True)}, scratch="s3://bucket/\x1b[1m")
    assert dict(zip(HEADINGS, plan.cells()[0], strict=True))["records"] == "through objects"
    assert plan.sentences[0].startswith("a: records go through objects, because they and the run")
    assert "have 256 KiB at least" in plan.sentences[1]
    assert plan.sentences[1].endswith("unless memory needs more; shorter are those of a.")
    long = replace(LARGE, object_scratch=True, plan=replace(SPILLED, slice_bytes=1 << 20))
    plan = run_plan({"a": long}, shared_memory=False, scratch="s3://bucket/\x1b[1m")
    assert plan.sentences[1].endswith("unless memory needs more.")
    assert plan.sentences[0].endswith("they lie below s3://bucket/\\x1b[1m.")
    assert plan.to_dict()["layers"]["a"]["records"] == "objects"


def test_fewer_threads_are_explained():
    plan = run_plan({"a": SMALL, "b": replace(LARGE, plan=replace(SPILLED, threads=1))})
    assert plan.sentences[1].startswith("b: 1 of 2 threads, because the memory holds no more")
    assert len(plan.sentences) == len(mixed().sentences) + 1


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([SMALL], []),
        ([SMALL, SMALL, SMALL], ["All 3 layers are counted at once."]),
        ([LARGE, LARGE], ["Layers are counted one after another: the memory holds one at a time."]),
        (
            [SMALL, LARGE, SMALL, SMALL, SMALL],
            [
                "Of the 5 layers up to 3 are counted at once, in 3 batches, the largest first: the "
                "memory holds no more."
            ],
        ),
    ],
)
def test_how_many_layers_are_counted_at_once_is_said(layers, said):
    plan = run_plan({str(number): layer for number, layer in enumerate(layers)})
    assert [sentence for sentence in plan.sentences if " counted " in sentence] == said
    assert plan.layers_at_once == plan.to_dict()["layers_at_once"] <= len(layers)


@pytest.mark.parametrize("more", [0, 1, 7])
def test_of_many_layers_some_are_named(more):
    names = [f"conv_{number}" for number in range(MOST_NAMED + more)]
    text = run_plan(dict.fromkeys(names, LARGE)).sentences[0]
    assert all(name in text for name in names[:MOST_NAMED])
    assert (f" and {more} more: " in text) == (more > 0)


def test_one_of_a_thing_is_singular():
    plan = PlannedLayer(1, 3, replace(IN_MEMORY, tasks=1))
    line = run_plan({"conv_1": plan}, threads=1).total
    assert line.startswith("1 row · 1 task · 1 thread · memory 64 MiB")


def test_in_notebooks_it_is_a_table_and_names_cannot_break_out():
    html = run_plan({HOSTILE: LARGE}, run=HOSTILE)._repr_html_()
    assert "<script>" not in html
    assert "\x1b" not in html
    assert html.count("<td>") == html.count("<th>") == len(HEADINGS)
    assert all(escape(sentence) in html for sentence in mixed().sentences[2:])


def test_records_of_layers_that_a_task_counts_are_not_said_to_go_anywhere():
    plan = run_plan({"conv_1": SMALL, "conv_2": LARGE}, shared_memory=False, scratch="/shared")
    assert plan.sentences[0] == (
        "conv_2: records go through files whatever the memory, because workers share nothing "
        "else; they lie below /shared."
    )
    plan = run_plan({"conv_1": SMALL}, shared_memory=False, scratch="/shared")
    assert plan.sentences[0].startswith("All records stay in memory; with less than 71 MiB")
