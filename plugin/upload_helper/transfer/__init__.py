"""Files sent and fetched over links that break: the client half of the protocols."""
