"""A real headless Chromium, and pages in it that must stay without an error."""

import importlib.util
import os
import shutil
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
"""Containers have no sandbox; a script changed by a test would count as a public address's."""


@pytest.fixture(scope="session")
def chromium():
    """The program; its absence fails in CI and skips elsewhere."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found and importlib.util.find_spec("playwright"):
        return found
    reason = "no browser here: apt-get install chromium, and make setup for playwright"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium):
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        await launched.close()


class Heard:
    """What a page said and asked for."""

    def __init__(self):
        self.errors = []
        self.requests = []

    def listen(self, page):
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)
        page.on("request", lambda request: self.requests.append(request.url))

    def _said(self, message):
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)


@pytest.fixture
def opened(browser):
    """Opens a page of a server; at its end it must have said no error and asked nobody else."""

    @asynccontextmanager
    async def opening(server, *, cuts=False, scripts=None, wait="live", path="", **options):
        base = server.url
        options = {"viewport": {"width": 1440, "height": 900}} | options
        context = await browser.new_context(**options)
        page = await context.new_page()
        page.set_default_timeout(60_000)
        heard = Heard()
        heard.listen(page)
        for name, (old, new) in (scripts or {}).items():
            await page.route(f"**/page/{name}", _changed(old, new))
        await page.goto(base + path)
        if wait:
            await page.wait_for_selector(f'#link[data-state="{wait}"]')
        try:
            yield page
        finally:
            await context.close()
        # A connection that was cut is an error to the console, whatever the page does about it.
        assert cuts or heard.errors == []
        home = base.partition("//")[2]
        assert all(url.partition("//")[2].startswith(home) for url in heard.requests)

    return opening


def _changed(old, new):
    async def change(route):
        response = await route.fetch()
        text = await response.text()
        assert old in text
        await route.fulfill(response=response, body=text.replace(old, new))

    return change
