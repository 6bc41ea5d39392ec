"""The client of registries: where they are, who asks, and how bytes come and go.

Nothing is imported here: urllib3 costs tens of milliseconds, which only those commands pay that speak to a
registry. ``config`` and ``credentials`` are free of it; ``source`` and ``sink`` are what copying takes.

    config       our registries.toml, certs.d: which host is spoken to for a repository, and how
    credentials  config.json, auth.json and credential helpers
    challenge    WWW-Authenticate, Link, Warning and Retry-After headers
    connection   connections with deadlines, which another thread can end
    transport    urllib3: proxies, TLS, redirects, limits on bodies
    auth         Basic, Bearer and OAuth2 refresh: the Authorization of a request
    retry        how often and when again
    session      one registry host: scheme, authorization, errors with names
    client       the calls of distribution-spec for one repository
    download     a blob as a reader that survives broken connections, in parallel ranges where it is large
    upload       a blob in one request or in chunks, continued after a break
    source, sink a repository as BlobSource and BlobSink
"""

__all__: list[str] = []
