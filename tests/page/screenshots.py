"""Takes the pictures of docs/images: the page during a demo, before, in and after its crash.

``python -m tests.page.screenshots [docs/images]``; takes six minutes. Look at them afterwards.
With ``pngquant`` installed they come out at a third of their size.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.async_api import async_playwright

STAGES = {"calm": 75, "before": 110, "during": 165, "after": 300}
"""Seconds after the start; news comes after one minute, the cascade of BTC after two and a half."""

SIZES = {"desktop": (1440, 900, 1.0), "phone": (390, 844, 1.5)}
KEPT = {
    ("calm", "desktop", "dark"), ("calm", "phone", "light"),
    ("before", "desktop", "dark"), ("before", "phone", "dark"),
    ("during", "desktop", "dark"), ("during", "desktop", "light"), ("during", "phone", "dark"),
    ("after", "desktop", "light"), ("after", "phone", "light"),
}  # fmt: skip


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def phases(url):
    with urllib.request.urlopen(f"{url}api/v1/assets/BTC/risk", timeout=5) as answer:  # noqa: S310
        return [d["phase"] for d in json.load(answer)["data"]["directions"]]


async def take(browser, url, out, stage):
    for kind, (width, height, scale) in SIZES.items():
        for theme in ("dark", "light"):
            if (stage, kind, theme) not in KEPT:
                continue
            context = await browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=theme,
                device_scale_factor=scale,
            )
            page = await context.new_page()
            await page.goto(url)
            await page.wait_for_selector("#answer .say")
            await page.wait_for_timeout(1500)
            if stage in {"during", "after"} and kind == "phone":
                await page.eval_on_selector("section.map", "node => node.scrollIntoView()")
                await page.wait_for_timeout(300)
            if stage == "during" and kind == "desktop":
                box = await page.locator("#map").bounding_box()
                await page.mouse.move(box["x"] + 640, box["y"] + 430)
                await page.wait_for_timeout(300)
            path = out / f"page-{stage}-{kind}-{theme}.png"
            await page.screenshot(path=path)
            if pngquant := shutil.which("pngquant"):
                subprocess.run([pngquant, "--force", "--ext", ".png", path], check=True)  # noqa: ASYNC221
            await context.close()


async def main(out):
    out.mkdir(parents=True, exist_ok=True)
    port, url = free_port(), ""
    with tempfile.TemporaryDirectory() as state:
        environment = os.environ | {
            "CASCADE_STATE_DIRECTORY": state,
            "CASCADE_HTTP__PORT": str(port),
        }
        program = Path(sys.executable).with_name("cascade-monitor")
        demo = subprocess.Popen(  # noqa: ASYNC220
            [program, "demo", "--scenario", "crash"], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            while not _answers(url):
                await asyncio.sleep(0.5)
            began = time.monotonic()
            async with async_playwright() as playwright:
                path = shutil.which("chromium")
                browser = await playwright.chromium.launch(
                    executable_path=path, args=["--no-sandbox"]
                )
                for stage, at in STAGES.items():
                    await asyncio.sleep(max(0.0, began + at - time.monotonic()))
                    await take(browser, url, out, stage)
                    print(stage, phases(url), flush=True)
                await browser.close()
        finally:
            demo.terminate()
            demo.wait(20)


def _answers(url):
    try:
        with urllib.request.urlopen(f"{url}healthz", timeout=1):  # noqa: S310
            return True
    except OSError:
        return False


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")))
