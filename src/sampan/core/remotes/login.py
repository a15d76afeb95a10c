"""Does a registry take these credentials? `POST /auth`."""

from __future__ import annotations

from http import HTTPStatus

from sampan.core.remotes.auth import Authorizer
from sampan.core.remotes.endpoints import registry_host
from sampan.core.remotes.http import Http, RunBlocking
from sampan.core.remotes.refusals import MAX_ERROR, refusal
from sampan.core.remotes.remote import find_endpoint, open_http
from sampan.core.remotes.settings import Credentials, RemoteSettings
from sampan.errors import Unauthorized


async def login(
    address: str, credentials: Credentials, settings: RemoteSettings, run_blocking: RunBlocking
) -> str:  # fmt: skip
    """The identity token to keep instead of the password, if the registry gives one, else nothing. Raises Unauthorized,
    Unavailable, InvalidArgument."""
    async with open_http(settings, run_blocking) as http:
        endpoint = await find_endpoint(http, registry_host(address))
        return await http.again(http.patience.requests, lambda: _login(http, f"{endpoint.base}/", credentials))


async def _login(http: Http, url: str, credentials: Credentials) -> str:
    authorizer = Authorizer(http, credentials)
    response = await http.send("GET", url)
    if response.status == 401:
        challenges = response.headers.getall("WWW-Authenticate", [])
        response.release()
        # An identity is asked for where there is none yet, as Docker does: the password needn't be kept then.
        await authorizer.answer(challenges, "", offline=not credentials.identity_token)
        response = await http.send("GET", url, authorization=authorizer.header)
    async with response:
        if response.status == 200:
            return authorizer.identity
        data = await http.content(response, MAX_ERROR)
        if response.status in (401, 403):
            phrase = HTTPStatus(response.status).phrase
            raise Unauthorized(f"login attempt to {url} failed with status: {response.status} {phrase}")
        raise refusal("GET", url, response.status, response.headers, data)
