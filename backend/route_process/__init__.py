"""The endpoint picker of Envoy: sockets, clock and files around `backend/fleet/`."""
