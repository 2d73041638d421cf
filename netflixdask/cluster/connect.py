"""Connecting to a scheduler that runs, and saying why one could not."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import warnings
from collections.abc import Iterator
from typing import Any

import distributed
from distributed.versions import VersionMismatchWarning

from netflixdask.cluster import sound
from netflixdask.cluster.agree import Newcomers, check_versions
from netflixdask.cluster.careful import CarefulClient
from netflixdask.errors import ClusterError, NoSchedulerError

CONNECT_TIMEOUT = "10s"
PROBE_SECONDS = 5.0


class OwningClient(CarefulClient):
    """A client that closes its cluster when it is closed."""

    def __init__(self, cluster: Any) -> None:
        self._owned: Any = cluster
        super().__init__(cluster)

    def close(self, *args: Any, **options: Any) -> Any:
        """Close the client, then the cluster."""
        try:
            return super().close(*args, **options)
        finally:
            # Once: the collector closes what has been closed, and a cluster takes a lock for it
            # which the thread that the collector runs in may be waited for with.
            owned, self._owned = self._owned, None
            if owned is not None:
                owned.close()


def connect(
    address: str,
    security: distributed.Security | None = None,
    *,
    strict: bool = True,
    check: bool = True,
    say_roots: bool = True,
    timeout: str | None = None,
) -> distributed.Client:
    """Connect to the scheduler at ``address`` and check its and its workers' versions.

    Args:
        address: ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
        security: certificates; by default those of Dask's own configuration.
        strict: refuse other versions; otherwise only say them.
        check: compare versions, of workers that come later too, and look at their memory.
        say_roots: say which workers run as root beyond loopback.
        timeout: how long to try, as Dask writes times.

    Raises:
        NoSchedulerError: if none answers there, or it refuses this process; says why.
        ClusterError: if the versions differ in a way that matters, or a worker has too little
            memory to be given any task.
    """
    with _silent():
        try:
            client = CarefulClient(address, security=security, timeout=timeout or CONNECT_TIMEOUT)
        except (OSError, TimeoutError, TypeError, RuntimeError, ValueError) as error:
            # ValueError: a plain scheduler's greeting came before the handshake of TLS.
            raise NoSchedulerError(
                _why(address, security, error, timeout or CONNECT_TIMEOUT)
            ) from error
    # A scheduler that goes away is told in one sentence, not in a traceback of Dask's log.
    logging.getLogger("distributed.batched").setLevel(logging.CRITICAL)
    if not check:
        return client
    try:
        client.newcomers = Newcomers(client, address, strict=strict)
        check_versions(client, address, strict=strict)
        sound.refuse_small(client.scheduler_info(n_workers=-1)["workers"], address)
        if say_roots:
            sound.say_roots(client, address)
    except BaseException as error:
        client.close()
        if isinstance(error, (OSError, distributed.CancelledError)):
            raise ClusterError(f"{address}: the scheduler went away ({error})") from error
        raise
    return client


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence Dask's log and its table of versions: the one error says what matters."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)
            yield
    finally:
        logger.setLevel(level)


def _why(
    address: str, security: distributed.Security | None, error: BaseException, timeout: str
) -> str:
    """Return the sentence for a connection that failed."""
    kind = type(error).__name__
    try:
        reason = _look(address, security)
    except OSError:
        reason = ""
    if reason:
        return f"{address}: {reason}"
    return (
        f"{address}: no scheduler answered within {timeout} ({kind}); start one with "
        "'dask scheduler --host 127.0.0.1' and 'dask worker ADDRESS' or with 'netflixdask "
        "cluster up FILE.toml', or leave the address out for the laptop scheduler"
    )


def _look(address: str, security: distributed.Security | None) -> str:
    """Look at what listens at ``address``, and return why it would not talk to us, if we see it.

    Dask's own error says only that the connection was closed when a scheduler refused a
    certificate, as the refusal comes after the handshake (TLS 1.3).
    """
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    where = (host.strip("[]"), int(port)) if port.isdecimal() else (place, 8786)
    if scheme == "tcp":
        # A scheduler without TLS greets at once; one with it waits for the other side.
        greeting = _plain_greeting(where)
        if greeting or not _speaks_tls(where):
            return ""
        return (
            "the scheduler there speaks TLS and takes no plain connection; expected a cluster file "
            f'with kind = "address", address = "tls://{place}" and [tls]'
        )
    context = _context(security)
    if context is None:
        return (
            "TLS needs certificates, and none are configured; expected a cluster file with "
            f'kind = "address", address = "{address}" and [tls] (--cluster FILE.toml)'
        )
    if not _speaks_tls(where):
        return f"what listens there does not speak TLS; is it tcp://{place}?"
    for text in _refusals(where, context):
        return text
    return ""


def _plain_greeting(where: tuple[str, int]) -> bool:
    with socket.create_connection(where, PROBE_SECONDS) as probe:
        probe.settimeout(0.5)
        try:
            return bool(probe.recv(1))
        except OSError:
            return False


def _speaks_tls(where: tuple[str, int]) -> bool:
    """Tell whether a TLS server answers, whatever its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(where, PROBE_SECONDS) as plain:
        try:
            context.wrap_socket(plain).close()
        except ssl.SSLError as error:
            # An alert is TLS too: it wanted a certificate that we did not show.
            return "ALERT" in str(error.reason)
        except OSError:
            return False
    return True


def _context(security: distributed.Security | None) -> ssl.SSLContext | None:
    found = (security or distributed.Security()).get_connection_args("client")["ssl_context"]
    return found if isinstance(found, ssl.SSLContext) else None


def _refusals(where: tuple[str, int], context: ssl.SSLContext) -> Iterator[str]:
    """Shake hands as the client would and yield who refuses which certificate, if one does."""
    with socket.create_connection(where, PROBE_SECONDS) as plain:
        try:
            with context.wrap_socket(plain) as probe:
                probe.recv(1)
        except ssl.SSLCertVerificationError as error:
            if "expired" in error.verify_message:
                yield (
                    "the scheduler's certificate has expired; make new ones with 'netflixdask "
                    "cluster certs DIR --renew' and start the cluster again"
                )
            elif "self-signed" in error.verify_message or "issuer" in error.verify_message:
                yield (
                    "the scheduler's certificate is not signed by the authority of this side "
                    "(ca in [tls]); expected the ca.crt of that cluster"
                )
            else:
                yield f"the scheduler's certificate is not accepted ({error.verify_message})"
        except ssl.SSLError as error:
            reason = str(error.reason)
            if "EXPIRED" in reason:
                yield (
                    "the scheduler refuses this side's certificate, which has expired; make a new "
                    "one with 'netflixdask cluster certs DIR --renew'"
                )
            elif "ALERT" in reason:
                yield (
                    f"the scheduler refuses this side's certificate ({reason}); expected one that "
                    "its own authority signed (cert and key in [tls])"
                )
        except OSError:
            return
