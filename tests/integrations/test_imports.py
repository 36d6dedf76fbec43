"""The trainers' packages are imported by those who ask for them."""

from __future__ import annotations

import children

SCRIPT = """
import sys
import tsstore, tsstore.integrations, tsstore.integrations.evaluations
tsstore.capture
packages = {name.partition(".")[0] for name in sys.modules}
print(sorted(packages & {"lightning", "pytorch_lightning", "transformers", "accelerate"}))
"""


def test_neither_package_is_imported_unless_used():
    done = children.run(SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[]\n"
