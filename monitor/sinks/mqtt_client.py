"""The connection to an MQTT broker: aiomqtt, mended where it keeps something from us."""

import asyncio
import logging
import ssl
from typing import Any, Final, Literal, TypeAlias, get_args

import aiomqtt
from aiomqtt import MqttCodeError, MqttError
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.client import DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from monitor.config import ConfigError, MqttConfig

Reason: TypeAlias = Literal[
    "connection",  # refused, reset, no such host, the broker shuts down
    "timeout",  # no answer in time
    "tls",  # a certificate that is not accepted, by us or by the broker
    "authentication",  # wrong user or password, not allowed to connect
    "permission",  # not allowed to publish on a topic
    "taken_over",  # somebody else connected under our name
    "refused",  # any other refusal of the broker
    "unexpected",  # an exception the client library should not have raised
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

NOT_AUTHORIZED: Final = 0x87
_WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")


# It reports every lost connection as an error of its own, besides raising it.
library_log = logging.getLogger("aiomqtt")
library_log.setLevel(logging.CRITICAL)


class Client(aiomqtt.Client):
    """The library's client, which does not tell what the broker answers to a publication."""

    def __init__(self, *, connect_timeout_s: float, **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self._client.connect_timeout = connect_timeout_s
        self._answers: dict[int, asyncio.Future[ReasonCode]] = {}

    async def ask(
        self, topic: str, payload: bytes | str, *, retain: bool, properties: Properties
    ) -> ReasonCode:
        """Publish at QoS 1 and return the broker's answer, which may be a refusal.

        Raises:
            MqttError: the connection is broken, or there was no answer in time.
        """
        info = self._client.publish(topic, payload, 1, retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise MqttCodeError(info.rc)
        answer = self._answers[info.mid] = self._loop.create_future()
        try:
            async with asyncio.timeout(self.timeout):
                code: ReasonCode = await answer
                return code
        except TimeoutError:
            raise MqttError("publication timed out") from None
        finally:
            del self._answers[info.mid]

    def break_off(self) -> None:
        """Disconnect in such a way that the broker publishes the last will."""
        self._client.disconnect(_WITH_WILL)
        if self._disconnected.done():
            self._disconnected.exception()  # or it would be reported as never retrieved

    def _on_publish(
        self,
        client: PahoClient,  # noqa: ARG002
        userdata: Any,  # noqa: ANN401, ARG002
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,  # noqa: ARG002
    ) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reason_code)

    def _on_disconnect(
        self,
        client: PahoClient,
        userdata: Any,  # noqa: ANN401
        flags: DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        # The library would wait for a greeting after the broker has hung up.
        if not self._connected.done():
            self._connected.set_exception(MqttCodeError(reason_code))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which the library forgets to do."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_of(config: MqttConfig) -> ssl.SSLContext | None:
    """What TLS needs, None where it is not wanted.

    Raises:
        ConfigError: a file cannot be read, or has no certificate in it.
    """
    if not config.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_path or None)
        context.sslsocket_class = _TlsSocket
        if config.certificate_path:
            context.load_cert_chain(config.certificate_path, config.key_path or None)
    except OSError as error:
        paths = ", ".join(filter(None, (config.ca_path, config.certificate_path, config.key_path)))
        raise ConfigError(
            f"mqtt.ca_path, certificate_path, key_path: {error} ({paths or 'system store'})"
        ) from error
    return context


def reason_of(error: BaseException) -> Reason:
    """The reason under which an error of the client library is counted."""
    if isinstance(error, MqttCodeError):
        code = error.rc.value if isinstance(error.rc, ReasonCode) else 0
        return _REASON_OF_CODE.get(code, "refused" if code > _UNSPECIFIED else "connection")
    if isinstance(error, MqttError):
        if "timed out" in str(error):
            return "timeout"
        # The library keeps what it caught as the cause or, hidden, as the context.
        inner = error.__cause__ or error.__context__
        return reason_of(inner) if isinstance(inner, MqttCodeError | OSError) else "connection"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, OSError) else "unexpected"


# MQTT 5.0, section 2.4. Any other code from 0x80 on is a refusal.
_UNSPECIFIED: Final = 0x80
_REASON_OF_CODE: Final[dict[int, Reason]] = {
    0x86: "authentication",  # bad user name or password
    NOT_AUTHORIZED: "authentication",
    0x88: "connection",  # server unavailable
    0x89: "connection",  # server busy
    0x8A: "authentication",  # banned
    0x8B: "connection",  # server shutting down
    0x8C: "authentication",  # bad authentication method
    0x8D: "timeout",  # keep alive timeout
    0x8E: "taken_over",
}
