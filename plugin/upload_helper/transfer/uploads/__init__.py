"""How a file is sent, by what the server speaks."""
