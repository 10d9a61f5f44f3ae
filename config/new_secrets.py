"""Makes the passwords that docker-compose.yml asks for: `python3 config/new_secrets.py DIRECTORY`.

Nothing is overwritten: to change passwords make a new directory and name it in CASCADE_SECRETS.
Needs Python >= 3.9 and nothing else.
"""  # noqa: INP001

import base64
import hashlib
import secrets
import sys
from pathlib import Path

NAMED = "+client|setinfo"
"""With it client libraries say who they are, from Redis 7.2 on."""

RIGHTS = {
    "cascade": (
        "resetkeys ~cascade:* resetchannels &cascade:* -@all +ping +multi +exec +get +set +publish "
        "+xadd +xrange +xinfo|stream +client|setname"
    ),
    "reader": (
        "resetkeys %R~cascade:* resetchannels &cascade:* -@all +ping +get +subscribe +xread "
        "+xinfo|stream +client|setname"
    ),
    "worker": (
        "resetkeys ~cascade:alerts resetchannels -@all +ping +xgroup|create +xreadgroup "
        "+xautoclaim +xack +client|setname"
    ),
}
"""The monitor, whoever reads, and workers of a consumer group: as docs/messages.md has them."""

NOBODY_RIGHTS = "resetkeys resetchannels -@all +ping"
"""Whoever gives no password: the health check."""

MOSQUITTO_ITERATIONS = 101
"""What mosquitto_passwd uses; the passwords are random, so it need not be slow."""


def written(directory: Path) -> None:
    """Write every secret into a new directory.

    Raises:
        FileExistsError: the directory exists.
    """
    # Bind mounts keep the owner, and each container has a user of its own: so everybody may read
    # the files, and nobody but their owner may enter the directory.
    directory.mkdir(mode=0o700)
    for name, text in contents().items():
        path = directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o444)


def contents() -> dict[str, str]:
    """The text of every file by its name, with new passwords."""
    redis = {user: secrets.token_hex(24) for user in RIGHTS}
    mqtt = {user: secrets.token_hex(24) for user in ("cascade", "reader")}
    users = [f"user default on nopass {NOBODY_RIGHTS}"]
    users += [
        f"user {user} on #{_sha256(redis[user])} {rights} {NAMED}"
        for user, rights in RIGHTS.items()
    ]
    return {
        "redis_url": f"redis://cascade:{redis['cascade']}@valkey:6379/0",
        "redis_reader_url": f"redis://reader:{redis['reader']}@127.0.0.1:6379/0",
        "redis_worker_url": f"redis://worker:{redis['worker']}@127.0.0.1:6379/0",
        "valkey_users": "".join(f"{user}\n" for user in users),
        "mqtt_password": mqtt["cascade"],
        "mqtt_reader_password": mqtt["reader"],
        "mosquitto_passwords": "".join(f"{user}:{_mosquitto(mqtt[user])}\n" for user in mqtt),
        "grafana_admin_password": secrets.token_hex(24),
        "grafana_secret_key": secrets.token_hex(32),
    }


def _sha256(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _mosquitto(password: str) -> str:
    """As mosquitto_passwd(1) writes it: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, MOSQUITTO_ITERATIONS)
    salted, keyed = (base64.b64encode(part).decode() for part in (salt, key))
    return f"$7${MOSQUITTO_ITERATIONS}${salted}${keyed}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    try:
        written(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
