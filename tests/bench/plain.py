"""The cascade's flow solver as one would write it down from model.md A8, with numpy alone.

A yardstick for what the map and the rest of an update cost beside it: critical point and landing of
the same twelve nodes from the same two curves, and nothing else.
"""

import numpy as np

from monitor.core.cascade.curves import STEP, Floats

SURVIVAL = np.array([0.9, 0.5, 0.25, 0.08])
SCALE = np.array([0.5, 1.0, 2.0])
PSI = 1.5
RUN = 15


def solved(depth: Floats, fuel: Floats) -> list[tuple[float, float]]:
    """Distance and landing of each node's first jump of `RUN` points; nan without one."""
    found = []
    for survival in SURVIVAL:
        for scale in SCALE:
            surplus = survival * depth - PSI * scale * fuel
            highest = np.maximum.accumulate(surplus)
            flat = highest[RUN:] <= highest[:-RUN]
            if not flat.any():
                found.append((np.nan, np.nan))
                continue
            first = int(flat.argmax())
            beyond = surplus[first:] > highest[first]
            landing = STEP * (first + int(beyond.argmax())) if beyond.any() else np.nan
            found.append((STEP * first, landing))
    return found
