"""Every endpoint that the published Engine API has from 1.24 to 1.51 is there: served, or refused by name."""

from __future__ import annotations

import asyncio

import pytest

from sampan.engine import config
from sampan.engine.http.router import Router
from sampan.engine.routes import all_routes
from sampan.engine.services import Engine

PUBLISHED = """
GET /_ping
HEAD /_ping
GET /version
GET /info
GET /events
POST /auth
GET /system/df
GET /containers/json
POST /containers/create
POST /containers/prune
GET /containers/x/json
GET /containers/x/top
GET /containers/x/logs
GET /containers/x/changes
GET /containers/x/export
GET /containers/x/stats
POST /containers/x/resize
POST /containers/x/start
POST /containers/x/stop
POST /containers/x/restart
POST /containers/x/kill
POST /containers/x/update
POST /containers/x/rename
POST /containers/x/pause
POST /containers/x/unpause
POST /containers/x/attach
GET /containers/x/attach/ws
POST /containers/x/wait
DELETE /containers/x
HEAD /containers/x/archive
GET /containers/x/archive
PUT /containers/x/archive
POST /containers/x/exec
POST /exec/x/start
POST /exec/x/resize
GET /exec/x/json
GET /containers/x/checkpoints
POST /containers/x/checkpoints
DELETE /containers/x/checkpoints/y
POST /commit
GET /images/json
POST /images/create
POST /images/load
POST /images/prune
GET /images/search
GET /images/get
GET /images/a/b/json
GET /images/a/b/history
GET /images/a/b/get
POST /images/a/b/push
POST /images/a/b/tag
DELETE /images/a/b
GET /distribution/a/b/json
POST /build
POST /build/prune
POST /build/cancel
POST /session
POST /grpc
GET /volumes
POST /volumes/create
POST /volumes/prune
GET /volumes/x
DELETE /volumes/x
PUT /volumes/x
GET /networks
GET /networks/x
DELETE /networks/x
POST /networks/create
POST /networks/prune
POST /networks/x/connect
POST /networks/x/disconnect
GET /plugins
GET /plugins/privileges
POST /plugins/pull
POST /plugins/create
GET /plugins/a/b/json
DELETE /plugins/a/b
POST /plugins/a/b/enable
POST /plugins/a/b/disable
POST /plugins/a/b/upgrade
POST /plugins/a/b/push
POST /plugins/a/b/set
GET /swarm
POST /swarm/init
POST /swarm/join
POST /swarm/leave
POST /swarm/update
GET /swarm/unlockkey
POST /swarm/unlock
GET /nodes
GET /nodes/x
DELETE /nodes/x
POST /nodes/x/update
GET /services
POST /services/create
GET /services/x
DELETE /services/x
POST /services/x/update
GET /services/x/logs
GET /tasks
GET /tasks/x
GET /tasks/x/logs
GET /secrets
POST /secrets/create
GET /secrets/x
DELETE /secrets/x
POST /secrets/x/update
GET /configs
POST /configs/create
GET /configs/x
DELETE /configs/x
POST /configs/x/update
"""


@pytest.fixture(scope="module")
def router() -> Router:
    async def make() -> Router:
        return Router(all_routes(Engine(config.Config())))

    return asyncio.run(make())


@pytest.mark.parametrize("endpoint", PUBLISHED.split("\n")[1:-1])
def test_it_is_there(router: Router, endpoint: str) -> None:
    method, _, path = endpoint.partition(" ")
    assert router.find(method, path) is not None


@pytest.mark.parametrize("endpoint", ["POST /services", "DELETE /swarm", "POST /containers/x/copy", "PUT /info"])
def test_what_docker_does_not_have_either(router: Router, endpoint: str) -> None:
    method, _, path = endpoint.partition(" ")
    assert router.find(method, path) is None


def test_a_linked_container_has_a_name_of_two_parts(router: Router) -> None:
    found = router.find("GET", "/containers/linking/alias/json")
    assert found is not None and found[1] == {"id": "linking/alias"}
