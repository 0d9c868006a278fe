"""DBOS on SQLite: `FOLDER steps | concurrent | kill | recover`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID

import durable_work

FOLDER, WHAT = Path(sys.argv[1]), sys.argv[2]
CONFIG: DBOSConfig = {
    "name": "bench",
    "system_database_url": f"sqlite:///{FOLDER / 'dbos.db'}",
    "log_level": "ERROR",
    "run_admin_server": False,
    "application_version": "1",
    "executor_id": "local",
}
DBOS(config=CONFIG)


@DBOS.step()
def step(number: int) -> int:
    if WHAT in ("kill", "recover"):
        durable_work.effect(FOLDER, number)
        if WHAT == "kill" and number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return number


@DBOS.workflow()
def line(steps: int) -> int:
    return sum(step(number) for number in range(1, steps + 1))


def main() -> None:
    DBOS.launch()
    if WHAT == "kill":
        with SetWorkflowID("r"):
            line(5)
    elif WHAT == "recover":
        DBOS.retrieve_workflow("r").get_result()
    elif WHAT == "steps":
        durable_work.report(durable_work.one_by_one(lambda _: line(durable_work.STEPS)))
    else:

        def all_at_once(names: list[str]) -> None:
            for handle in [DBOS.start_workflow(line, durable_work.EFFECTS) for _ in names]:
                handle.get_result()

        durable_work.report(durable_work.at_once(all_at_once))
    sys.stdout.flush()
    os._exit(0)  # its threads would go on


main()
