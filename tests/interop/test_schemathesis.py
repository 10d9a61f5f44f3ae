"""The API against schemathesis, which asks whatever its description allows, and what it does not.

No answer may be a server's error, and every one must be as described.
"""

import asyncio
import importlib.util
import os
import sys

import pytest

from tests.sinks.daemon import served, warm

if importlib.util.find_spec("schemathesis") is None:
    REASON = "schemathesis is not installed here: make interop"
    if os.environ.get("INTEROP") == "required":
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,negative_data_rejection"
)


async def test_no_question_is_answered_with_a_server_error_or_otherwise_than_described():
    daemon = warm(assets=("BTC", "ETH"))
    daemon.liquidate()
    async with served(daemon) as (_, server):
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "run",
            f"http://127.0.0.1:{server.port}/api/v1/openapi.json",
            "--checks", CHECKS, "--max-examples", "30", "--seed", "1", "--no-color",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told, _ = await asyncio.wait_for(program.communicate(), 600)
        assert program.returncode == 0, told.decode()[-4000:]
        assert server.errors == 0
