"""How registries are reached in one operation: rules, credentials, limits, and the connections that it keeps."""

import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Self

from layerfs.reference import Reference
from layerfs.registry.auth import Authenticator
from layerfs.registry.client import Client
from layerfs.registry.config import Endpoint, RegistryConfig, find_tls
from layerfs.registry.connection import Calls, Timeouts
from layerfs.registry.credentials import Credentials, CredentialStore
from layerfs.registry.retry import Retry
from layerfs.registry.session import Session
from layerfs.registry.transport import Transport

__all__ = ["Access"]


class Access:
    """Makes clients; a context manager that closes their connections. ``note`` gets each warning once."""

    def __init__(
        self,
        config: RegistryConfig,
        credentials: CredentialStore,
        *,
        timeouts: Timeouts | None = None,
        retry: Retry | None = None,
        note: Callable[[str], None] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = config
        self.credentials = credentials
        self.retry = retry or Retry()
        self._note = note
        self._noted: set[str] = set()
        self._lock = threading.Lock()
        self._transport = Transport(
            partial(find_tls, environ=environ), config.is_insecure, environ, timeouts or Timeouts()
        )

    @classmethod
    def load(
        cls,
        *,
        auth_file: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> Self:
        """What the files of the user say; ``insecure``: TLS is never verified. InvalidInputError for a wrong file."""
        return cls(RegistryConfig.load(insecure=insecure), CredentialStore(auth_file), note=note)

    def pull_clients(self, reference: Reference) -> list[Client]:
        """Where the content of a reference can be had, in the order to ask; RegistryError when it is blocked."""
        return [self.client(endpoint, "pull") for endpoint in self.config.pull_endpoints(reference)]

    def push_client(self, reference: Reference) -> Client:
        """Where it goes; RegistryError when it is blocked."""
        return self.client(self.config.push_endpoint(reference), "pull,push")

    def client(self, endpoint: Endpoint, actions: str, credentials: Credentials | None = None) -> Client:
        """A client of one repository; ``credentials`` instead of those of the user's files."""

        def look_up() -> Credentials | None:
            return credentials or self.credentials.get(endpoint.registry, endpoint.repository)

        calls = Calls()
        authenticator = Authenticator(endpoint, self._transport, look_up, self.config.is_insecure, calls)
        return Client(Session(endpoint, actions, self._transport, authenticator, self.retry, self._warn, calls))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _warn(self, text: str) -> None:
        with self._lock:
            if self._note is None or text in self._noted:
                return
            self._noted.add(text)
        self._note(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
