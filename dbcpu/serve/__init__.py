"""The demonstration server and the HTTP API; needs the extra `serve`."""
