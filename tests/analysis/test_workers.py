from __future__ import annotations

import pytest
from distributed.comm.core import CommClosedError

from tsstore.analysis.workers import Workers
from tsstore.errors import AccessError
from tsstore.store.files.local import LocalFiles


class Client:
    """Answers for two workers: one asks its question, the other gives an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, function, *arguments, on_error):
        return {"tcp://1": function(*arguments), "tcp://2": self.error}


def test_a_worker_that_goes_away_while_it_is_asked_is_not_said_to_be_blind(tmp_path):
    files = LocalFiles(tmp_path, durable=False)
    files.write("zarr.json", b"{}")
    workers = Workers(Client(CommClosedError("it is gone")))
    workers.check_store(files)
    workers.check_scratch(str(tmp_path))
    with pytest.raises(AccessError, match="is not seen by worker tcp://2"):
        Workers(Client(OSError("it is not there"))).check_store(files)
