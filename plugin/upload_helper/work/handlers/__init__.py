"""What a task does: arrays of handlers, and the types of handlers that come with the package."""
