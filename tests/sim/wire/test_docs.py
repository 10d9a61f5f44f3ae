"""docs/simulator.md names every scenario, every fault and every setting of the faults."""

from pathlib import Path

import msgspec

from monitor.sim.scenarios import NAMES
from monitor.sim.wire.faults import COUNTED, Faults

PAGE = Path("docs/simulator.md").read_text(encoding="utf-8")


def test_everything_that_can_be_chosen_is_documented():
    fields = [field.name for field in msgspec.structs.fields(Faults) if field.name != "seed"]
    missing = [name for name in (*NAMES, *COUNTED, *fields) if f"`{name}`" not in PAGE]
    assert missing == []
