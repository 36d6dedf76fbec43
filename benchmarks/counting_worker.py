"""A contender in a process of its own: counts whenever it is told to, and says what it took.

It is started with its name and task as a JSON document, reads ``first``, ``again`` or ``pooled``
(not by label) from its input, a line each, and answers each with a JSON document. Nothing that
counts is imported before ``first``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from counting_contenders import CONTENDERS
from counting_rivals import COLUMNS, Answer, Counter, Task


def main() -> None:
    """Answer until the input ends."""
    asked = json.loads(sys.argv[1])
    # Whatever libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender, task = CONTENDERS[asked.pop("contender")], Task(**asked)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task.threads])
    counter = contender.make(contender.file, task)
    state: dict[str, Any] = {}
    for command in map(str.strip, sys.stdin):
        try:
            found = reply(counter, task.pooled if command == "pooled" else task, command, state)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}", "peak": beyond(state)}
        print(json.dumps(found), file=answers, flush=True)


def reply(counter: Counter, task: Task, command: str, state: dict[str, Any]) -> dict[str, Any]:
    """Count; return seconds on the clock and of CPU, and what was counted."""
    before = 0.0
    if command == "first":
        begun = time.perf_counter()
        counter.start()
        before = time.perf_counter() - begun
        state["baseline"] = peak_memory()
        counter.load()
    begun, cpu = time.perf_counter(), time.process_time()
    found = counter.count(task)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = beyond(state)
    return {"wall": before + wall, "cpu": cpu, "peak": peak, **summary(counter.answer(found))}


def summary(answer: Answer) -> dict[str, Any]:
    """Return what can be compared of an answer, and what its states are like."""
    if not answer:
        return {}
    import numpy as np

    *names, _ = columns = sorted(answer, key=COLUMNS.index)
    table = np.stack([np.asarray(answer[name]).astype(np.int64) for name in columns])
    table = table[:, np.lexsort(table[-2::-1])]
    multiplicity, states = table[names.index("k")], table[-1]
    return {
        "columns": columns,
        "digest": hashlib.sha256(table.tobytes()).hexdigest(),
        "rows": int(multiplicity @ states),
        "distinct": int(states.sum()),
        "once": int(states[multiplicity == 1].sum()),
        "commonest": int(multiplicity.max()),
    }


def beyond(state: dict[str, Any]) -> int:
    """Return the peak of memory beyond that with all libraries imported, in bytes."""
    return peak_memory() - state["baseline"] if "baseline" in state else 0


def peak_memory() -> int:
    """Return the largest resident memory that this process has had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    main()
