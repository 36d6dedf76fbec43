"""Why a captured model, or a layer of it, may have said nothing."""

from __future__ import annotations

from tsstore.recording.selection.copies import Copies

COMPILED = (
    "it was compiled and called before the hooks were there (call torch.compiler.reset(), or pass "
    "reset_compiler=True), or exported (capture torch.export.unflatten(…))"
)
CALLED_DIRECTLY = "forward() was called, which runs no hooks (call the module)"
COPIED = "a copy of it ran (call the one that was captured, or capture the copy)"


def why_nothing_ran(copies: Copies | None = None) -> str:
    """Return what may be the cause of a model's silence; one thing alone where that is known.

    Parameters
    ----------
    copies
        Of the model.
    """
    if copies is not None and copies.ran:
        return f"the model was not called, but {COPIED}"
    return (
        f"the model was not called within a batch; or {COPIED}; or {COMPILED}; or its "
        f"{CALLED_DIRECTLY}"
    )


def why_no_sample(batches: int, calls_outside: int, copies: Copies) -> str:
    """Return what may be the cause of a capture's having no sample when it ends.

    Parameters
    ----------
    batches
        Handed on to the writer.
    calls_outside
        Of captured layers, outside of any batch.
    copies
        Of the model.
    """
    if batches:
        return f"its {batches:,} batches were empty"
    if calls_outside:
        return (
            f"captured layers were called {calls_outside:,} times outside of any batch: call the "
            "model instead of a part of it or its forward(), or wrap the calls in recorder.batch()"
        )
    return why_nothing_ran(copies)
