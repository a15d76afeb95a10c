"""The Engine API's HTTP server: connections, requests, dispatch, errors, and the hand-over of connections."""
