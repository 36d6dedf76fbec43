"""How plans show and explain themselves, as text and in notebooks."""

from __future__ import annotations

from html import escape

from tsstore.analysis.planning.plan_numbers import PlannedLayer, PlanNumbers
from tsstore.text import format_memory, html_table, printable, text_table

HEADINGS = (
    "layer",
    "rows",
    "bytes a row",
    "blocks",
    "rows a block",
    "partitions",
    "records",
    "scratch",
    "mean slice",
    "projected peak",
    "tasks",
)

MOST_NAMED = 4
"""So many layers a sentence names; of more it tells how many."""


def layer_cells(name: str, layer: PlannedLayer) -> tuple[str, ...]:
    """Return a layer's line of the table."""
    plan = layer.plan
    return (
        printable(name),
        f"{layer.rows:,}",
        f"{layer.row_bytes:,}",
        f"{plan.blocks:,}",
        f"{plan.block_rows:,}",
        f"{1 << plan.partition_bits:,}",
        "through files" if plan.spill else "in memory",
        format_memory(plan.scratch_bytes) if plan.spill else "",
        format_memory(plan.slice_bytes),
        format_memory(plan.projected_peak),
        f"{plan.tasks:,}",
    )


def total_line(plan: PlanNumbers) -> str:
    """Return what all layers come to, in one line."""
    facts = [
        _counted(plan.rows, "row"),
        _counted(plan.tasks, "task"),
        _counted(plan.threads, "thread"),
        f"memory {format_memory(plan.memory)}",
        f"projected peak {format_memory(plan.projected_peak)}",
    ]
    if plan.scratch_bytes:
        facts.append(f"scratch at most {format_memory(plan.scratch_bytes)}")
    return " · ".join(facts)


def sentences(plan: PlanNumbers) -> list[str]:
    """Return what goes through files and why, and what other memories would do, a line each."""
    return [
        *_where_records_go(plan),
        *_threads_text(plan),
        f"The smallest memory that works is about {format_memory(plan.smallest_memory)}.",
    ]


def plan_text(plan: PlanNumbers) -> str:
    """Return a plan as aligned text, with its explanation."""
    rows = [HEADINGS, *(layer_cells(name, layer) for name, layer in plan.layers.items())]
    lines = [total_line(plan), *sentences(plan)]
    title = f"<RunPlan {printable(plan.run)}>"
    return "\n".join([title, *text_table(rows), *(f"  {line}" for line in lines)])


def plan_html(plan: PlanNumbers) -> str:
    """Return a plan as an HTML table with its explanation."""
    rows = [layer_cells(name, layer) for name, layer in plan.layers.items()]
    lines = [total_line(plan), *sentences(plan)]
    return (
        f"<b>RunPlan</b> <code>{escape(printable(plan.run))}</code>{html_table(HEADINGS, rows)}"
        f"<p>{'<br>'.join(map(escape, lines))}</p>"
    )


def _where_records_go(plan: PlanNumbers) -> list[str]:
    """Say which layers' records go through files, and with what memory none or some would."""
    spilled = [name for name, layer in plan.layers.items() if layer.plan.spill]
    if not plan.shared_memory:
        return ["Records go through files whatever the memory: workers share nothing else."]
    least = plan.in_memory_from
    if not spilled and least is not None:
        return [
            f"All records stay in memory; with less than {format_memory(least)} some would go "
            "through files."
        ]
    enough = "no memory" if least is None else format_memory(least)
    return [
        f"{_listed(spilled)}: records go through files, because they and the running tasks need "
        f"more than {format_memory(plan.memory)}; with {enough} nothing would go through files."
    ]


def _threads_text(plan: PlanNumbers) -> list[str]:
    """Say which layers use fewer threads than there are, if any do."""
    fewer = {
        name: layer.plan.threads
        for name, layer in plan.layers.items()
        if layer.plan.threads < plan.threads
    }
    if not fewer:
        return []
    return [
        f"{_listed(list(fewer))}: {min(fewer.values()):,} of {plan.threads:,} threads, because the "
        "memory holds no more tasks of a good size."
    ]


def _listed(names: list[str]) -> str:
    shown = [printable(name) for name in names[:MOST_NAMED]]
    if len(names) > MOST_NAMED:
        shown.append(f"{len(names) - MOST_NAMED} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if shown[1:] else shown)


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
