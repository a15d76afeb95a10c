"""Images from registries and to them: distribution-spec 1.1, over aiohttp.

`trust` says whom to speak to and how (plain, TLS, whose certificates), `http` sends one request and follows where it is
led, `auth` answers challenges, `repository` is one repository of one registry, `remote` that repository wherever it can
be had (its mirrors, then its registry). Over them `pull`, `push`, `login` and `search`.
"""
