"""TLS of a link: version 1.3, both sides with a certificate, each known by its fingerprint.

A context admits any site in the world: it proves that the other end holds the key of the certificate it shows. Whose
it is, `peer_fingerprint` says, and the caller must compare it with the peers it knows before it believes anything.
This module must never admit a connection whose other end showed no certificate.
"""

from __future__ import annotations

import asyncio
import ssl

from engine.link.identity import Identity, authority_pem, fingerprint_of


def server_context(identity: Identity) -> ssl.SSLContext:
    """For the side that was dialled. Raises OSError (ssl.SSLError) if the identity's files do not load."""
    return _context(ssl.PROTOCOL_TLS_SERVER, identity)


def client_context(identity: Identity) -> ssl.SSLContext:
    """For the side that dials. Raises OSError (ssl.SSLError) if the identity's files do not load."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity)


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # addresses change; the fingerprint is what is checked
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority_pem())
    context.load_cert_chain(identity.certificate, identity.key)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # every link makes its own keys; a ticket would be bytes for nothing
    return context


def peer_fingerprint(transport: asyncio.BaseTransport) -> str:
    """The fingerprint of the other end's certificate; that of nothing, which no peer has, should it have none."""
    return fingerprint_of(transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b"")
