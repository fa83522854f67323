"""Who we are to the other side: key files, and the keys that ssh-agent holds. No passwords."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.channels.ssh_config import Endpoint
from edgepack.errors import ChannelError

if TYPE_CHECKING:
    from paramiko import Agent, PKey, Transport


@dataclass
class _Tried:
    """What was offered and what could not be, for the message at the end."""

    offered: list[str] = field(default_factory=list)
    encrypted: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def authenticate(endpoint: Endpoint, transport: Transport) -> None:
    """Log in with the first key that is taken.

    Raises:
        ChannelError: None was; says what was tried, and which keys need their passphrase.
    """
    tried = _Tried()
    with contextlib.closing(_keys(endpoint, tried)) as keys:
        if _one_is_taken(endpoint, transport, keys, tried):
            return
    raise _refused(endpoint, tried)


def _one_is_taken(
    endpoint: Endpoint, transport: Transport, keys: Iterator[tuple[str, PKey]], tried: _Tried
) -> bool:
    from paramiko import AuthenticationException, BadAuthenticationType, SSHException

    for label, key in keys:
        tried.offered.append(label)
        try:
            more = transport.auth_publickey(endpoint.user, key)
        except BadAuthenticationType as error:
            raise ChannelError(
                f"{endpoint}: the server takes no keys, only {', '.join(error.allowed_types)}",
                "Switch PubkeyAuthentication on in its sshd_config",
            ) from error
        except AuthenticationException:
            continue
        except (SSHException, EOFError):
            # Too many failures: the server hangs up after MaxAuthTries keys.
            return False
        if more:
            raise ChannelError(
                f"{endpoint}: the key was taken, but the server also wants {', '.join(more)}",
                "Let the key alone suffice for this user (AuthenticationMethods in sshd_config)",
            )
        return True
    return False


def _refused(endpoint: Endpoint, tried: _Tried) -> ChannelError:
    if tried.encrypted and not tried.offered:
        path = tried.encrypted[0]
        return ChannelError(
            f"{endpoint}: the key {path} has a passphrase and ssh-agent does not hold it",
            f'eval "$(ssh-agent)" && ssh-add {shlex.quote(str(path))}',
        )
    parts = [f"{len(tried.offered)} offered ({', '.join(tried.offered)})"] if tried.offered else []
    parts += [f"{path} has a passphrase" for path in tried.encrypted]
    parts += tried.unreadable
    return ChannelError(
        f"{endpoint}: no key was accepted: {'; '.join(parts) or 'there is none to offer'}",
        f"ssh-copy-id -p {endpoint.port} {shlex.quote(f'{endpoint.user}@{endpoint.host}')}, "
        "or name a key with --identity",
    )


def _keys(endpoint: Endpoint, tried: _Tried) -> Generator[tuple[str, PKey], None, None]:
    """Files first, then what the agent holds, whose connection stays open meanwhile; each once."""
    seen: set[bytes] = set()
    for path in endpoint.identities:
        key = _load(path, tried)
        if key is not None and key.asbytes() not in seen:
            seen.add(key.asbytes())
            yield str(path), key
    if not endpoint.use_agent:
        return
    only = {_public_half(path) for path in endpoint.identities}
    with _agent() as agent:
        for agent_key in agent.get_keys() if agent else ():
            blob = agent_key.asbytes()
            if blob not in seen and (not endpoint.identities_only or blob in only):
                seen.add(blob)
                yield f"ssh-agent's {agent_key.comment or agent_key.get_name()}", agent_key


def _load(path: Path, tried: _Tried) -> PKey | None:
    from paramiko import PasswordRequiredException, PKey, SSHException
    from paramiko.pkey import UnknownKeyType

    if not path.exists():
        return None
    try:
        return PKey.from_path(path)
    except (PasswordRequiredException, TypeError):  # TypeError: cryptography asks for a password
        tried.encrypted.append(path)
    except (SSHException, UnknownKeyType, ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a private key"
        tried.unreadable.append(f"{path} cannot be used: {reason}")
    return None


@contextlib.contextmanager
def _agent() -> Iterator[Agent | None]:
    """The running ssh-agent; None where there is none, or one that answers nonsense."""
    import paramiko

    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError):
        yield None
        return
    with contextlib.closing(agent):
        yield agent


def _public_half(path: Path) -> bytes:
    """The public key beside a private one, which also an encrypted key has."""
    from base64 import b64decode

    try:
        return b64decode(Path(f"{path}.pub").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return b""
