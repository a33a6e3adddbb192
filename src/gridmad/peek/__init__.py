"""A running job's output, live, through a STOMP broker (PROTOCOL.md)."""
