"""Prints the risk of BTC and every alert, with what was missed: the address is the argument."""

import asyncio
import sys

from monitor.client import subscribe


async def main(url: str) -> None:
    """Listen until interrupted."""
    async with subscribe(url, assets=("BTC",), kinds=("risk", "alerts")) as messages:
        async for message in messages:
            if message.kind == "alerts":
                print(message.data["severity"], message.data["text"])
            else:
                phases = {d["direction"]: d["phase"] for d in message.data["directions"]}
                print(message.asset, phases, "missed:", message.lost)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
