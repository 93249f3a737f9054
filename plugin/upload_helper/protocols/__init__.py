"""The wire: what bytes and fields mean. Nothing here reads a socket, opens a file or knows a request object."""
